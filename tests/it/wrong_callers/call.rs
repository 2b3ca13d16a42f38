//! One attempt on the wire: any RPC, any metadata, any bytes. It judges nothing.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::time::timeout;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataKey};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

/// Longest that an answer is waited for; a stream that says nothing for so long was let in.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It was let in, and this was answered first.
    Allowed(Bytes),
    /// It was refused with this code and reason.
    Refused(Code, String),
}

/// Messages as bytes.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Calls the RPC at `path`, and reads the first answer.
pub(super) async fn call(
    channel: &Channel,
    path: &str,
    metadata: &[(&'static str, String)],
    messages: Vec<Vec<u8>>,
) -> Came {
    let mut request = Request::new(tokio_stream::iter(messages.into_iter().map(Bytes::from)));
    for (name, value) in metadata {
        let name: MetadataKey<Ascii> = name.parse().unwrap();
        request.metadata_mut().append(name, value.parse().unwrap());
    }
    let path = PathAndQuery::try_from(path).unwrap();
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    let answer = async {
        grpc.ready().await.map_err(|error| Status::unknown(format!("no connection: {error}")))?;
        // On the wire a unary call is a stream of one message, so that one way serves all four kinds.
        grpc.streaming(request, path, Raw).await?.into_inner().message().await
    };
    match timeout(ANSWER_WAIT_MAX, answer).await {
        Ok(Ok(first)) => Came::Allowed(first.unwrap_or_default()),
        Ok(Err(status)) => {
            let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
            Came::Refused(status.code(), reason)
        }
        Err(_) => Came::Allowed(Bytes::new()),
    }
}
