//! Puts named subscriptions on the wire; the gateway keeps them.

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::contract::{Received, Sent};
use crate::gateway::{Deliveries, Fault, Gateway};
use crate::grpc::api::{Api, context};
use crate::grpc::carried::{Source, carried};
use crate::grpc::status;
use crate::proto::v1::{
    AcknowledgeRequest, AcknowledgeResponse, ConsumeRequest, ConsumeResponse, CreateSubscriptionRequest,
    CreateSubscriptionResponse, DeleteSubscriptionRequest, DeleteSubscriptionResponse,
    GetSubscriptionRequest, GetSubscriptionResponse, ListParkedEventsRequest, ListParkedEventsResponse,
    ListSubscriptionsRequest, ListSubscriptionsResponse, PauseSubscriptionRequest, PauseSubscriptionResponse,
    RejectRequest, RejectResponse, ReplayEventsRequest, ReplayEventsResponse, ReplayParkedEventsRequest,
    ReplayParkedEventsResponse, ResumeSubscriptionRequest, ResumeSubscriptionResponse,
    SeekSubscriptionRequest, SeekSubscriptionResponse,
};

/// The stream of `SubscriptionService.Consume`.
pub type ConsumeStream = Pin<Box<dyn Stream<Item = Result<Sent<ConsumeResponse>, Status>> + Send>>;

/// `SubscriptionService.CreateSubscription`.
pub(in crate::grpc) async fn create_subscription(
    api: &Api,
    request: Request<Received<CreateSubscriptionRequest>>,
) -> Result<Response<CreateSubscriptionResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.create_subscription(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `SubscriptionService.GetSubscription`.
pub(in crate::grpc) async fn get_subscription(
    api: &Api,
    request: Request<Received<GetSubscriptionRequest>>,
) -> Result<Response<GetSubscriptionResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.subscription(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `SubscriptionService.ListSubscriptions`.
pub(in crate::grpc) async fn list_subscriptions(
    api: &Api,
    request: Request<Received<ListSubscriptionsRequest>>,
) -> Result<Response<ListSubscriptionsResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.list_subscriptions(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `SubscriptionService.PauseSubscription`.
pub(in crate::grpc) async fn pause_subscription(
    api: &Api,
    request: Request<Received<PauseSubscriptionRequest>>,
) -> Result<Response<PauseSubscriptionResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.pause_subscription(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `SubscriptionService.ResumeSubscription`.
pub(in crate::grpc) async fn resume_subscription(
    api: &Api,
    request: Request<Received<ResumeSubscriptionRequest>>,
) -> Result<Response<ResumeSubscriptionResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.resume_subscription(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `SubscriptionService.SeekSubscription`.
pub(in crate::grpc) async fn seek_subscription(
    api: &Api,
    request: Request<Received<SeekSubscriptionRequest>>,
) -> Result<Response<SeekSubscriptionResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.seek_subscription(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `SubscriptionService.DeleteSubscription`.
pub(in crate::grpc) async fn delete_subscription(
    api: &Api,
    request: Request<Received<DeleteSubscriptionRequest>>,
) -> Result<Response<DeleteSubscriptionResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.delete_subscription(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `SubscriptionService.Acknowledge`.
pub(in crate::grpc) async fn acknowledge(
    api: &Api,
    request: Request<Received<AcknowledgeRequest>>,
) -> Result<Response<AcknowledgeResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.acknowledge(context, request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `SubscriptionService.Reject`.
pub(in crate::grpc) async fn reject(
    api: &Api,
    request: Request<Received<RejectRequest>>,
) -> Result<Response<RejectResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.reject(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `SubscriptionService.ListParkedEvents`.
pub(in crate::grpc) async fn list_parked_events(
    api: &Api,
    request: Request<Received<ListParkedEventsRequest>>,
) -> Result<Response<ListParkedEventsResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.parked_events(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `SubscriptionService.ReplayParkedEvents`.
pub(in crate::grpc) async fn replay_parked_events(
    api: &Api,
    request: Request<Received<ReplayParkedEventsRequest>>,
) -> Result<Response<ReplayParkedEventsResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.replay_parked_events(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `SubscriptionService.ReplayEvents`.
pub(in crate::grpc) async fn replay_events(
    api: &Api,
    request: Request<Received<ReplayEventsRequest>>,
) -> Result<Response<ReplayEventsResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.replay_events(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `SubscriptionService.Consume`. The stream goes as far as its caller takes it, and ends when the caller goes.
pub(in crate::grpc) async fn consume(
    api: &Api,
    request: Request<Received<ConsumeRequest>>,
) -> Result<Response<ConsumeStream>, Status> {
    let context = context(&request)?;
    // Before it is judged, so that no change falls between.
    let changes = api.gateway.changes(&context.caller);
    let opened = api.gateway.consume(&context, &request.into_inner().message).await;
    let deliveries = opened.map_err(|fault| status::of(&fault))?;
    Ok(Response::new(Box::pin(carried(api, &context, deliveries, changes))))
}

impl Source for Deliveries {
    type Message = ConsumeResponse;

    fn ready(&mut self, _gateway: &Gateway) -> Option<Sent<ConsumeResponse>> {
        // What goes out has to be leased first, and put on record if it went out before.
        None
    }

    async fn next(&mut self, gateway: &Gateway) -> Result<Sent<ConsumeResponse>, Fault> {
        gateway.next_delivery(self).await
    }

    fn again(&mut self, gateway: &Gateway) -> Result<(), Fault> {
        gateway.deliveries_again(self)
    }

    fn end(&self, fault: Fault) -> Fault {
        fault.with("subscription", self.name())
    }

    fn log_end(&self, reason: &str) {
        tracing::info!(subscription = self.name(), reason, "stream of deliveries ended");
    }
}
