//! Raw gRPC calls with messages known by descriptor only, as any client with reflection makes them.

use std::net::SocketAddr;

use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Encodes and decodes by descriptor; it carries that of the answer.
#[derive(Clone)]
struct Dynamic(MessageDescriptor);

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        self.clone()
    }

    fn decoder(&mut self) -> Self {
        self.clone()
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(to).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        DynamicMessage::decode(self.0.clone(), from)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// A connection to the gateway.
pub(crate) async fn connect(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

fn path(method: &str) -> http::uri::PathAndQuery {
    format!("/{method}").parse().unwrap()
}

async fn ready(channel: &Channel) -> Grpc<Channel> {
    let mut client = Grpc::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
    client.ready().await.unwrap();
    client
}

/// One message each way; `method` is `package.Service/Rpc`.
pub(crate) async fn call(
    channel: &Channel,
    method: &str,
    request: &DynamicMessage,
    answer: MessageDescriptor,
) -> Result<DynamicMessage, Status> {
    let request = Request::new(request.clone());
    let answer = ready(channel).await.unary(request, path(method), Dynamic(answer)).await?;
    Ok(answer.into_inner())
}

/// Several messages there, one back.
pub(crate) async fn upload(
    channel: &Channel,
    method: &str,
    requests: &[DynamicMessage],
    answer: MessageDescriptor,
) -> Result<DynamicMessage, Status> {
    let requests = Request::new(tokio_stream::iter(requests.to_vec()));
    let answer = ready(channel).await.client_streaming(requests, path(method), Dynamic(answer)).await?;
    Ok(answer.into_inner())
}
