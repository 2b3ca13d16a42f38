//! Carries a stream to its caller: as fast as the caller takes it, judged anew whenever rights change, and with a word
//! about its place at the end. What is streamed is the source's.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream;
use tonic::Status;
use tracing::{Instrument as _, Span};

use super::api::Api;
use super::status;
use crate::contract::Sent;
use crate::domain::drain::Drain;
use crate::domain::planted;
use crate::gateway::{Changes, Code, Context, Fault, Gateway, Reason, Retry};
use crate::telemetry::metrics::Subscriber;

/// Advice on when to come back, to this gateway or another.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// What a stream takes its messages from.
pub(super) trait Source: Send + Sized + 'static {
    /// One message.
    type Message: Send + 'static;

    /// The next message, if it lies ready.
    fn ready(&mut self, gateway: &Gateway) -> Option<Sent<Self::Message>>;

    /// Waits for the next message; an error ends the stream. Nothing is lost when the wait is given up and begun anew.
    fn next(&mut self, gateway: &Gateway) -> impl Future<Output = Result<Sent<Self::Message>, Fault>> + Send;

    /// Judges the stream anew; an error ends it.
    fn again(&mut self, gateway: &Gateway) -> Result<(), Fault>;

    /// What the caller is told at the end.
    fn end(&self, fault: Fault) -> Fault;

    /// Logs the end; the reason is empty where the caller went.
    fn log_end(&self, reason: &str);
}

/// The stream of a source that was just opened; `changes` are those since before it was judged.
pub(super) fn carried<S: Source>(
    api: &Api,
    context: &Context,
    source: S,
    changes: Changes,
) -> impl Stream<Item = Result<Sent<S::Message>, Status>> + Send + use<S> {
    let carrier = Carrier {
        source,
        changes,
        gateway: Arc::clone(&api.gateway),
        over: Box::pin(over(api.drain.clone(), context.deadline)),
        span: Span::current(),
        reason: "",
        _counted: api.gateway.metrics.subscriber(),
    };
    Carried::Ready(Box::new(carrier))
}

/// What the wait for a message ends with.
type Waited<S> = (Box<Carrier<S>>, Next<S>);
type Next<S> = Result<Sent<<S as Source>::Message>, Fault>;

/// A stream that is open.
struct Carrier<S: Source> {
    source: S,
    /// Tells when it has to be judged anew.
    changes: Changes,
    gateway: Arc<Gateway>,
    /// What ends it whatever comes next.
    over: Pin<Box<dyn Future<Output = Fault> + Send>>,
    span: Span,
    /// Why it ended; empty where its caller went.
    reason: &'static str,
    /// Counts the stream for as long as it is open.
    _counted: Subscriber,
}

impl<S: Source> Carrier<S> {
    /// Waits for the next message; an error ends the stream.
    async fn next(mut self: Box<Self>) -> Waited<S> {
        loop {
            let Self { source, changes, gateway, over, .. } = &mut *self;
            let next = tokio::select! {
                biased;
                fault = over => Some(Err(fault)),
                () = changes.next() => None,
                next = source.next(gateway) => Some(next),
            };
            let next = match next {
                Some(next) => next,
                None => match source.again(gateway) {
                    Ok(()) => continue,
                    Err(fault) => Err(fault),
                },
            };
            return (self, next);
        }
    }

    /// The next message, if it lies ready and the stream was judged since the last change.
    fn ready(&mut self) -> Option<Sent<S::Message>> {
        if self.changes.are_due() { None } else { self.source.ready(&self.gateway) }
    }

    /// What the caller is told at the end: why, and how far the stream came.
    fn end(mut self, fault: Fault) -> Status {
        self.reason = fault.reason_name();
        let fault = if planted::active("drain-mutes-streams") { fault } else { self.source.end(fault) };
        status::of(&fault)
    }
}

impl<S: Source> Drop for Carrier<S> {
    fn drop(&mut self) {
        let _entered = self.span.enter();
        self.source.log_end(self.reason);
    }
}

/// A stream as its caller takes it: nothing is taken from the subscription that is not sent.
enum Carried<S: Source> {
    /// Something may lie ready.
    Ready(Box<Carrier<S>>),
    /// The next message is waited for.
    Waiting(Pin<Box<dyn Future<Output = Waited<S>> + Send>>),
    Over,
}

impl<S: Source> Stream for Carried<S> {
    type Item = Result<Sent<S::Message>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::mem::replace(&mut *self, Self::Over) {
                Self::Over => return Poll::Ready(None),
                Self::Ready(mut carrier) => {
                    if let Some(message) = carrier.ready() {
                        *self = Self::Ready(carrier);
                        return Poll::Ready(Some(Ok(message)));
                    }
                    let span = carrier.span.clone();
                    *self = Self::Waiting(Box::pin(carrier.next().instrument(span)));
                }
                Self::Waiting(mut next) => {
                    let Poll::Ready((carrier, next)) = next.as_mut().poll(context) else {
                        *self = Self::Waiting(next);
                        return Poll::Pending;
                    };
                    let message = match next {
                        Ok(message) => {
                            *self = Self::Ready(carrier);
                            Ok(message)
                        }
                        Err(fault) => Err((*carrier).end(fault)),
                    };
                    return Poll::Ready(Some(message));
                }
            }
        }
    }
}

/// Waits for what ends any stream.
async fn over(drain: Drain, deadline: Option<Instant>) -> Fault {
    tokio::select! {
        biased;
        () = drain.begun() => shutting_down(),
        () = passed(deadline) => deadline_passed(),
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

pub(super) fn shutting_down() -> Fault {
    let message = "the gateway is going away; open the stream again where it ended";
    Fault::new(Code::Unavailable, Reason::ShuttingDown, message).retry(Retry::After(RETRY_SOON))
}

fn deadline_passed() -> Fault {
    let message = "the deadline passed; a stream without one does not end by itself";
    Fault::new(Code::DeadlineExceeded, Reason::DeadlineExceeded, message)
}
