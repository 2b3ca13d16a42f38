//! Puts the gRPC services together: the contract's, health and reflection, behind the door.

use std::time::Duration;

use tonic::service::RoutesBuilder;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::Error;
use crate::domain::drain::Drain;
use crate::domain::limits::STRANGER_MESSAGE_BYTES_MAX;
use crate::grpc::layer::DoorLayer;
use crate::grpc::{Api, SERVICES, add_services};
use crate::proto::DESCRIPTORS;

/// How long watchers are told NOT_SERVING at least before their streams end.
const WATCHERS_WAIT: Duration = Duration::from_secs(1);

/// Every service of the gRPC port; health says that it is going once `left` has begun, and ends with `drain`.
///
/// # Errors
/// When the descriptors cannot be served.
pub(super) async fn grpc(
    api: Api,
    door: DoorLayer,
    (left, drain): (Drain, Drain),
) -> Result<axum::Router, Error> {
    let mut routes = RoutesBuilder::default();
    add_services(&mut routes, &api);
    let (reporter, health) = tonic_health::server::health_reporter();
    for service in SERVICES {
        reporter.set_service_status(*service, ServingStatus::Serving).await;
    }
    tokio::spawn(stop_serving(reporter, left, drain));
    routes.add_service(health.max_decoding_message_size(STRANGER_MESSAGE_BYTES_MAX));
    let failed = |error: tonic_reflection::server::Error| Error::Reflection(error.to_string());
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (v1, v1alpha) =
        (descriptors().build_v1().map_err(failed)?, descriptors().build_v1alpha().map_err(failed)?);
    routes.add_service(v1.max_decoding_message_size(STRANGER_MESSAGE_BYTES_MAX));
    routes.add_service(v1alpha.max_decoding_message_size(STRANGER_MESSAGE_BYTES_MAX));
    Ok(routes.routes().into_axum_router().layer(door))
}

/// Tells watchers of the health service that the gateway is going.
async fn stop_serving(reporter: HealthReporter, left: Drain, drain: Drain) {
    left.begun().await;
    for service in SERVICES.iter().copied().chain([""]) {
        reporter.set_service_status(service, ServingStatus::NotServing).await;
    }
    drain.begun().await;
    // A watcher's stream has no end of its own, and would hold its connection open for the whole grace.
    tokio::time::sleep(WATCHERS_WAIT).await;
    let mut reporter = reporter;
    for service in SERVICES.iter().copied().chain([""]) {
        reporter.clear_service_status(service).await;
    }
}
