//! What the feed says, as the contract's messages.

use prost_types::Timestamp;

use crate::domain::clock::UnixMillis;
use crate::domain::cursor::Cursor;
use crate::events::{self, Envelope, Feed, Item};
use crate::gateway::redact::without_client_secrets;
use crate::proto::v1::subscribe_response::Item as Sent;
use crate::proto::v1::{CaughtUp, Checkpoint, Event, SubscribeResponse};
use crate::store::StoredEvent;

/// One message of a stream.
pub(super) fn response(item: Item, feed: &Feed) -> SubscribeResponse {
    let sent = match item {
        Item::Event(stored) => Sent::Event(event(stored, feed)),
        Item::Checkpoint(reached) => Sent::Checkpoint(checkpoint(&reached)),
        Item::CaughtUp(cursor) => Sent::CaughtUp(caught_up(cursor)),
    };
    SubscribeResponse { item: Some(sent) }
}

/// An event of the log.
pub(super) fn event(stored: StoredEvent, feed: &Feed) -> Event {
    let StoredEvent { position, event } = stored;
    // It was read before it was stored; should it not read now, the details stay empty and the JSON tells.
    let envelope = Envelope::parse(&event.json).ok();
    let detail = |of: fn(&Envelope) -> &str| envelope.as_ref().map(of).unwrap_or_default().to_owned();
    Event {
        position,
        cursor: feed.cursor(position).encode(),
        created: Some(Timestamp { seconds: event.created_s, nanos: 0 }),
        received: Some(timestamp(event.received_ms)),
        connected_account: detail(|envelope| &envelope.connected_account),
        object_id: detail(|envelope| &envelope.object_id),
        object_type: detail(|envelope| &envelope.object_type),
        stripe_request_id: detail(|envelope| &envelope.request_id),
        idempotency_key: detail(|envelope| &envelope.idempotency_key),
        json: without_client_secrets(&event.json).into_owned(),
        id: event.id,
        r#type: event.kind,
        account: event.account,
        livemode: event.livemode,
        api_version: event.api_version,
        source: event.source,
    }
}

fn checkpoint(reached: &events::Checkpoint) -> Checkpoint {
    Checkpoint {
        position: reached.cursor.position,
        cursor: reached.cursor.encode(),
        head_position: reached.head,
        head_time: reached.head_received_ms.map(timestamp),
    }
}

fn caught_up(cursor: Cursor) -> CaughtUp {
    CaughtUp { position: cursor.position, cursor: cursor.encode() }
}

fn timestamp(millis: UnixMillis) -> Timestamp {
    let nanos = i32::try_from(millis.rem_euclid(1000) * 1_000_000).unwrap_or_default();
    Timestamp { seconds: millis.div_euclid(1000), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_become_seconds_and_nanoseconds() {
        assert_eq!(timestamp(1_500), Timestamp { seconds: 1, nanos: 500_000_000 });
        assert_eq!(timestamp(-1), Timestamp { seconds: -1, nanos: 999_000_000 });
    }
}
