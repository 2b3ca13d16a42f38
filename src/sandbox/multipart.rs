//! Multipart form bodies: their text fields and the one file they may carry. It must not judge either.
//! Source: RFC 7578.

use super::error::Error;

/// Most parts of one body.
const PARTS_MAX: usize = 100;

/// A file as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upload {
    pub(super) filename: String,
    pub(super) bytes: Vec<u8>,
}

/// What a body holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) fields: Vec<(String, String)>,
    pub(super) file: Option<Upload>,
}

/// The boundary a content type announces, if it is a multipart form.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    });
    boundary.filter(|boundary| !boundary.is_empty())
}

/// Takes a body apart.
pub(super) fn parse(boundary: &str, body: &[u8]) -> Result<Parts, Error> {
    let mark = format!("--{boundary}").into_bytes();
    let between = [b"\r\n", mark.as_slice()].concat();
    let start = find(body, &mark).ok_or_else(malformed)?;
    let mut rest = skip(body, start + mark.len())?;
    let mut parts = Parts::default();
    for _ in 0..PARTS_MAX {
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        let headers_end = find(rest, b"\r\n\r\n").ok_or_else(malformed)?;
        let headers = rest.get(..headers_end).unwrap_or_default();
        let content = skip(rest, headers_end + b"\r\n\r\n".len())?;
        let content_end = find(content, &between).ok_or_else(malformed)?;
        add(&mut parts, &String::from_utf8_lossy(headers), content.get(..content_end).unwrap_or_default())?;
        rest = skip(content, content_end + between.len())?;
    }
    Err(Error::invalid(format!("Multipart bodies have at most {PARTS_MAX} parts.")))
}

fn malformed() -> Error {
    Error::invalid("The multipart body is malformed.")
}

fn skip(bytes: &[u8], n: usize) -> Result<&[u8], Error> {
    bytes.get(n..).ok_or_else(malformed)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = wanted.first()?;
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| byte == first) {
        if bytes.get(from + at..)?.starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn add(parts: &mut Parts, headers: &str, content: &[u8]) -> Result<(), Error> {
    let disposition = headers
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"))
        .map_or("", |(_, value)| value);
    let name = attribute(disposition, "name").ok_or_else(malformed)?;
    match attribute(disposition, "filename") {
        Some(_) if parts.file.is_some() => Err(Error::invalid("Only one file can be uploaded at a time.")),
        Some(_) if name != "file" => Err(Error::invalid("Files go into the parameter `file`.").param(&name)),
        Some(filename) => {
            parts.file = Some(Upload { filename, bytes: content.to_vec() });
            Ok(())
        }
        None => {
            let value = std::str::from_utf8(content).map_err(|_| malformed())?;
            parts.fields.push((name, value.to_owned()));
            Ok(())
        }
    }
}

/// A quoted or bare attribute of a header value.
fn attribute(header: &str, wanted: &str) -> Option<String> {
    let mut rest = header;
    while let Some((before, after)) = rest.split_once('=') {
        let name = before.rsplit([';', ' ']).next().unwrap_or_default();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(';').unwrap_or((after, "")),
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value.trim().to_owned());
        }
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Parts, Upload, boundary, parse};

    fn encode(parts: &Parts) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, value) in &parts.fields {
            body.extend(
                format!("--BOUND\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
                    .bytes(),
            );
        }
        if let Some(file) = &parts.file {
            let name = &file.filename;
            let head = format!(
                "--BOUND\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            );
            body.extend(head.bytes());
            body.extend(&file.bytes);
            body.extend(b"\r\n");
        }
        body.extend(b"--BOUND--\r\n");
        body
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(
            fields in prop::collection::vec(("[a-z\\[\\]]{1,9}", "[^\u{0}]{0,20}"), 0..4),
            file in prop::option::of(("[a-zA-Z0-9._ ]{1,12}", prop::collection::vec(any::<u8>(), 0..200))),
        ) {
            let file = file.map(|(name, bytes)| Upload { filename: name.trim().to_owned(), bytes });
            let parts = Parts { fields, file };
            prop_assert_eq!(parse("BOUND", &encode(&parts)).unwrap(), parts);
        }

        #[test]
        fn anything_is_parsed_or_refused(body in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(parse("BOUND", &body));
            drop(parse("", &body));
        }
    }

    #[test]
    fn the_boundary_is_read_quoted_or_bare() {
        assert_eq!(boundary("multipart/form-data; boundary=abc"), Some("abc"));
        assert_eq!(boundary("Multipart/Form-Data; charset=utf-8; boundary=\"a b\""), Some("a b"));
        assert_eq!(boundary("multipart/form-data; boundary="), None);
        assert_eq!(boundary("application/x-www-form-urlencoded"), None);
    }

    #[test]
    fn truncated_bodies_and_second_files_are_refused() {
        let file = Some(Upload { filename: "a".to_owned(), bytes: vec![1] });
        let body = encode(&Parts { fields: vec![("purpose".to_owned(), "x".to_owned())], file });
        for end in [0, 5, 20, body.len() - 12] {
            assert_eq!(parse("BOUND", &body[..end]).unwrap_err().status, 400, "{end}");
        }
        let one = &body[..body.len() - "--BOUND--\r\n".len()];
        assert_eq!(parse("BOUND", &[one, body.as_slice()].concat()).unwrap_err().status, 400);
    }
}
