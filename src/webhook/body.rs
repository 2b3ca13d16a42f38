//! Reads a request body within its limits, whatever its headers claim about it.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;

use super::refusal::Refusal;
use crate::domain::limits::{WEBHOOK_BODY_BYTES_MAX, WEBHOOK_BODY_MS_MAX};

/// The whole body, of at most [`WEBHOOK_BODY_BYTES_MAX`] bytes that take at most [`WEBHOOK_BODY_MS_MAX`] to come.
pub(super) async fn read(body: Body) -> Result<Bytes, Refusal> {
    read_within(body, Duration::from_millis(WEBHOOK_BODY_MS_MAX)).await
}

async fn read_within(body: Body, patience: Duration) -> Result<Bytes, Refusal> {
    // An announced length over the limit is refused before a byte is read; one that lies is met by the count below.
    let announced = body.size_hint().lower();
    if usize::try_from(announced).map_or(true, |bytes| bytes > WEBHOOK_BODY_BYTES_MAX) {
        return Err(Refusal::TooLarge);
    }
    match timeout(patience, Limited::new(body, WEBHOOK_BODY_BYTES_MAX).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge),
        Ok(Err(_)) => Err(Refusal::Broken),
        Err(_) => Err(Refusal::TooSlow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        let never = Body::from_stream(tokio_stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read_within(never, Duration::from_millis(1)).await, Err(Refusal::TooSlow));
    }
}
