//! Tells a caller what became of one of its changes.

use tonic::{Request, Response, Status};

use crate::contract::Received;
use crate::grpc::api::{Api, context};
use crate::grpc::status;
use crate::proto::v1::{GetOperationRequest, GetOperationResponse};

/// `OperationService.GetOperation`.
pub(in crate::grpc) async fn get_operation(
    api: &Api,
    request: Request<Received<GetOperationRequest>>,
) -> Result<Response<GetOperationResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.operation(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}
