//! Puts API tokens on the wire; the gateway makes and ends them.

use tonic::{Request, Response, Status};

use crate::contract::Received;
use crate::grpc::api::{Api, context};
use crate::grpc::status;
use crate::proto::v1::{
    CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse, RevokeTokenRequest,
    RevokeTokenResponse, RotateTokenRequest, RotateTokenResponse,
};

/// `TokenService.CreateToken`.
pub(in crate::grpc) async fn create_token(
    api: &Api,
    request: Request<Received<CreateTokenRequest>>,
) -> Result<Response<CreateTokenResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.create_token(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `TokenService.ListTokens`.
pub(in crate::grpc) async fn list_tokens(
    api: &Api,
    request: Request<Received<ListTokensRequest>>,
) -> Result<Response<ListTokensResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.list_tokens(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `TokenService.RotateToken`.
pub(in crate::grpc) async fn rotate_token(
    api: &Api,
    request: Request<Received<RotateTokenRequest>>,
) -> Result<Response<RotateTokenResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.rotate_token(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `TokenService.RevokeToken`.
pub(in crate::grpc) async fn revoke_token(
    api: &Api,
    request: Request<Received<RevokeTokenRequest>>,
) -> Result<Response<RevokeTokenResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.revoke_token(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}
