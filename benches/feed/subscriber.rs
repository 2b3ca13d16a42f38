//! A lean reader of the gateway's event stream: bare HTTP/2 with the frames and windows that a reader of many events
//! asks for, and of each message no more than it needs. It measures nothing.

use std::net::SocketAddr;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::Builder;
use http::Request;
use prost::Message as _;
use tollgate::proto::v1::SubscribeRequest;

use crate::process::connect;
use crate::setup::TOKEN;

/// Window of a stream and of a connection, and the largest frame, in bytes.
const WINDOW_BYTES: u32 = 1 << 20;
const FRAME_BYTES: u32 = 64 << 10;
/// What stands before a gRPC message: whether it is compressed, and its length.
const HEADER_BYTES: usize = 5;

/// A stream of events that begins at the next one, on a connection of its own.
pub(crate) struct Subscriber {
    body: RecvStream,
    read: BytesMut,
}

/// A message of the stream, as much of it as is of interest.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    #[prost(message, optional, tag = "1")]
    pub(crate) event: Option<Event>,
    #[prost(message, optional, tag = "3")]
    caught_up: Option<CaughtUp>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Event {
    #[prost(string, tag = "3")]
    pub(crate) id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CaughtUp {}

impl Subscriber {
    /// Opens a stream, and waits until it stands.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let mut builder = Builder::new();
        builder
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES);
        let (mut client, connection) = builder.handshake::<_, Bytes>(connect(address).await).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://localhost/tollgate.v1.EventService/Subscribe")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(())
            .unwrap();
        let (response, mut send) = client.send_request(request, false).unwrap();
        send.send_data(framed(&SubscribeRequest::default()), true).unwrap();
        let response = response.await.unwrap();
        assert!(response.headers().get("grpc-status").is_none(), "{response:?}");
        let mut subscriber = Self { body: response.into_body(), read: BytesMut::new() };
        while subscriber.next().await.caught_up.is_none() {}
        subscriber
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Response {
        loop {
            if let Some(message) = self.split() {
                return Response::decode(message).unwrap();
            }
            self.fill().await;
        }
    }

    /// Reads what comes, and says how many events were in it.
    pub(crate) async fn count(&mut self) -> usize {
        self.fill().await;
        // An event is the first field of its message, and no other message has that field.
        std::iter::from_fn(|| self.split()).filter(|message| message.first() == Some(&0x0a)).count()
    }

    fn split(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.read.get(1..HEADER_BYTES)?.get_u32()).unwrap();
        if self.read.len() < HEADER_BYTES + length {
            return None;
        }
        self.read.advance(HEADER_BYTES);
        Some(self.read.split_to(length).freeze())
    }

    async fn fill(&mut self) {
        let bytes = self.body.data().await.expect("the stream goes on").unwrap();
        self.body.flow_control().release_capacity(bytes.len()).unwrap();
        self.read.extend_from_slice(&bytes);
    }
}

fn framed(message: &impl prost::Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}
