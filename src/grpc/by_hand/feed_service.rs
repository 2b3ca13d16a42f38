//! Tells callers about the event log as a whole.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::contract::Received;
use crate::grpc::api::{Api, context};
use crate::grpc::status;
use crate::proto::v1::{BackfillRequest, BackfillResponse, GetFeedRequest, GetFeedResponse};

/// `FeedService.Backfill`.
pub(in crate::grpc) async fn backfill(
    api: &Api,
    request: Request<Received<BackfillRequest>>,
) -> Result<Response<BackfillResponse>, Status> {
    let context = context(&request)?;
    let answer = Arc::clone(&api.gateway).backfill(context, request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `FeedService.GetFeed`.
pub(in crate::grpc) async fn get_feed(
    api: &Api,
    request: Request<Received<GetFeedRequest>>,
) -> Result<Response<GetFeedResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.feed_status(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}
