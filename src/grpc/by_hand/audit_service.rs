//! Puts the audit log on the wire; an export goes at its caller's speed.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use crate::contract::{Received, Sent};
use crate::domain::limits::STREAM_AHEAD_ITEMS_MAX;
use crate::grpc::api::{Api, context};
use crate::grpc::status;
use crate::proto::v1::{
    EraseAuditKeyRequest, EraseAuditKeyResponse, ExportAuditRecordsRequest, ExportAuditRecordsResponse,
    GetAuditRecordRequest, GetAuditRecordResponse, ListCheckpointsRequest, ListCheckpointsResponse,
    SearchAuditRecordsRequest, SearchAuditRecordsResponse, TraceRequest, TraceResponse,
};

/// The stream of `AuditService.ExportAuditRecords`.
pub type ExportAuditRecordsStream =
    Pin<Box<dyn Stream<Item = Result<Sent<ExportAuditRecordsResponse>, Status>> + Send>>;

/// `AuditService.SearchAuditRecords`.
pub(in crate::grpc) async fn search_audit_records(
    api: &Api,
    request: Request<Received<SearchAuditRecordsRequest>>,
) -> Result<Response<SearchAuditRecordsResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.search_audit(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `AuditService.GetAuditRecord`.
pub(in crate::grpc) async fn get_audit_record(
    api: &Api,
    request: Request<Received<GetAuditRecordRequest>>,
) -> Result<Response<GetAuditRecordResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.audit_record(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `AuditService.Trace`.
pub(in crate::grpc) async fn trace(
    api: &Api,
    request: Request<Received<TraceRequest>>,
) -> Result<Response<TraceResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.trace(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `AuditService.ListCheckpoints`.
pub(in crate::grpc) async fn list_checkpoints(
    api: &Api,
    request: Request<Received<ListCheckpointsRequest>>,
) -> Result<Response<ListCheckpointsResponse>, Status> {
    let context = context(&request)?;
    let answer = api.gateway.checkpoints(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `AuditService.EraseAuditKey`.
pub(in crate::grpc) async fn erase_audit_key(
    api: &Api,
    request: Request<Received<EraseAuditKeyRequest>>,
) -> Result<Response<EraseAuditKeyResponse>, Status> {
    let context = context(&request)?;
    let gateway = Arc::clone(&api.gateway);
    let answer = gateway.erase_audit_key(&context, &request.into_inner().message).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// `AuditService.ExportAuditRecords`.
pub(in crate::grpc) async fn export_audit_records(
    api: &Api,
    request: Request<Received<ExportAuditRecordsRequest>>,
) -> Result<Response<ExportAuditRecordsStream>, Status> {
    let context = context(&request)?;
    let gateway = Arc::clone(&api.gateway);
    let begun = gateway.export(&context, &request.into_inner().message).await;
    let mut export = begun.map_err(|fault| status::of(&fault))?;
    let (sender, receiver) = mpsc::channel(STREAM_AHEAD_ITEMS_MAX);
    let drain = api.drain.clone();
    let carry = async move {
        // No room means a slow reader, no receiver one that has gone.
        while let Ok(room) = sender.reserve().await {
            let next = tokio::select! {
                () = drain.begun() => Err(crate::grpc::carried::shutting_down()),
                next = gateway.next_of_export(&mut export) => next,
            };
            match next {
                Ok(Some(records)) => room.send(Ok(records.into())),
                Ok(None) => return,
                Err(fault) => return room.send(Err(status::of(&fault))),
            }
        }
    };
    tokio::spawn(carry.in_current_span());
    Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
}
