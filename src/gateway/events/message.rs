//! What the feed says, as the contract's messages.

use bytes::Bytes;
use prost::Message as _;
use prost_types::Timestamp;

use crate::contract::{Sent, typed};
use crate::domain::clock::UnixMillis;
use crate::domain::cursor::Cursor;
use crate::events::{self, Envelope, Feed, Item, LogEvent, Share, View, Viewer, snapshot};
use crate::gateway::intake::is_other;
use crate::gateway::redact::without_client_secrets;
use crate::proto::v1::subscribe_response::Item as Response;
use crate::proto::v1::{CaughtUp, Checkpoint, Event, StripeObject, SubscribeResponse};

/// One message of a stream.
pub(super) fn response(item: Item, feed: &Feed, viewer: &Viewer) -> Sent<SubscribeResponse> {
    let item = match item {
        Item::Event(logged) => return Sent { shared: shared(&logged, feed, viewer), ..Sent::default() },
        Item::Checkpoint(reached) => Response::Checkpoint(checkpoint(&reached)),
        Item::CaughtUp(cursor) => Response::CaughtUp(caught_up(cursor)),
    };
    SubscribeResponse { item: Some(item) }.into()
}

/// An event of the log as the field `event` of a `SubscribeResponse`, in its wire form; field 1 of every message that is
/// streamed is the event.
pub(in crate::gateway) fn shared(logged: &LogEvent, feed: &Feed, viewer: &Viewer) -> Bytes {
    let encode = |logged: &LogEvent, viewer: &Viewer| {
        let item = Some(Response::Event(event(logged, feed, viewer)));
        Bytes::from(SubscribeResponse { item }.encode_to_vec())
    };
    match viewer.share_of(logged.cause()) {
        Share::Nothing => logged.encoded(View::Plain, |logged| encode(logged, &Viewer::default())),
        Share::All => logged.encoded(View::Attributed, |logged| encode(logged, viewer)),
        // Two namespaces meet in one event: too rare to be kept.
        Share::Part => encode(logged, viewer),
    }
}

/// An event of the log, as its reader may see it.
pub(in crate::gateway) fn event(logged: &LogEvent, feed: &Feed, viewer: &Viewer) -> Event {
    let event = &logged.event;
    // Where the JSON does not read, the details stay empty and the JSON tells.
    let envelope = logged.envelope();
    let detail = |of: fn(&Envelope) -> &str| envelope.map(of).unwrap_or_default().to_owned();
    Event {
        position: logged.position,
        cursor: feed.cursor(logged.position).encode(),
        created: Some(Timestamp { seconds: event.created_s, nanos: 0 }),
        received: Some(timestamp(event.received_ms)),
        connected_account: detail(|envelope| &envelope.connected_account),
        object_id: detail(|envelope| &envelope.object_id),
        object_type: detail(|envelope| &envelope.object_type),
        stripe_request_id: detail(|envelope| &envelope.request_id),
        idempotency_key: detail(|envelope| &envelope.idempotency_key),
        object: object(&event.json),
        cause: Some(logged.cause().message(logged.cause_kind(), viewer)),
        api_version_differs: is_other(&event.api_version),
        json: without_client_secrets(&event.json).into_owned(),
        id: event.id.clone(),
        r#type: event.kind.clone(),
        account: event.account.clone(),
        livemode: event.livemode,
        api_version: event.api_version.clone(),
        source: event.source,
    }
}

/// The object that an event carries, as far as the contract can read it.
fn object(event: &str) -> Option<StripeObject> {
    let object = serde_json::from_str(snapshot(event)?).ok()?;
    typed(&object).unwrap_or_else(|error| {
        tracing::debug!(%error, "an event's object is not what the contract knows");
        None
    })
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

pub(in crate::gateway) fn timestamp(millis: UnixMillis) -> Timestamp {
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
