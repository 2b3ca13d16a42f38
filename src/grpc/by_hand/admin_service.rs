//! Puts what operators do on the wire.

use tonic::{Request, Response, Status};

use crate::contract::Received;
use crate::grpc::api::{Api, context};
use crate::grpc::status;
use crate::proto::v1::{
    InspectOperationRequest, InspectOperationResponse, ListOperationsRequest, ListOperationsResponse,
    ResolveOperationRequest, ResolveOperationResponse, SettleOperationRequest, SettleOperationResponse,
};

/// `AdminService.ListOperations`.
pub(in crate::grpc) async fn list_operations(
    api: &Api,
    request: Request<Received<ListOperationsRequest>>,
) -> Result<Response<ListOperationsResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.list_operations(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `AdminService.InspectOperation`.
pub(in crate::grpc) async fn inspect_operation(
    api: &Api,
    request: Request<Received<InspectOperationRequest>>,
) -> Result<Response<InspectOperationResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.inspect_operation(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `AdminService.ResolveOperation`.
pub(in crate::grpc) async fn resolve_operation(
    api: &Api,
    request: Request<Received<ResolveOperationRequest>>,
) -> Result<Response<ResolveOperationResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.resolve_operation(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `AdminService.SettleOperation`.
pub(in crate::grpc) async fn settle_operation(
    api: &Api,
    request: Request<Received<SettleOperationRequest>>,
) -> Result<Response<SettleOperationResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.settle_operation(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}
