//! The server's codec: prost's encoding, with requests that keep track of the fields this build does not know.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{Codec as TonicCodec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::contract::Received;
use crate::gateway::{Code, Fault, Reason, Retry};

/// The codec of every RPC.
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
        Writer(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Reader(PhantomData)
    }
}

/// Writes responses.
#[derive(Debug)]
pub struct Writer<Response>(PhantomData<Response>);

impl<Response: Message> Encoder for Writer<Response> {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, item: Response, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|_| Status::internal("the response does not fit its buffer"))
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
