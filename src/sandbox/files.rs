//! Files: upload, reading, contents. It must not decide what a file is good for; who takes one checks its purpose.
//! Source: <https://docs.stripe.com/api/files>, <https://docs.stripe.com/file-upload>.

#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::error::Error;
use super::multipart::Upload;
use super::object::{self, Object, flag, int, merge, or_null, sub, text};
use super::page;
use super::routes::{Call, LIST, Route, get, list, post};
use super::state::State;

/// Kind of the object that holds a file's bytes, beside the file and under the same id.
const CONTENTS: &str = "file_contents";

/// Purposes a file can be uploaded for, with the largest size in bytes.
const PURPOSES: &[(&str, usize)] = &[
    ("account_requirement", 10_000_000),
    ("additional_verification", 10_000_000),
    ("business_icon", 524_288),
    ("business_logo", 524_288),
    ("customer_signature", 4_000_000),
    ("dispute_evidence", 5_000_000),
    ("identity_document", 10_000_000),
    ("issuing_regulatory_reporting", 10_000_000),
    ("pci_document", 524_288),
    ("platform_terms_of_service", 10_000_000),
    ("tax_document_user_upload", 10_000_000),
    ("terminal_android_apk", 16_000_000),
    ("terminal_reader_splashscreen", 5_000_000),
];

/// What a file begins with, its type's name and its media type.
const TYPES: &[(&[u8], &str, &str)] = &[
    (b"%PDF-", "pdf", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "png", "image/png"),
    (b"\xff\xd8\xff", "jpg", "image/jpeg"),
    (b"GIF8", "gif", "image/gif"),
    (b"PK\x03\x04", "zip", "application/zip"),
];

/// The types evidence may have.
const EVIDENCE_TYPES: &[&str] = &["pdf", "png", "jpg"];

/// Whose files are documents and pictures alone.
const RESTRICTED: &[&str] =
    &["business_icon", "business_logo", "customer_signature", "dispute_evidence", "identity_document"];

pub(super) const ROUTES: &[Route] = &[
    post(
        "/v1/files",
        "file",
        &["file! purpose! file_link_data{create:bool expires_at:int metadata:metadata}"],
        create,
    ),
    list("/v1/files", "file", &[LIST, "purpose"], all),
    get("/v1/files/{id}", "file", &[], show),
    get("/v1/files/{id}/contents", CONTENTS, &[], contents),
];

fn create(call: &mut Call<'_>) -> Result<Value, Error> {
    let Some(upload) = call.upload.take() else {
        let message = "A file must be uploaded as `multipart/form-data`, with its bytes in the part `file`.";
        return Err(Error::invalid(message).param("file"));
    };
    let purpose = text(&call.params, "purpose").to_owned();
    let (kind, media) = check(&purpose, &upload)?;
    let id = call.state.new_id("file");
    let name = upload.filename.rsplit(['/', '\\']).next().unwrap_or_default();
    let links = links(call.state, &id, sub(&call.params, "file_link_data"));
    let file = object::from(json!({
        "id": id, "object": "file", "created": call.state.now(), "expires_at": null, "filename": name,
        "links": links, "purpose": purpose, "size": upload.bytes.len(), "title": null, "type": kind,
        "url": format!("https://files.stripe.com/v1/files/{id}/contents"),
    }));
    call.state.insert(file.clone());
    call.state.insert(object::from(json!({
        "id": id, "object": CONTENTS, "base64": STANDARD.encode(&upload.bytes), "media": media,
    })));
    Ok(Value::Object(file))
}

/// The file's type and media type, if the purpose takes such a file.
fn check(purpose: &str, upload: &Upload) -> Result<(Option<&'static str>, &'static str), Error> {
    let Some((_, bytes_max)) = PURPOSES.iter().find(|(name, _)| *name == purpose) else {
        let names: Vec<_> = PURPOSES.iter().map(|(name, _)| *name).collect();
        let message = format!("Invalid purpose: must be one of {}", names.join(", "));
        return Err(Error::invalid(message).param("purpose"));
    };
    let size = upload.bytes.len();
    if size == 0 {
        return Err(Error::invalid("The file is empty.").param("file"));
    }
    if size > *bytes_max {
        let message = format!("The file has {size} bytes; files for {purpose} have at most {bytes_max}.");
        return Err(Error::invalid(message).param("file"));
    }
    let sniffed = TYPES.iter().find(|(start, ..)| upload.bytes.starts_with(start));
    let kind = sniffed.map(|(_, kind, _)| *kind);
    if RESTRICTED.contains(&purpose) && !kind.is_some_and(|kind| EVIDENCE_TYPES.contains(&kind)) {
        let message = format!("Files for {purpose} must be PDF, JPEG or PNG; the contents are not.");
        return Err(Error::invalid(message).param("file"));
    }
    Ok((kind, sniffed.map_or("application/octet-stream", |(.., media)| *media)))
}

/// The file's list of links, with the first one if it was asked for.
fn links(state: &mut State, file: &str, wanted: Option<&Object>) -> Value {
    let data: Vec<Value> = wanted
        .filter(|wanted| flag(wanted, "create"))
        .map(|wanted| {
            let id = state.new_id("link");
            let expires_at = Some(int(wanted, "expires_at")).filter(|at| *at > 0);
            let mut link = object::from(json!({
                "id": id, "object": "file_link", "created": state.now(), "expired": false, "expires_at": expires_at,
                "file": file, "livemode": false, "metadata": {},
                "url": format!("https://files.stripe.com/links/{}", state.random(48)),
            }));
            merge(&mut link, wanted, "metadata");
            Value::Object(link)
        })
        .into_iter()
        .collect();
    json!({"object": "list", "data": data, "has_more": false, "url": format!("/v1/file_links?file={file}")})
}

fn show(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("file", call.id(0)).cloned().map(Value::Object)
}

fn all(call: &mut Call<'_>) -> Result<Value, Error> {
    page::list(call, "file", |file, params| page::equal(file, params, &["purpose"]))
}

fn contents(call: &mut Call<'_>) -> Result<Value, Error> {
    call.state.find("file", call.id(0))?;
    call.state.find(CONTENTS, call.id(0)).cloned().map(Value::Object)
}

/// Media type and bytes, if the answer is a file's contents, which go out as they came in.
pub(super) fn download(answer: &Value) -> Option<(String, Vec<u8>)> {
    let contents = answer.as_object().filter(|object| text(object, "object") == CONTENTS)?;
    let bytes = STANDARD.decode(text(contents, "base64")).ok()?;
    Some((or_null(contents, "media").as_str()?.to_owned(), bytes))
}
