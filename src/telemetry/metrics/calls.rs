//! What is counted of calls.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::{Counter, Histogram, Meter};
use opentelemetry::{KeyValue, Value};
use prost::Message as _;

use super::super::names::{self, OTHER, Stage};
use super::exemplars::Exemplars;
use super::{Metrics, counter, duration};
use crate::proto::DESCRIPTORS;

/// Methods that the server has and the contract does not.
const STANDARD_METHODS: [&str; 4] = [
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// The RPC system, as the conventions name it.
const GRPC: &str = "grpc";

/// What counts calls.
#[derive(Debug)]
pub(super) struct Instruments {
    methods: HashSet<Arc<str>>,
    duration: Histogram<f64>,
    pub(super) exemplars: Exemplars,
    failed: Counter<u64>,
    stages: Histogram<f64>,
}

impl Instruments {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            methods: methods(),
            duration: duration(meter, names::RPC_DURATION, "Duration of gRPC calls"),
            exemplars: Exemplars::default(),
            failed: counter(
                meter,
                names::CALLS_FAILED,
                "Calls that failed, by the side that the cause lies on and the reason",
            ),
            stages: duration(meter, names::CALL_STAGE_DURATION, "Duration of the stages of a change"),
        }
    }
}

impl Metrics {
    /// The name of a method that the server has; [`OTHER`] for any other, so that nobody can make up names.
    #[must_use]
    pub fn method(&self, rpc: &str) -> &str {
        self.0.calls.methods.get(rpc).map_or(OTHER, AsRef::as_ref)
    }

    /// One finished gRPC call, in whose span this is called. `rpc` is `package.Service/Method`; a method that the server does
    /// not have counts as [`OTHER`]. `code` is the number of the gRPC status.
    pub fn rpc(&self, rpc: &str, code: i32, elapsed: Duration) {
        let calls = &self.0.calls;
        let method = calls.methods.get(rpc).map_or(Value::from(OTHER), |known| Arc::clone(known).into());
        let (status, elapsed_s) = (names::rpc_status(code), elapsed.as_secs_f64());
        calls.exemplars.see(&[&method, &status, &GRPC], elapsed_s);
        calls.duration.record(
            elapsed_s,
            &[
                KeyValue::new(names::LABEL_RPC_SYSTEM, GRPC),
                KeyValue::new(names::LABEL_RPC_METHOD, method),
                KeyValue::new(names::LABEL_RPC_STATUS, status),
            ],
        );
    }

    /// A call of the contract failed; `reason` is what the caller was told, empty where it was told none.
    pub fn call_failed(&self, code: i32, reason: &str) {
        let (side, reason) = names::failure(code, reason);
        let labels =
            [KeyValue::new(names::LABEL_SIDE, side.as_str()), KeyValue::new(names::LABEL_REASON, reason)];
        self.0.calls.failed.add(1, &labels);
    }

    /// A change went through a stage.
    pub fn stage(&self, stage: Stage, elapsed: Duration) {
        let label = [KeyValue::new(names::LABEL_STAGE, stage.as_str())];
        self.0.calls.stages.record(elapsed.as_secs_f64(), &label);
    }
}

/// Every method that a caller can reach; anything else in a path is the caller's invention.
fn methods() -> HashSet<Arc<str>> {
    let files = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default().file;
    let contract = files.iter().flat_map(|file| {
        file.service.iter().flat_map(move |service| {
            let full = move |method: &str| format!("{}.{}/{method}", file.package(), service.name());
            service.method.iter().map(move |method| full(method.name()))
        })
    });
    contract.chain(STANDARD_METHODS.map(str::to_owned)).map(Arc::from).collect()
}
