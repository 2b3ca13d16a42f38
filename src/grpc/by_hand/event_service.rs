//! Puts the event log on the wire; a stream goes at its caller's speed and says at its end how far it came.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use crate::contract::{Received, Sent};
use crate::gateway::{EventStream, Fault, Gateway};
use crate::grpc::api::{Api, context};
use crate::grpc::carried::{Source, carried};
use crate::grpc::status;
use crate::proto::v1::subscribe_response::Item;
use crate::proto::v1::watch_object_response::Item as Watched;
use crate::proto::v1::{
    GetEventRequest, GetEventResponse, ListEventsRequest, ListEventsResponse, SubscribeRequest,
    SubscribeResponse, WatchObjectRequest, WatchObjectResponse,
};

/// The stream of `EventService.Subscribe`.
pub type SubscribeStream = Pin<Box<dyn Stream<Item = Result<Sent<SubscribeResponse>, Status>> + Send>>;

/// The stream of `EventService.WatchObject`.
pub type WatchObjectStream = Pin<Box<dyn Stream<Item = Result<Sent<WatchObjectResponse>, Status>> + Send>>;

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

/// `EventService.Subscribe`. The stream goes as far as its caller takes it, and ends when the caller goes.
pub(in crate::grpc) async fn subscribe(
    api: &Api,
    request: Request<Received<SubscribeRequest>>,
) -> Result<Response<SubscribeStream>, Status> {
    let context = context(&request)?;
    // Before it is judged, so that no change falls between.
    let changes = api.gateway.changes(&context.caller);
    let opened = api.gateway.subscribe(&context, &request.into_inner().message).await;
    let stream = opened.map_err(|fault| status::of(&fault))?;
    Ok(Response::new(Box::pin(carried(api, &context, stream, changes))))
}

/// `EventService.WatchObject`: the snapshot, and then as `Subscribe`.
pub(in crate::grpc) async fn watch_object(
    api: &Api,
    request: Request<Received<WatchObjectRequest>>,
) -> Result<Response<WatchObjectStream>, Status> {
    let context = context(&request)?;
    let changes = api.gateway.changes(&context.caller);
    let opened = api.gateway.watch_object(&context, &request.into_inner().message).await;
    let (snapshot, stream) = opened.map_err(|fault| status::of(&fault))?;
    let first = WatchObjectResponse { item: Some(Watched::Snapshot(snapshot)) };
    let events = carried(api, &context, stream, changes).map(|sent| sent.map(watched));
    Ok(Response::new(Box::pin(tokio_stream::once(Ok(first.into())).chain(events))))
}

/// The same message of the other stream, whose fields have the same numbers.
fn watched(sent: Sent<SubscribeResponse>) -> Sent<WatchObjectResponse> {
    let item = sent.message.item.map(|item| match item {
        Item::Event(event) => Watched::Event(event),
        Item::Checkpoint(checkpoint) => Watched::Checkpoint(checkpoint),
        Item::CaughtUp(caught_up) => Watched::CaughtUp(caught_up),
    });
    Sent { message: WatchObjectResponse { item }, shared: sent.shared }
}

impl Source for EventStream {
    type Message = SubscribeResponse;

    fn ready(&mut self, gateway: &Gateway) -> Option<Sent<SubscribeResponse>> {
        gateway.ready_of(self)
    }

    async fn next(&mut self, gateway: &Gateway) -> Result<Sent<SubscribeResponse>, Fault> {
        gateway.next_of(self).await
    }

    fn again(&mut self, gateway: &Gateway) -> Result<(), Fault> {
        gateway.stream_again(self)
    }

    fn end(&self, fault: Fault) -> Fault {
        fault.with("cursor", self.cursor().encode())
    }

    fn log_end(&self, reason: &str) {
        tracing::info!(position = self.cursor().position, reason, "event stream ended");
    }
}
