//! stub
use crate::contract::Received;
use crate::grpc::api::Api;
use crate::proto::v1::*;
use std::pin::Pin;
use tonic::{Request, Response, Status};
/// The stream of events.
pub type SubscribeStream =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<SubscribeResponse, Status>> + Send>>;
pub(in crate::grpc) async fn subscribe(
    _a: &Api,
    _r: Request<Received<SubscribeRequest>>,
) -> Result<Response<SubscribeStream>, Status> {
    Err(Status::internal(""))
}
pub(in crate::grpc) async fn list_events(
    _a: &Api,
    _r: Request<Received<ListEventsRequest>>,
) -> Result<Response<ListEventsResponse>, Status> {
    Err(Status::internal(""))
}
pub(in crate::grpc) async fn get_event(
    _a: &Api,
    _r: Request<Received<GetEventRequest>>,
) -> Result<Response<GetEventResponse>, Status> {
    Err(Status::internal(""))
}
