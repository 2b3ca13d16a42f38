//! One event of the log in memory, shared by all who read it: what costs to make of it is made once. What its wire form
//! says is not decided here.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::cause::Cause;
use super::envelope::Envelope;
use super::notes::Notes;
use crate::proto::v1::CauseKind;
use crate::store::{NewEvent, StoredEvent};

/// Memory that an event takes besides its body, in bytes; about.
const OVERHEAD_BYTES: usize = 1024;
/// How often an event's body is in memory once it was sent in every view: as it came, and in each wire form twice, as
/// text and as fields.
const BODY_COPIES: usize = 5;

/// How much of an event a reader is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// What Stripe says, and of the cause no more than its kind.
    Plain,
    /// The call that caused it, too.
    Attributed,
}

/// An event of the log.
#[derive(Debug)]
pub struct LogEvent {
    /// Its position.
    pub position: u64,
    /// The event.
    pub event: NewEvent,
    envelope: OnceLock<Option<Envelope>>,
    notes: OnceLock<Notes>,
    plain: OnceLock<Bytes>,
    attributed: OnceLock<Bytes>,
}

impl LogEvent {
    /// What the event's JSON says of it, and the account that it belongs to even if the JSON does not; read at the first
    /// question. `None` if it cannot be read, which it could before it was stored.
    #[must_use]
    pub fn envelope(&self) -> Option<&Envelope> {
        let read = || {
            let mut envelope = Envelope::parse(&self.event.json).ok()?;
            if envelope.connected_account.is_empty() {
                envelope.connected_account.clone_from(&self.notes().connected_account);
            }
            Some(envelope)
        };
        self.envelope.get_or_init(read).as_ref()
    }

    /// What caused it, read at the first question.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.notes().cause
    }

    fn notes(&self) -> &Notes {
        self.notes.get_or_init(|| Notes::decode(&self.event.cause))
    }

    /// Who caused it, in one word; nobody where its JSON cannot be read.
    #[must_use]
    pub fn cause_kind(&self) -> CauseKind {
        let kind = |envelope| self.cause().kind(envelope, self.event.source);
        self.envelope().map(kind).unwrap_or_default()
    }

    /// The event in its wire form: what `encode` made of it at the first question for this view, which has to be the same
    /// whoever asks. Whether it is a whole message or a field of one is up to `encode`; all readers share the bytes.
    pub fn encoded(&self, view: View, encode: impl FnOnce(&Self) -> Bytes) -> Bytes {
        let cell = match view {
            View::Plain => &self.plain,
            View::Attributed => &self.attributed,
        };
        cell.get_or_init(|| encode(self)).clone()
    }

    /// Most memory that it may come to take, in bytes; about.
    pub(super) fn bytes_max(&self) -> usize {
        OVERHEAD_BYTES.saturating_add(self.event.json.len().saturating_mul(BODY_COPIES))
    }
}

impl From<StoredEvent> for LogEvent {
    fn from(StoredEvent { position, event }: StoredEvent) -> Self {
        Self {
            position,
            event,
            envelope: OnceLock::new(),
            notes: OnceLock::new(),
            plain: OnceLock::new(),
            attributed: OnceLock::new(),
        }
    }
}

impl PartialEq for LogEvent {
    fn eq(&self, other: &Self) -> bool {
        (self.position, &self.event) == (other.position, &other.event)
    }
}

impl Eq for LogEvent {}

/// Rows of the store as events that can be shared.
pub(super) fn shared(stored: Vec<StoredEvent>) -> Vec<Arc<LogEvent>> {
    stored.into_iter().map(|stored| Arc::new(stored.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> LogEvent {
        let event = NewEvent { json: json.to_owned(), ..NewEvent::default() };
        StoredEvent { position: 1, event }.into()
    }

    #[test]
    fn each_view_is_encoded_once_and_shared() {
        let event = event("{}");
        let plain = event.encoded(View::Plain, |_| Bytes::from_static(b"plain"));
        let attributed = event.encoded(View::Attributed, |_| Bytes::from_static(b"attributed"));
        assert_eq!((plain.as_ref(), attributed.as_ref()), (&b"plain"[..], &b"attributed"[..]));
        let again = event.encoded(View::Plain, |_| Bytes::from_static(b"again"));
        assert_eq!(again.as_ptr(), plain.as_ptr());
    }

    #[test]
    fn what_cannot_be_read_has_no_envelope() {
        assert_eq!(event("{").envelope(), None);
        let json = r#"{"object":"event","id":"evt_1","type":"a.b","created":1,"livemode":false}"#;
        assert_eq!(event(json).envelope().map(|envelope| envelope.id.as_str()), Some("evt_1"));
    }

    #[test]
    fn an_account_that_the_json_does_not_name_was_noted() {
        let connected = |account: &str| {
            let json = format!(
                r#"{{"id":"evt_1","object":"event","type":"a.b","created":1,"livemode":false{account}}}"#
            );
            let notes = Notes { connected_account: "acct_9".into(), ..Notes::default() };
            let event = NewEvent { json, cause: notes.encode(), ..NewEvent::default() };
            let event = LogEvent::from(StoredEvent { position: 1, event });
            event.envelope().map(|envelope| envelope.connected_account.clone())
        };
        assert_eq!(connected("").as_deref(), Some("acct_9"));
        assert_eq!(connected(r#","account":"acct_1""#).as_deref(), Some("acct_1"));
    }
}
