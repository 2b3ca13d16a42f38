//! An open stream of events: each event is judged before it is shown, and the stream itself whenever callers or policies
//! change.

use std::collections::HashMap;
use std::sync::Arc;

use super::{fault, message};
use crate::audit::Phase;
use crate::contract::Sent;
use crate::domain::cursor::Cursor;
use crate::events::{Item, Subscription, Viewer};
use crate::gateway::accounts::Account;
use crate::gateway::call::Gateway;
use crate::gateway::context::Context;
use crate::gateway::fault::Fault;
use crate::proto::v1::SubscribeResponse;

/// Types of events whose decision a stream remembers; Stripe has about 300.
const EVENT_TYPES_REMEMBERED_MAX: usize = 1_000;

/// A stream of events, and who reads it.
#[derive(Debug)]
pub struct EventStream {
    subscription: Subscription,
    reader: Reader,
}

/// Who reads a stream, and which types of events the policies show it.
#[derive(Debug)]
pub(in crate::gateway) struct Reader {
    /// The RPC that opened it.
    rpc: &'static str,
    pub(in crate::gateway) context: Context,
    pub(in crate::gateway) account: Arc<Account>,
    /// Whose causes it may know.
    pub(in crate::gateway) viewer: Viewer,
    pub(in crate::gateway) shown: Decisions,
}

/// Decisions by type of event, remembered for as long as the policies are the same.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Decisions {
    by_type: HashMap<String, bool>,
    epoch: u64,
}

impl Decisions {
    /// The decision on a type, under the policies of this epoch.
    pub(in crate::gateway) fn on(&mut self, kind: &str, epoch: u64, decide: impl FnOnce() -> bool) -> bool {
        if self.epoch != epoch || self.by_type.len() >= EVENT_TYPES_REMEMBERED_MAX {
            *self = Self { by_type: HashMap::new(), epoch };
        }
        if let Some(decided) = self.by_type.get(kind) {
            return *decided;
        }
        let decided = decide();
        self.by_type.insert(kind.to_owned(), decided);
        decided
    }
}

impl EventStream {
    pub(in crate::gateway) fn new(
        (rpc, subscription): (&'static str, Subscription),
        (context, account): (Context, Arc<Account>),
        viewer: Viewer,
    ) -> Self {
        Self { subscription, reader: Reader::new(rpc, (context, account), viewer) }
    }

    /// Where the reader is: what has been handed out lies at or before it.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.subscription.cursor()
    }
}

impl Reader {
    pub(in crate::gateway) fn new(
        rpc: &'static str,
        (context, account): (Context, Arc<Account>),
        viewer: Viewer,
    ) -> Self {
        Self { rpc, context, account, viewer, shown: Decisions::default() }
    }
}

impl Gateway {
    /// The next message of a stream that its reader may be shown.
    ///
    /// # Errors
    /// OUT_OF_RANGE when the log has dropped what the reader had still to read, UNAVAILABLE when the store cannot be
    /// read; both with the stream's cursor.
    pub async fn next_of(&self, stream: &mut EventStream) -> Result<Sent<SubscribeResponse>, Fault> {
        loop {
            match stream.subscription.next().await {
                Ok(Item::Event(logged)) if !self.may_be_shown(&mut stream.reader, &logged.event.kind) => {}
                Ok(item) => return Ok(message::response(item, &self.feed, &stream.reader.viewer)),
                Err(error) => return Err(fault(&error)),
            }
        }
    }

    /// The next message where it is an event that was read ahead, without a wait; [`Gateway::next_of`] otherwise has it.
    pub fn ready_of(&self, stream: &mut EventStream) -> Option<Sent<SubscribeResponse>> {
        while let Some(logged) = stream.subscription.next_read() {
            if self.may_be_shown(&mut stream.reader, &logged.event.kind) {
                return Some(message::response(Item::Event(logged), &self.feed, &stream.reader.viewer));
            }
        }
        None
    }

    /// Judges an open stream anew, after a change of callers or policies.
    ///
    /// # Errors
    /// UNAUTHENTICATED when its reader's credential is nobody's any more, PERMISSION_DENIED when no rule permits the
    /// stream any more.
    pub fn stream_again(&self, stream: &mut EventStream) -> Result<(), Fault> {
        let judged = self.reader_again(&mut stream.reader);
        stream.subscription.seen_by(stream.reader.viewer.clone());
        judged
    }

    /// Judges a reader anew.
    ///
    /// # Errors
    /// As [`Gateway::stream_again`].
    pub(in crate::gateway) fn reader_again(&self, reader: &mut Reader) -> Result<(), Fault> {
        let Reader { rpc, context, account, viewer, shown, .. } = reader;
        *shown = Decisions::default();
        let judged = self.judge_again(context, account, rpc);
        if let Err(fault) = &judged {
            self.keep_stream_end(rpc, (context, account), fault);
        }
        *viewer = self.viewer(&context.caller, account);
        judged
    }

    /// Puts on record that an open stream was ended.
    fn keep_stream_end(&self, rpc: &str, (context, account): (&Context, &Account), fault: &Fault) {
        let mut record = self.plain_record(Phase::Denied, context, rpc, Some(&account.alias));
        record.decision = fault.metadata.get("rule").or(fault.metadata.get("credential")).cloned();
        record.conclude("ended");
        record.outcome.get_or_insert_default().reason = Some(fault.reason_name().to_owned());
        self.keep(&record);
    }

    /// Whether the policies show the reader events of this type; remembered for as long as they are the same.
    pub(in crate::gateway) fn may_be_shown(&self, reader: &mut Reader, kind: &str) -> bool {
        let Reader { context, account, shown, .. } = reader;
        shown.on(kind, self.policies.epoch(), || self.may_receive(&context.caller, account, kind))
    }
}
