//! Puts the event log on the wire; a stream goes at its caller's speed and says at its end how far it came.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use crate::contract::Received;
use crate::domain::drain::Drain;
use crate::domain::limits::STREAM_AHEAD_ITEMS_MAX;
use crate::gateway::{Changes, Code, EventStream, Fault, Gateway, Reason, Retry};
use crate::grpc::api::{Api, context};
use crate::grpc::status;
use crate::proto::v1::{
    GetEventRequest, GetEventResponse, ListEventsRequest, ListEventsResponse, SubscribeRequest,
    SubscribeResponse,
};
use crate::telemetry::metrics::Subscriber;

/// The stream of `EventService.Subscribe`.
pub type SubscribeStream = Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>;

/// Advice on when to come back, to this gateway or another.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// `EventService.ListEvents`.
pub(in crate::grpc) async fn list_events(
    api: &Api,
    request: Request<Received<ListEventsRequest>>,
) -> Result<Response<ListEventsResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.list_events(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `EventService.GetEvent`.
pub(in crate::grpc) async fn get_event(
    api: &Api,
    request: Request<Received<GetEventRequest>>,
) -> Result<Response<GetEventResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.event(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `EventService.Subscribe`. What the stream holds ready for its caller is bounded, and it ends when the caller goes.
pub(in crate::grpc) async fn subscribe(
    api: &Api,
    request: Request<Received<SubscribeRequest>>,
) -> Result<Response<SubscribeStream>, Status> {
    let context = context(&request)?;
    // Before it is judged, so that no change falls between.
    let changes = api.gateway.changes(&context.caller);
    let opened = api.gateway.subscribe(&context, &request.into_inner().message).await;
    let stream = opened.map_err(|fault| status::of(&fault))?;
    let (sender, receiver) = mpsc::channel(STREAM_AHEAD_ITEMS_MAX);
    let carrier = Carrier {
        stream,
        changes,
        gateway: Arc::clone(&api.gateway),
        drain: api.drain.clone(),
        deadline: context.deadline,
        _counted: api.gateway.metrics.subscriber(),
    };
    tokio::spawn(carrier.carry(sender).in_current_span());
    Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
}

type Sender = mpsc::Sender<Result<SubscribeResponse, Status>>;

/// A stream that is open.
struct Carrier {
    stream: EventStream,
    /// Tells when it has to be judged anew.
    changes: Changes,
    gateway: Arc<Gateway>,
    drain: Drain,
    deadline: Option<Instant>,
    /// Counts the stream for as long as it is open.
    _counted: Subscriber,
}

impl Carrier {
    async fn carry(mut self, sender: Sender) {
        let end = self.until_end(&sender).await;
        let reason = end.as_ref().map_or("", Fault::reason_name);
        tracing::info!(position = self.stream.cursor().position, reason, "event stream ended");
        if let Some(fault) = end {
            let fault = fault.with("cursor", self.stream.cursor().encode());
            // An error means that the caller has gone.
            drop(sender.send(Err(status::of(&fault))).await);
        }
    }

    /// Sends until something ends the stream; nothing is said where it was the caller.
    async fn until_end(&mut self, sender: &Sender) -> Option<Fault> {
        let (drain, deadline) = (self.drain.clone(), self.deadline);
        loop {
            // Room first: what is taken from the subscription moves its cursor, so it must be sent.
            let next = async {
                let room = sender.reserve().await.ok()?;
                Some((room, self.gateway.next_of(&mut self.stream).await))
            };
            let next = tokio::select! {
                biased;
                () = sender.closed() => return None,
                () = drain.begun() => return Some(shutting_down()),
                () = passed(deadline) => return Some(deadline_passed()),
                () = self.changes.next() => None,
                next = next => Some(next),
            };
            let Some(next) = next else {
                match self.gateway.stream_again(&mut self.stream) {
                    Ok(()) => continue,
                    Err(fault) => return Some(fault),
                }
            };
            match next? {
                (room, Ok(response)) => room.send(Ok(response)),
                (_, Err(fault)) => return Some(fault),
            }
        }
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
