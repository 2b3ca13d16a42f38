//! An open stream of events: each event is judged before it is shown, and the stream itself whenever callers or policies
//! change.

use std::collections::HashMap;
use std::sync::Arc;

use super::{SUBSCRIBE, fault};
use crate::audit::Phase;
use crate::domain::cursor::Cursor;
use crate::events::{Item, Subscription};
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
struct Reader {
    context: Context,
    account: Arc<Account>,
    /// Decisions by type, under the policies of this epoch.
    shown: HashMap<String, bool>,
    epoch: u64,
}

impl EventStream {
    pub(super) fn new(subscription: Subscription, context: Context, account: Arc<Account>) -> Self {
        Self { subscription, reader: Reader { context, account, shown: HashMap::new(), epoch: 0 } }
    }

    /// Where the reader is: what has been handed out lies at or before it.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.subscription.cursor()
    }
}

impl Gateway {
    /// The next message of a stream that its reader may be shown.
    ///
    /// # Errors
    /// OUT_OF_RANGE when the log has dropped what the reader had still to read, UNAVAILABLE when the store cannot be
    /// read; both with the stream's cursor.
    pub async fn next_of(&self, stream: &mut EventStream) -> Result<SubscribeResponse, Fault> {
        loop {
            match stream.subscription.next().await {
                Ok(Item::Event(stored)) if !self.may_be_shown(&mut stream.reader, &stored.event.kind) => {}
                Ok(item) => return Ok(self.response(item)),
                Err(error) => return Err(fault(&error)),
            }
        }
    }

    /// Judges an open stream anew, after a change of callers or policies.
    ///
    /// # Errors
    /// UNAUTHENTICATED when its reader's credential is nobody's any more, PERMISSION_DENIED when no rule permits the
    /// stream any more.
    pub fn stream_again(&self, stream: &mut EventStream) -> Result<(), Fault> {
        let Reader { context, account, shown, .. } = &mut stream.reader;
        shown.clear();
        let judged = self.judge_again(context, account, SUBSCRIBE);
        if let Err(fault) = &judged {
            self.keep_stream_end(context, account, fault);
        }
        judged
    }

    /// Puts on record that an open stream was ended.
    fn keep_stream_end(&self, context: &Context, account: &Account, fault: &Fault) {
        let mut record = self.plain_record(Phase::Denied, context, SUBSCRIBE, Some(&account.alias));
        record.decision = fault.metadata.get("rule").or(fault.metadata.get("credential")).cloned();
        record.conclude("ended");
        record.outcome.get_or_insert_default().reason = Some(fault.reason_name().to_owned());
        self.keep(&record);
    }

    /// Whether the policies show the reader events of this type; remembered for as long as they are the same.
    fn may_be_shown(&self, reader: &mut Reader, kind: &str) -> bool {
        let epoch = self.policies.epoch();
        if reader.epoch != epoch || reader.shown.len() >= EVENT_TYPES_REMEMBERED_MAX {
            (reader.epoch, reader.shown) = (epoch, HashMap::new());
        }
        if let Some(may) = reader.shown.get(kind) {
            return *may;
        }
        let may = self.may_receive(&reader.context.caller, &reader.account, kind);
        reader.shown.insert(kind.to_owned(), may);
        may
    }
}
