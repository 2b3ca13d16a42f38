//! Puts what operators do on the wire.

use tonic::{Request, Response, Status};

use crate::contract::Received;
use crate::grpc::api::{Api, context};
use crate::grpc::status;
use crate::proto::v1::{
    FreezeWritesRequest, FreezeWritesResponse, InspectOperationRequest, InspectOperationResponse,
    ListFreezesRequest, ListFreezesResponse, ListOperationsRequest, ListOperationsResponse,
    ResolveOperationRequest, ResolveOperationResponse, SettleOperationRequest, SettleOperationResponse,
    UnfreezeWritesRequest, UnfreezeWritesResponse,
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

/// `AdminService.FreezeWrites`.
pub(in crate::grpc) async fn freeze_writes(
    api: &Api,
    request: Request<Received<FreezeWritesRequest>>,
) -> Result<Response<FreezeWritesResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.freeze_writes(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `AdminService.UnfreezeWrites`.
pub(in crate::grpc) async fn unfreeze_writes(
    api: &Api,
    request: Request<Received<UnfreezeWritesRequest>>,
) -> Result<Response<UnfreezeWritesResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.unfreeze_writes(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `AdminService.ListFreezes`.
pub(in crate::grpc) async fn list_freezes(
    api: &Api,
    request: Request<Received<ListFreezesRequest>>,
) -> Result<Response<ListFreezesResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.list_freezes(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}
