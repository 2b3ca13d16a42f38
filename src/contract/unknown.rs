//! Fields of a request that this build does not know. Dropping one in silence could move the wrong money, so they are
//! found on the wire, at any depth, and handed on with the message.

use std::sync::LazyLock;

use bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Name};
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

use super::field_path::FieldPath;
use crate::domain::limits::VIOLATIONS_MAX;
use crate::proto::DESCRIPTORS;

/// The contract's descriptors, options included.
pub static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).unwrap_or_default());

/// A request as it came in.
#[derive(Clone, Debug, Default)]
pub struct Received<T> {
    /// What this build understands of it.
    pub message: T,
    /// Paths of the fields that it does not.
    pub unknown: Vec<String>,
}

impl<T: prost::Message + Default + Name> Received<T> {
    /// Decodes a request.
    ///
    /// # Errors
    /// When the bytes are not a message of this type.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let message = T::decode(bytes.clone())?;
        let mut unknown = Vec::new();
        if let Some(descriptor) = POOL.get_message_by_name(&T::full_name()) {
            walk(bytes, &descriptor, &FieldPath::root(), &mut unknown)?;
        }
        Ok(Self { message, unknown })
    }
}

impl<T> From<T> for Received<T> {
    fn from(message: T) -> Self {
        Self { message, unknown: Vec::new() }
    }
}

fn walk(
    mut bytes: Bytes,
    descriptor: &MessageDescriptor,
    at: &FieldPath,
    unknown: &mut Vec<String>,
) -> Result<(), DecodeError> {
    while bytes.has_remaining() {
        let (number, wire) = decode_key(&mut bytes)?;
        let field = descriptor.get_field(number);
        let child = field.as_ref().and_then(|field| match field.kind() {
            Kind::Message(message) if wire == WireType::LengthDelimited => Some((field.name(), message)),
            _ => None,
        });
        if let Some((name, message)) = child {
            let length = usize::try_from(decode_varint(&mut bytes)?).unwrap_or(usize::MAX);
            // The first decoding has already found the bytes to be whole.
            let part = bytes.split_to(length.min(bytes.len()));
            walk(part, &message, &at.field(name), unknown)?;
            continue;
        }
        if field.is_none() && unknown.len() < VIOLATIONS_MAX {
            unknown.push(at.field(&format!("#{number}")).to_string());
        }
        skip_field(wire, number, &mut bytes, DecodeContext::default())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost::encoding::{encode_key, encode_varint};

    use super::*;
    use crate::proto::v1::{CreateRefundRequest, OperationRef};

    #[test]
    fn unknown_fields_are_found_at_any_depth() {
        let mut operation = OperationRef { order_id: "1".into(), ..Default::default() }.encode_to_vec();
        encode_key(77, WireType::Varint, &mut operation);
        encode_varint(1, &mut operation);
        let mut request = CreateRefundRequest { amount: Some(5), ..Default::default() }.encode_to_vec();
        encode_key(1, WireType::LengthDelimited, &mut request);
        encode_varint(operation.len() as u64, &mut request);
        request.extend(operation);
        encode_key(900, WireType::ThirtyTwoBit, &mut request);
        request.extend([0; 4]);

        let received = Received::<CreateRefundRequest>::decode(request.into()).unwrap();
        assert_eq!(received.unknown, ["operation.#77", "#900"]);
        assert_eq!(received.message.operation.unwrap().order_id, "1");
    }
}
