//! Uploads: the file is gathered and judged before anything is sent, and goes out as one multipart body.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use super::call::Gateway;
use super::context::Context;
use super::fault::{Fault, Reason};
use super::judge::facts;
use super::operation::operation_of;
use super::prepare::{Prepared, prepare};
use crate::audit::Phase;
use crate::contract::{Method as _, Received, Sensitivity, UploadFile};
use crate::domain::limits::{DISPUTE_EVIDENCE_BYTES_MAX, UPLOAD_BYTES_MAX};
use crate::domain::operation::hex;
use crate::proto::v1::{FilePurpose, UploadFileHeader, UploadFileResponse};
use crate::stripe::{Body, Outgoing};

/// How the kinds that Stripe takes as dispute evidence begin (docs.stripe.com/file-upload).
const EVIDENCE_SIGNATURES: [&[u8]; 3] = [b"%PDF-", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"];
/// Enough bytes to know the kind of a file.
const SIGNATURE_BYTES: usize = 8;

/// An upload while its bytes come in.
#[derive(Debug)]
pub struct Upload {
    header: Received<UploadFileHeader>,
    bytes: BytesMut,
}

impl Upload {
    /// Begins an upload with what its header says.
    ///
    /// # Errors
    /// When the declared size is over the limit.
    pub fn begin(header: Received<UploadFileHeader>) -> Result<Self, Fault> {
        let upload = Self { header, bytes: BytesMut::new() };
        let declared = upload.header.message.size.and_then(|size| usize::try_from(size).ok());
        if declared.is_some_and(|size| size > upload.bytes_max()) {
            return Err(upload.too_large());
        }
        Ok(upload)
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// As soon as the file is too large, or of a kind that its purpose does not take.
    pub fn add(&mut self, chunk: &[u8]) -> Result<(), Fault> {
        if self.bytes.len().saturating_add(chunk.len()) > self.bytes_max() {
            return Err(self.too_large());
        }
        let known = self.bytes.len() >= SIGNATURE_BYTES;
        self.bytes.extend_from_slice(chunk);
        if !known && self.bytes.len() >= SIGNATURE_BYTES { self.check_kind() } else { Ok(()) }
    }

    fn is_evidence(&self) -> bool {
        self.header.message.purpose() == FilePurpose::DisputeEvidence
    }

    fn bytes_max(&self) -> usize {
        if self.is_evidence() { DISPUTE_EVIDENCE_BYTES_MAX } else { UPLOAD_BYTES_MAX }
    }

    fn too_large(&self) -> Fault {
        let max = self.bytes_max();
        let mut fault = Fault::invalid_field(
            "chunk",
            format!("the file is larger than {max} bytes, the most for this purpose"),
        )
        .with("bytes_max", max.to_string());
        fault.reason = Reason::FileTooLarge;
        fault
    }

    fn check_kind(&self) -> Result<(), Fault> {
        let known = EVIDENCE_SIGNATURES.iter().any(|signature| self.bytes.starts_with(signature));
        if known || !self.is_evidence() {
            return Ok(());
        }
        let problem = "dispute evidence must be a PDF, JPEG or PNG; the content is none of them";
        let mut fault = Fault::invalid_field("chunk", problem);
        fault.reason = Reason::FileTypeUnsupported;
        Err(fault)
    }

    /// What is left to check once all bytes are there.
    fn finish(self) -> Result<(Received<UploadFileHeader>, Bytes), Fault> {
        if self.bytes.is_empty() {
            return Err(Fault::invalid_field("chunk", "the file is empty"));
        }
        self.check_kind()?;
        let length = i64::try_from(self.bytes.len()).unwrap_or(i64::MAX);
        if let Some(size) = self.header.message.size.filter(|size| *size != length) {
            return Err(Fault::invalid_field("size", format!("is {size}, but {length} bytes came")));
        }
        Ok((self.header, self.bytes.freeze()))
    }
}

impl Gateway {
    /// Puts on record that an upload ended before it was whole, and completes the fault for the caller. Its account is
    /// known once its header has come.
    pub fn refuse_upload(&self, context: &Context, alias: Option<&str>, fault: Fault) -> Fault {
        let record = self.plain_record(Phase::Refused, context, &UploadFile::SPEC.full_name(), alias);
        let line = self.line(context, None, &record);
        self.keep_refused(record, &fault);
        self.account_for::<()>(&line, Err(fault.clone())).err().unwrap_or(fault)
    }

    /// Judges an upload by its header, so that nobody sends a file for nothing. One that is permitted is judged again as
    /// a whole.
    ///
    /// # Errors
    /// When the header is faulty, and PERMISSION_DENIED / `POLICY_DENIED`; either is on record then.
    pub fn judge_upload(&self, context: &Context, header: &Received<UploadFileHeader>) -> Result<(), Fault> {
        let prepared = prepare::<UploadFile>(header, &self.accounts)
            .map_err(|fault| self.refuse_upload(context, Some(&header.message.account), fault))?;
        let mut record = self.record(Phase::Intent, context, UploadFile::SPEC, prepared.local.account);
        let Err(fault) = self.judge(context, &prepared.account, facts(&prepared), &mut record) else {
            return Ok(());
        };
        let reference = prepared.local.operation.cloned().unwrap_or_default();
        let operation = operation_of(context, &prepared.account, prepared.spec, &reference);
        let line = self.line(context, Some(&reference), &record);
        let path = (prepared.spec.path, prepared.path.as_str());
        self.keep_denied(record, &operation, path, prepared.params.pairs(), &fault);
        self.account_for::<()>(&line, Err(fault))
    }

    /// Uploads one file.
    ///
    /// # Errors
    /// As for every change; see [`Fault`].
    pub async fn upload(
        self: Arc<Self>,
        context: Context,
        upload: Upload,
    ) -> Result<UploadFileResponse, Fault> {
        let alias = upload.header.message.account.clone();
        let whole = upload.finish();
        let (header, bytes) = whole.map_err(|fault| self.refuse_upload(&context, Some(&alias), fault))?;
        let digest = hex(&Sha256::digest(&bytes));
        self.change::<UploadFile>(context, header, move |prepared, account| {
            // The bytes are no parameter of the form, but they are part of what the change is.
            prepared.params.push("file", digest, Sensitivity::Public);
            multipart(prepared.outgoing(account), prepared, bytes)
        })
        .await
    }
}

/// The same request with its parameters and the file as `multipart/form-data` (RFC 7578). The boundary follows from the
/// content, so that the same upload has the same bytes whenever it is sent.
fn multipart(outgoing: Outgoing, prepared: &Prepared<'_>, bytes: Bytes) -> Outgoing {
    let mut digest = Sha256::new();
    for pair in prepared.params.pairs() {
        digest.update(pair.name.as_bytes());
        digest.update(pair.value.as_bytes());
    }
    let boundary = format!("tollgate-{}", hex(&digest.finalize()));
    let mut body = BytesMut::new();
    for pair in prepared.sent.pairs().iter().filter(|pair| pair.name != "filename") {
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"\r\n\r\n",
            quoted(&pair.name)
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(pair.value.as_bytes());
        body.extend_from_slice(b"\r\n");
    }
    let name =
        prepared.sent.pairs().iter().find(|pair| pair.name == "filename").map(|pair| pair.value.as_str());
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\nContent-Type: application/octet-stream\r\n\r\n",
        quoted(name.unwrap_or("file"))
    );
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(&bytes);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    Outgoing { body: Body::Multipart { boundary, bytes: body.freeze() }, ..outgoing }
}

/// A name inside quotation marks: no quote, no line break.
fn quoted(name: &str) -> String {
    name.replace(['\r', '\n'], "").replace('"', "%22")
}
