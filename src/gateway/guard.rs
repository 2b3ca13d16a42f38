//! Doubts about a change that gives money back, before it is sent for the first time. They come from the event log, which
//! may know too little: so they are advice unless the operator had them refuse, and Stripe's own answer decides.

mod payment;

use self::payment::{Doubt, Payment};
use super::accounts::Account;
use super::call::Gateway;
use super::fault::{Code, Fault, Reason, Retry};
use super::outcome;
use crate::config::{GuardMode, Guards};
use crate::contract::Guard;
use crate::domain::limits::{EVENT_BATCH_EVENTS_MAX, GUARD_EVENTS_MAX};
use crate::ledger::{Asked, Preview, Sending};
use crate::proto::v1::{Advice, AdviceTopic};

impl Gateway {
    /// What is to be said of a change besides its answer.
    ///
    /// # Errors
    /// FAILED_PRECONDITION / `GUARD_REFUSED` where a guard refuses; UNAVAILABLE when the store cannot be read.
    pub(super) async fn guard(&self, account: &Account, asked: &Asked<'_>) -> Result<Vec<Advice>, Fault> {
        let on = asked.spec.guards.iter().map(|guard| (*guard, mode(&self.guards, *guard)));
        let on: Vec<_> = on.filter(|(_, mode)| *mode != GuardMode::Off).collect();
        let param = |name| asked.params.iter().find(|pair| pair.name == name).map(|pair| pair.value.as_str());
        let target = param("charge").or_else(|| param("payment_intent"));
        let (Some(target), false) = (target, on.is_empty()) else { return Ok(Vec::new()) };
        let preview = self.ledger.preview(asked.clone()).await.map_err(|error| self.unrecorded(&error))?;
        // What was sent before is not doubted again: it may have taken effect, and then the doubt is about itself.
        if !matches!(preview, Preview::Send { how: Sending::New | Sending::NextGeneration, .. }) {
            return Ok(Vec::new());
        }
        let payment = self.payment(account, target).await?;
        let amount = param("amount").and_then(|amount| amount.parse().ok());
        let mut advice = Vec::new();
        for (guard, mode) in on {
            let doubt = match guard {
                Guard::OverRefund => payment.over_refund(amount),
                Guard::OpenDispute => payment.open_dispute(),
            };
            match doubt {
                Some(doubt) if mode == GuardMode::Refuse => return Err(refused(guard, doubt)),
                Some(Doubt { message, objects }) => {
                    advice.push(Advice { topic: topic(guard).into(), message, objects });
                }
                None => {}
            }
        }
        Ok(advice)
    }

    /// What the log tells of the payment, read step by step, since events may be large.
    async fn payment(&self, account: &Account, target: &str) -> Result<Payment, Fault> {
        let (mut payment, mut read, mut left) = (Payment::default(), 0, GUARD_EVENTS_MAX);
        loop {
            let events = self.feed.about(target, read, left.min(EVENT_BATCH_EVENTS_MAX)).await;
            let events = events.map_err(|error| outcome::store_down(&error, "nothing was sent"))?;
            let Some(last) = events.last() else { return Ok(payment) };
            (read, left) = (last.position, left.saturating_sub(events.len()));
            let own = events.iter().map(|stored| &stored.event);
            payment.learn(target, own.filter(|event| event.account == account.log_alias()));
        }
    }
}

/// The fault of a change that was doubted, and failed, with the doubts.
pub(super) fn advised(fault: Fault, advice: &[Advice]) -> Fault {
    let topics = advice.iter().map(|advice| advice.topic().as_str_name().trim_start_matches("ADVICE_TOPIC_"));
    let topics: Vec<String> = topics.map(str::to_lowercase).collect();
    if topics.is_empty() { fault } else { fault.with("advice", topics.join(",")) }
}

fn mode(guards: &Guards, guard: Guard) -> GuardMode {
    match guard {
        Guard::OverRefund => guards.over_refund,
        Guard::OpenDispute => guards.open_dispute,
    }
}

fn topic(guard: Guard) -> AdviceTopic {
    match guard {
        Guard::OverRefund => AdviceTopic::OverRefund,
        Guard::OpenDispute => AdviceTopic::OpenDispute,
    }
}

fn refused(guard: Guard, doubt: Doubt) -> Fault {
    let name = match guard {
        Guard::OverRefund => "over_refund",
        Guard::OpenDispute => "open_dispute",
    };
    let message = format!("{}; nothing was sent", doubt.message);
    let mut fault = Fault::new(Code::FailedPrecondition, Reason::GuardRefused, message)
        .with("guard", name)
        .with("objects", doubt.objects.join(","))
        .retry(Retry::Never);
    fault.precondition = Some((name.to_uppercase(), doubt.objects.into_iter().next().unwrap_or_default()));
    fault
}
