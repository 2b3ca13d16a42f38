//! Takes an upload off the wire: header, then chunks, each limit checked as early as it can be.

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Response, Status, Streaming};

use crate::contract::Received;
use crate::gateway::{Fault, Upload};
use crate::grpc::api::{Api, context};
use crate::grpc::status;
use crate::proto::v1::upload_file_request::Part;
use crate::proto::v1::{UploadFileHeader, UploadFileRequest, UploadFileResponse};

/// `FileService.UploadFile`.
pub(in crate::grpc) async fn upload_file(
    api: &Api,
    request: Request<Streaming<Received<UploadFileRequest>>>,
) -> Result<Response<UploadFileResponse>, Status> {
    let context = context(&request)?;
    let mut stream = request.into_inner();
    let header = header(&mut stream).await?;
    let mut upload = Upload::begin(header).map_err(|fault| status::of(&fault))?;
    while let Some(part) = stream.message().await? {
        upload.add(&chunk(part)?).map_err(|fault| status::of(&fault))?;
    }
    let answer = Arc::clone(&api.gateway).upload(context, upload).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

async fn header(
    stream: &mut Streaming<Received<UploadFileRequest>>,
) -> Result<Received<UploadFileHeader>, Status> {
    let first = stream.message().await?;
    match first.map(|first| (first.message.part, first.unknown)) {
        Some((Some(Part::Header(message)), unknown)) => Ok(Received { message, unknown }),
        _ => Err(out_of_place("header", "must be the first message of an upload")),
    }
}

fn chunk(part: Received<UploadFileRequest>) -> Result<Bytes, Status> {
    if let Some(unknown) = part.unknown.first() {
        return Err(out_of_place(unknown, "is a field that this gateway does not know; nothing was sent"));
    }
    match part.message.part {
        Some(Part::Chunk(bytes)) => Ok(bytes),
        Some(Part::Header(_)) => Err(out_of_place("header", "may come only once, as the first message")),
        None => Err(out_of_place("chunk", "is missing: every message after the header carries bytes")),
    }
}

fn out_of_place(field: &str, description: &str) -> Status {
    status::of(&Fault::invalid_field(field, description))
}
