//! Takes an upload off the wire: header, then chunks, each limit checked as early as it can be.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Request, Response, Status, Streaming};

use crate::contract::Received;
use crate::domain::limits::{UPLOAD_HEADER_MS_MAX, UPLOAD_MS_MAX, UPLOADS_AT_ONCE_MAX};
use crate::gateway::{Code, Context, Fault, Reason, Retry, Upload};
use crate::grpc::api::{Api, context};
use crate::grpc::status;
use crate::proto::v1::upload_file_request::Part;
use crate::proto::v1::{UploadFileHeader, UploadFileRequest, UploadFileResponse};

/// Advice on when to come back when too many uploads are under way.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// `FileService.UploadFile`.
pub(in crate::grpc) async fn upload_file(
    api: &Api,
    request: Request<Streaming<Received<UploadFileRequest>>>,
) -> Result<Response<UploadFileResponse>, Status> {
    let context = context(&request)?;
    let refused = |fault| status::of(&api.gateway.refuse_upload(&context, None, fault));
    let latest = Instant::now() + Duration::from_millis(UPLOAD_MS_MAX);
    let deadline = context.deadline.map_or(latest, |deadline| deadline.min(latest));
    let gathered = timeout_at(deadline, gather(api, &context, request.into_inner())).await;
    let upload = gathered.unwrap_or_else(|_| Err(too_slow().into()));
    let (upload, _place) = upload.map_err(|unfit| match unfit {
        Unfit::Refused(fault) => refused(*fault),
        Unfit::Denied(fault) => status::of(&fault),
        Unfit::Broken(status) => {
            // The answer is the transport's; the record says that there was a call.
            api.gateway.refuse_upload(&context, None, broken_off());
            status
        }
    })?;
    let answer = Arc::clone(&api.gateway).upload(context, upload).await;
    answer.map(Response::new).map_err(|fault| status::of(&fault))
}

/// Why there is no whole upload.
enum Unfit {
    /// The gateway refuses it.
    Refused(Box<Fault>),
    /// Its header is faulty or no policy permits it, which is on record already.
    Denied(Box<Fault>),
    /// It broke off, or the transport refuses it.
    Broken(Status),
}

impl From<Fault> for Unfit {
    fn from(fault: Fault) -> Self {
        Self::Refused(Box::new(fault))
    }
}

impl From<Status> for Unfit {
    fn from(status: Status) -> Self {
        Self::Broken(status)
    }
}

/// All of an upload, header and bytes, and its place among those at once; place and bytes only for a caller that may
/// send them.
async fn gather<'a>(
    api: &'a Api,
    context: &Context,
    mut stream: Streaming<Received<UploadFileRequest>>,
) -> Result<(Upload, SemaphorePermit<'a>), Unfit> {
    let patience = Duration::from_millis(UPLOAD_HEADER_MS_MAX);
    let header = timeout(patience, header(&mut stream)).await.map_err(|_| without_header())??;
    api.gateway.judge_upload(context, &header).map_err(|fault| Unfit::Denied(Box::new(fault)))?;
    let place = api.uploads.try_acquire().map_err(|_| full())?;
    let mut upload = Upload::begin(header)?;
    while let Some(part) = stream.message().await? {
        upload.add(&chunk(part)?)?;
    }
    Ok((upload, place))
}

fn full() -> Fault {
    let message = format!("{UPLOADS_AT_ONCE_MAX} uploads are under way, the most at once");
    Fault::new(Code::ResourceExhausted, Reason::Overloaded, message)
        .with("limit", "UPLOADS_AT_ONCE_MAX")
        .retry(Retry::After(RETRY_SOON))
}

fn broken_off() -> Fault {
    Fault::new(Code::InvalidArgument, Reason::InvalidRequest, "the upload broke off; nothing was sent")
}

fn too_slow() -> Fault {
    let message = format!(
        "the file did not come in time, which is the deadline or {UPLOAD_MS_MAX} ms; nothing was sent"
    );
    Fault::new(Code::DeadlineExceeded, Reason::DeadlineExceeded, message)
}

fn without_header() -> Fault {
    let message =
        format!("the header of the upload did not come within {UPLOAD_HEADER_MS_MAX} ms; nothing was sent");
    Fault::new(Code::DeadlineExceeded, Reason::DeadlineExceeded, message)
}

async fn header(
    stream: &mut Streaming<Received<UploadFileRequest>>,
) -> Result<Received<UploadFileHeader>, Unfit> {
    let first = stream.message().await?;
    match first.map(|first| (first.message.part, first.unknown)) {
        Some((Some(Part::Header(message)), unknown)) => Ok(Received { message, unknown }),
        _ => Err(out_of_place("header", "must be the first message of an upload").into()),
    }
}

fn chunk(part: Received<UploadFileRequest>) -> Result<Bytes, Fault> {
    if let Some(unknown) = part.unknown.first() {
        return Err(out_of_place(unknown, "is a field that this gateway does not know; nothing was sent"));
    }
    match part.message.part {
        Some(Part::Chunk(bytes)) => Ok(bytes),
        Some(Part::Header(_)) => Err(out_of_place("header", "may come only once, as the first message")),
        None => Err(out_of_place("chunk", "is missing: every message after the header carries bytes")),
    }
}

fn out_of_place(field: &str, description: &str) -> Fault {
    Fault::invalid_field(field, description)
}
