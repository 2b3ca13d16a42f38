//! The body of a request, which asks whether the request may still go out when the connection stands and the first byte
//! is wanted. It does not know the rule.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Whether an attempt may go out now.
pub(in crate::stripe) type Allowed = Arc<dyn Fn() -> bool + Send + Sync>;

/// What one attempt has to pass before anything leaves that Stripe could carry out. A refusal is for good.
#[derive(Clone)]
pub(super) struct Gate {
    allowed: Allowed,
    refused: Arc<AtomicBool>,
}

impl Gate {
    pub(super) fn new(allowed: Allowed) -> Self {
        Self { allowed, refused: Arc::default() }
    }

    /// Whether the attempt was held back: then not one byte of a body went out, and no request that is complete without.
    pub(super) fn has_refused(&self) -> bool {
        self.refused.load(Ordering::SeqCst)
    }

    fn opens(&self) -> bool {
        let opens = !self.has_refused() && (self.allowed)();
        if !opens {
            self.refused.store(true, Ordering::SeqCst);
        }
        opens
    }
}

/// The gate refused.
#[derive(Debug, thiserror::Error)]
#[error("the request may not go out any more")]
pub(super) struct Refused;

/// All bytes of a request's body, or none, behind a gate. The HTTP library writes the head into its buffer, takes the
/// body, and then sends both; an error of the body ends the connection with the buffer unsent. Were the head sent on its
/// own after all, it would announce a body that never comes, and such a request is incomplete (RFC 9112, section 8).
pub(super) struct Gated {
    /// `None` once they are handed over.
    bytes: Option<Bytes>,
    gate: Gate,
}

impl Gated {
    pub(super) fn new(bytes: Bytes, gate: Gate) -> Self {
        Self { bytes: Some(bytes), gate }
    }
}

impl fmt::Debug for Gated {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Gated").finish_non_exhaustive()
    }
}

impl Body for Gated {
    type Data = Bytes;
    type Error = Refused;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Refused>>> {
        if self.bytes.is_some() && !self.gate.opens() {
            return Poll::Ready(Some(Err(Refused)));
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    /// A body of no bytes is never taken, so its gate is asked here, which the HTTP library does right before it writes
    /// the head. One that is refused passes for a body that fails.
    fn is_end_stream(&self) -> bool {
        self.bytes.as_ref().is_none_or(|bytes| bytes.is_empty() && self.gate.opens())
    }

    fn size_hint(&self) -> SizeHint {
        let bytes = self.bytes.as_ref().map_or(0, Bytes::len);
        // Of a body that is said to have none, no byte would be asked for.
        SizeHint::with_exact(u64::try_from(bytes).unwrap_or(u64::MAX).max(u64::from(self.gate.has_refused())))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn gated(bytes: &'static str, open: bool) -> Gated {
        Gated::new(bytes.into(), Gate::new(Arc::new(move || open)))
    }

    #[tokio::test]
    async fn an_open_gate_changes_nothing() {
        let mut body = gated("amount=5", true);
        assert_eq!((body.is_end_stream(), body.size_hint().exact()), (false, Some(8)));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "amount=5");
        assert!(body.is_end_stream() && body.frame().await.is_none());
        let empty = gated("", true);
        assert_eq!((empty.is_end_stream(), empty.size_hint().exact()), (true, Some(0)));
    }

    #[tokio::test]
    async fn a_closed_gate_gives_out_no_byte_and_no_end() {
        for bytes in ["amount=5", ""] {
            let mut body = gated(bytes, false);
            assert!(!body.is_end_stream(), "`{bytes}`");
            assert!(body.frame().await.unwrap().is_err(), "`{bytes}`");
            assert!(body.size_hint().exact().unwrap() > 0, "`{bytes}`");
            assert!(!body.is_end_stream() && body.gate.has_refused(), "`{bytes}`");
        }
    }

    #[test]
    fn a_refusal_is_for_good() {
        let asked = AtomicBool::new(false);
        let gate = Gate::new(Arc::new(move || asked.swap(true, Ordering::SeqCst)));
        assert!(!gate.opens() && !gate.opens());
    }
}
