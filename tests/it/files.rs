//! Uploads through the whole gateway, and the limits that end them early.

use tollgate::proto::v1::file_service_client::FileServiceClient;
use tollgate::proto::v1::upload_file_request::Part;
use tollgate::proto::v1::{
    File, FilePurpose, GetFileRequest, UploadFileHeader, UploadFileRequest, UploadFileResponse,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::rig::{Rig, operation, until};

const PDF: &[u8] = b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF";

fn length() -> i64 {
    PDF.len().try_into().unwrap()
}

fn header(name: &str) -> Part {
    Part::Header(UploadFileHeader {
        operation: operation("upload", name),
        purpose: FilePurpose::DisputeEvidence.into(),
        filename: name.to_owned(),
        ..Default::default()
    })
}

async fn upload(rig: &Rig, parts: Vec<Part>) -> Result<UploadFileResponse, Status> {
    let stream = tokio_stream::iter(parts.into_iter().map(|part| UploadFileRequest { part: Some(part) }));
    Ok(FileServiceClient::new(rig.wire()).upload_file(stream).await?.into_inner())
}

fn chunks(bytes: &[u8], size: usize) -> impl Iterator<Item = Part> {
    bytes.chunks(size).map(|chunk| Part::Chunk(chunk.to_vec().into()))
}

#[tokio::test]
async fn an_upload_in_chunks_arrives_whole_and_once() {
    let rig = Rig::start().await;
    let parts = || std::iter::once(header("receipt.pdf")).chain(chunks(PDF, 7)).collect::<Vec<_>>();
    let first = upload(&rig, parts()).await.unwrap();
    let File { id, size, purpose, filename, .. } = first.file.unwrap();
    assert_eq!((size, purpose), (length(), FilePurpose::DisputeEvidence.into()));
    assert_eq!(filename.as_deref(), Some("receipt.pdf"));
    let again = upload(&rig, parts()).await.unwrap();
    assert!(again.call.unwrap().replayed);
    assert_eq!(again.file.unwrap().id, id);
    let read = GetFileRequest { id: id.clone(), ..Default::default() };
    let found = FileServiceClient::new(rig.wire()).get_file(read).await.unwrap().into_inner();
    assert_eq!(found.file.unwrap().id, id);
}

#[tokio::test]
async fn an_upload_whose_answer_was_lost_is_resent_with_its_bytes() {
    let rig = Rig::start().await;
    rig.control().add_fault(tollgate::sandbox::Fault::parse("drop_after:POST:/v1/files:times=5").unwrap());
    let parts = || vec![header("receipt.pdf"), Part::Chunk(PDF.into())];
    let status = upload(&rig, parts()).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "OUTCOME_UNKNOWN");
    rig.control().clear_faults();
    assert_eq!(upload(&rig, parts()).await.unwrap().file.unwrap().size, length());
}

#[tokio::test]
async fn other_bytes_under_the_same_reference_are_refused() {
    let rig = Rig::start().await;
    upload(&rig, vec![header("receipt.pdf"), Part::Chunk(PDF.into())]).await.unwrap();
    let mut other = PDF.to_vec();
    other.push(b'!');
    let status = upload(&rig, vec![header("receipt.pdf"), Part::Chunk(other.into())]).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(status.get_details_error_info().unwrap().metadata["fields"], "file");
}

#[tokio::test]
async fn what_cannot_be_uploaded_is_refused_and_nothing_is_sent() {
    let rig = Rig::start().await;
    let received = rig.control().book()["received"].clone();
    let large = vec![b'x'; 5 * 1024 * 1024];
    let declared = UploadFileHeader {
        operation: operation("upload", "declared"),
        purpose: FilePurpose::DisputeEvidence.into(),
        filename: "big.pdf".into(),
        size: Some(6 * 1024 * 1024),
        ..Default::default()
    };
    let cases: [(&str, Vec<Part>, &str); 7] = [
        ("a chunk before the header", vec![Part::Chunk(PDF.into())], "INVALID_REQUEST"),
        ("a second header", vec![header("a"), header("a")], "INVALID_REQUEST"),
        ("no bytes", vec![header("a")], "INVALID_REQUEST"),
        (
            "plain text",
            vec![header("a.pdf"), Part::Chunk(b"hello, world".to_vec().into())],
            "FILE_TYPE_UNSUPPORTED",
        ),
        (
            "too many bytes",
            std::iter::once(header("a")).chain(chunks(PDF, 99)).chain(chunks(&large, 128 * 1024)).collect(),
            "FILE_TOO_LARGE",
        ),
        ("too large by its own word", vec![Part::Header(declared)], "FILE_TOO_LARGE"),
        (
            "no order",
            vec![Part::Header(UploadFileHeader::default()), Part::Chunk(PDF.into())],
            "INVALID_REQUEST",
        ),
    ];
    for (what, parts, reason) in cases {
        let status = upload(&rig, parts).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
        assert_eq!(status.get_details_error_info().unwrap().reason, reason, "{what}");
    }
    assert_eq!(rig.control().book()["received"], received);
}

#[tokio::test]
async fn uploads_beyond_those_at_once_are_put_off_and_room_comes_back() {
    let rig = Rig::start().await;
    let mut open = Vec::new();
    for number in 0..32 {
        let (parts, stream) = tokio::sync::mpsc::channel(1);
        parts.send(UploadFileRequest { part: Some(header(&format!("{number}.pdf"))) }).await.unwrap();
        let mut files = FileServiceClient::new(rig.wire());
        let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
        open.push((parts, tokio::spawn(async move { files.upload_file(stream).await })));
    }
    let parts = || vec![header("late.pdf"), Part::Chunk(PDF.into())];
    let status = until(async || {
        upload(&rig, vec![header("probe"), Part::Chunk(b"%PD".as_slice().into())])
            .await
            .err()
            .filter(|status| status.code() == Code::ResourceExhausted)
    })
    .await;
    assert_eq!(status.get_details_error_info().unwrap().metadata["limit"], "UPLOADS_AT_ONCE_MAX");
    for (parts, call) in open {
        drop(parts);
        call.await.unwrap().unwrap_err();
    }
    assert_eq!(upload(&rig, parts()).await.unwrap().file.unwrap().size, length());
}

#[tokio::test]
async fn whoever_does_not_say_what_he_uploads_takes_no_place_and_is_told_so() {
    let rig = Rig::start().await;
    let mut silent = Vec::new();
    for _ in 0..32 {
        let mut files = FileServiceClient::new(rig.wire());
        let nothing = tokio_stream::pending::<UploadFileRequest>();
        silent.push(tokio::spawn(async move { files.upload_file(nothing).await }));
    }
    let whole = vec![header("receipt.pdf"), Part::Chunk(PDF.into())];
    assert_eq!(upload(&rig, whole).await.unwrap().file.unwrap().size, length());
    for call in silent {
        assert_eq!(call.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    }
}

#[tokio::test]
async fn a_faulty_header_ends_an_upload_at_once() {
    let rig = Rig::start().await;
    let faulty = UploadFileRequest { part: Some(Part::Header(UploadFileHeader::default())) };
    let endless = tokio_stream::StreamExt::chain(tokio_stream::once(faulty), tokio_stream::pending());
    let refused = FileServiceClient::new(rig.wire()).upload_file(endless).await.unwrap_err();
    assert_eq!(refused.get_details_error_info().unwrap().reason, "INVALID_REQUEST");
}
