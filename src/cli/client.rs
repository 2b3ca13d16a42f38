//! Speaks to a gateway in JSON, for any method of the contract; it knows no method by name.

use std::time::Duration;

use clap::Args;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MethodDescriptor, SerializeOptions};
use serde_json::Value;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

use super::codec::DynamicCodec;
use super::failure::Failure;
use super::tls::TlsArgs;
use crate::config::{ADDRESS_VARIABLE, TOKEN_VARIABLE, nearest};
use crate::proto::DESCRIPTORS;

/// Longest that the gateway may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may be silent before the gateway is asked for a sign of life, and how long that may take: a stream on a
/// connection that died without a word ends after both.
const SILENCE_MAX: Duration = Duration::from_secs(15);
const SIGN_OF_LIFE_MAX: Duration = Duration::from_secs(10);
/// The package that a method's name may leave out.
const PACKAGE: &str = "tollgate.v1";

/// Which gateway, and as whom.
#[derive(Clone, Debug, Args)]
pub(super) struct Target {
    /// The gateway's gRPC address, host:port or https://host:port
    #[arg(long, env = ADDRESS_VARIABLE, default_value = "127.0.0.1:7400", global = true)]
    pub(super) address: String,
    /// Bearer token; better given as a variable, since arguments can be seen by others on this machine
    #[arg(long, env = TOKEN_VARIABLE, hide_env_values = true, global = true)]
    token: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Seconds after which an answer is no longer waited for; streams have none
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=3600), global = true)]
    timeout: u64,
}

impl Target {
    /// Connects.
    pub(super) async fn channel(&self) -> Result<Channel, Failure> {
        let (scheme, address) = match self.address.trim_end_matches('/').split_once("://") {
            Some((scheme @ ("http" | "https"), address)) => (scheme, address),
            Some(_) => return Err(self.no_address()),
            None => ("http", self.address.as_str()),
        };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .and_then(|endpoint| endpoint.user_agent(concat!("tollgate-cli/", env!("CARGO_PKG_VERSION"))))
            .map_err(|_| self.no_address())?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(SILENCE_MAX)
            .keep_alive_timeout(SIGN_OF_LIFE_MAX);
        if scheme == "https" {
            return endpoint.connect_with_connector(self.tls.connector()?).await.map_err(|error| {
                Failure::Unreachable(format!("no gateway at `{address}` over TLS: {}", innermost(&error)))
            });
        }
        endpoint.connect().await.map_err(|_| {
            Failure::Unreachable(format!(
                "no gateway at `{address}` in plain text; `tollgate dev` starts one to try, and one with TLS is \
                 `https://{address}`"
            ))
        })
    }

    fn no_address(&self) -> Failure {
        let given = &self.address;
        Failure::Data(format!("`{given}` is not an address like `127.0.0.1:7400` or `https://gateway:7400`"))
    }

    /// Connects and knows the contract.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        let token = self.token.as_deref().map(bearer).transpose()?;
        Ok(Client { channel: self.channel().await?, token, timeout: Duration::from_secs(self.timeout) })
    }
}

/// What an error comes down to.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, Failure> {
    format!("Bearer {token}")
        .parse()
        .map_err(|_| Failure::Data("the token holds a character that cannot be sent".into()))
}

/// A connection to a gateway.
#[derive(Clone, Debug)]
pub(super) struct Client {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    timeout: Duration,
}

impl Client {
    /// Starts a call: one message for most methods, several where the client streams.
    pub(super) async fn start(
        &self,
        method: &MethodDescriptor,
        messages: Vec<DynamicMessage>,
    ) -> Result<Streaming<DynamicMessage>, Failure> {
        let mut request = Request::new(tokio_stream::iter(messages));
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        if !method.is_server_streaming() {
            request.set_timeout(self.timeout);
        }
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let path = PathAndQuery::try_from(path).map_err(|_| Failure::Data("not a method's name".into()))?;
        let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| Failure::Unreachable(format!("the gateway is gone: {error}")))?;
        // On the wire a unary call is a stream of one message, so that one way serves all four kinds.
        let codec = DynamicCodec { answer: method.output() };
        Ok(grpc.streaming(request, path, codec).await?.into_inner())
    }

    /// A call with one request and one answer.
    pub(super) async fn unary(&self, method: &str, request: Value) -> Result<Value, Failure> {
        let method = Contract::load()?.method(method)?;
        let mut answers = self.start(&method, vec![message(&method, request)?]).await?;
        match answers.message().await? {
            Some(answer) => to_json(&answer),
            None => Err(Failure::Unreachable("the gateway ended the call without an answer".into())),
        }
    }
}

/// The contract as data.
#[derive(Debug)]
pub(super) struct Contract(DescriptorPool);

impl Contract {
    /// The contract of this build, and the standard health service.
    pub(super) fn load() -> Result<Self, Failure> {
        let broken = |error| Failure::Start(format!("the embedded contract cannot be read: {error}"));
        let mut pool = DescriptorPool::decode(DESCRIPTORS).map_err(broken)?;
        pool.decode_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET).map_err(broken)?;
        Ok(Self(pool))
    }

    /// All methods, by their full names.
    pub(super) fn methods(&self) -> Vec<String> {
        let methods = self.0.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        methods.map(|method| format!("{}/{}", method.parent_service().full_name(), method.name())).collect()
    }

    /// The method of this name; the package may be left out.
    pub(super) fn method(&self, name: &str) -> Result<MethodDescriptor, Failure> {
        let name = name.trim_start_matches('/');
        let found = name.rsplit_once(['/', '.']).and_then(|(service, method)| {
            let by_name = |service: &str| self.0.get_service_by_name(service);
            let service = by_name(service).or_else(|| by_name(&format!("{PACKAGE}.{service}")))?;
            service.methods().find(|known| known.name() == method)
        });
        found.ok_or_else(|| {
            let known = self.methods();
            let own = format!("{PACKAGE}.");
            let known: Vec<&str> = known.iter().map(|full| full.strip_prefix(&own).unwrap_or(full)).collect();
            let hint = nearest(name, known).map(|meant| format!("; did you mean `{meant}`?"));
            let hint = hint.unwrap_or_else(|| "; `tollgate call --list` names all".into());
            Failure::Data(format!("there is no method `{name}`{hint}"))
        })
    }
}

/// A request message from JSON, by the rules of protobuf's JSON form; fields that do not exist are refused.
pub(super) fn message(method: &MethodDescriptor, json: Value) -> Result<DynamicMessage, Failure> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(method.input(), json, &options)
        .map_err(|error| Failure::Data(format!("the request is not a `{}`: {error}", method.input().name())))
}

/// A message as JSON: fields by their names in the contract, whole numbers as numbers.
pub(super) fn to_json(message: &DynamicMessage) -> Result<Value, Failure> {
    let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| Failure::Data(format!("the answer cannot be shown: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_method_is_found_with_and_without_its_package() {
        let contract = Contract::load().unwrap();
        for name in [
            "RefundService/CreateRefund",
            "tollgate.v1.RefundService/CreateRefund",
            "/tollgate.v1.RefundService/CreateRefund",
            "RefundService.CreateRefund",
        ] {
            assert_eq!(contract.method(name).unwrap().name(), "CreateRefund", "{name}");
        }
        assert!(contract.method("grpc.health.v1.Health/Check").is_ok());
    }

    #[test]
    fn a_slip_in_a_methods_name_gets_a_hint() {
        let failure = Contract::load().unwrap().method("RefundService/CreatRefund").unwrap_err();
        assert_eq!(
            failure.to_string(),
            "there is no method `RefundService/CreatRefund`; did you mean `RefundService/CreateRefund`?"
        );
    }

    #[test]
    fn json_becomes_a_message_and_back_by_the_contracts_names() {
        let method = Contract::load().unwrap().method("RefundService/CreateRefund").unwrap();
        let given = json!({"operation": {"order_id": "o-1"}, "payment_intent": "pi_1", "amount": 500});
        let sent = message(&method, given.clone()).unwrap();
        assert_eq!(to_json(&sent).unwrap(), given);
        assert!(message(&method, json!({"ammount": 1})).is_err());
    }
}
