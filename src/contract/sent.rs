//! Responses of which a part was encoded before: what many callers are sent is encoded once. It knows messages and
//! bytes, and nothing of what they say.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType};
use prost::{DecodeError, Message};

/// A message on its way out: what is its own, and fields of it that are shared with others in their wire form. Fields
/// that follow each other are one message (protobuf.dev/programming-guides/encoding, "Last One Wins").
#[derive(Clone, Debug, Default)]
pub struct Sent<T> {
    /// What is its own.
    pub message: T,
    /// The encoded fields that it has besides.
    pub shared: Bytes,
}

impl<T> From<T> for Sent<T> {
    fn from(message: T) -> Self {
        Self { message, shared: Bytes::new() }
    }
}

impl<T: Message> Message for Sent<T> {
    fn encode_raw(&self, out: &mut impl BufMut) {
        self.message.encode_raw(out);
        out.put_slice(&self.shared);
    }

    fn encoded_len(&self) -> usize {
        self.message.encoded_len() + self.shared.len()
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire: WireType,
        bytes: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        self.message.merge_field(tag, wire, bytes, context)
    }

    fn clear(&mut self) {
        self.message.clear();
        self.shared.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::subscribe_response::Item;
    use crate::proto::v1::{Event, SubscribeResponse};

    #[test]
    fn shared_fields_read_like_the_messages_own() {
        let event = Event { id: "evt_1".to_owned(), json: "{}".to_owned(), ..Event::default() };
        let whole = SubscribeResponse { item: Some(Item::Event(event)) };
        let shared = Bytes::from(whole.encode_to_vec());
        let sent = Sent { message: SubscribeResponse::default(), shared };
        let bytes = sent.encode_to_vec();
        assert_eq!(bytes.len(), sent.encoded_len());
        assert_eq!(SubscribeResponse::decode(bytes.as_slice()).as_ref(), Ok(&whole));
        let own = Sent::from(whole.clone()).encode_to_vec();
        assert_eq!(Sent::<SubscribeResponse>::decode(own.as_slice()).unwrap().message, whole);
    }
}
