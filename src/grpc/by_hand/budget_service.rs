//! Tells callers how far their budgets are used.

use tonic::{Request, Response, Status};

use crate::contract::Received;
use crate::grpc::api::{Api, context};
use crate::grpc::status;
use crate::proto::v1::{ListBudgetsRequest, ListBudgetsResponse};

/// `BudgetService.ListBudgets`.
pub(in crate::grpc) async fn list_budgets(
    api: &Api,
    request: Request<Received<ListBudgetsRequest>>,
) -> Result<Response<ListBudgetsResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.list_budgets(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}
