//! The server's codec: prost's encoding, with requests that keep track of the fields this build does not know.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec as TonicCodec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::contract::Received;
use crate::gateway::{Code, Fault, Reason, Retry};

/// What a stream's buffer grows by, in bytes.
const STREAM_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of messages that a stream has ready before they are sent although more could follow at once.
const STREAM_FRAME_BYTES: usize = 128 * 1024;

/// The codec of every RPC with one response.
#[derive(Debug)]
pub struct Codec<Request, Response>(PhantomData<(Request, Response)>);

impl<Request, Response> Default for Codec<Request, Response> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Request, Response> TonicCodec for Codec<Response, Received<Request>>
where
    Request: Message + Name + Default + Send + 'static,
    Response: Message + Send + 'static,
{
    type Encode = Response;
    type Decode = Received<Request>;
    type Encoder = Writer<Response>;
    type Decoder = Reader<Request>;

    fn encoder(&mut self) -> Self::Encoder {
        Writer { buffers: BufferSettings::default(), response: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        Reader(PhantomData)
    }
}

/// The codec of every RPC whose responses are a stream: many of them leave in one frame.
#[derive(Debug)]
pub struct StreamCodec<Request, Response>(PhantomData<(Request, Response)>);

impl<Request, Response> Default for StreamCodec<Request, Response> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Request, Response> TonicCodec for StreamCodec<Response, Received<Request>>
where
    Request: Message + Name + Default + Send + 'static,
    Response: Message + Send + 'static,
{
    type Encode = Response;
    type Decode = Received<Request>;
    type Encoder = Writer<Response>;
    type Decoder = Reader<Request>;

    fn encoder(&mut self) -> Self::Encoder {
        let buffers = BufferSettings::new(STREAM_BUFFER_BYTES, STREAM_FRAME_BYTES);
        Writer { buffers, response: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        Reader(PhantomData)
    }
}

/// Writes responses.
#[derive(Debug)]
pub struct Writer<Response> {
    buffers: BufferSettings,
    response: PhantomData<Response>,
}

impl<Response: Message> Encoder for Writer<Response> {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, item: Response, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|_| Status::internal("the response does not fit its buffer"))
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.buffers
    }
}

/// Reads requests.
#[derive(Debug)]
pub struct Reader<Request>(PhantomData<Request>);

impl<Request: Message + Name + Default> Decoder for Reader<Request> {
    type Item = Received<Request>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        Received::decode(bytes).map(Some).map_err(|_| {
            let fault = Fault::new(
                Code::InvalidArgument,
                Reason::InvalidRequest,
                format!("the bytes are not a `{}`", Request::full_name()),
            );
            super::status::of(&fault.retry(Retry::Never))
        })
    }
}
