//! Watches the frames that a peer sends over HTTP/2 and cuts off whoever sends control frames without end: pings,
//! settings, resets and the like cost the peer nothing and us an answer each. The library below bounds headers, streams
//! and small data by itself, and these not. What frames say is not its business.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::domain::limits::{
    BYTES_PER_CONTROL_FRAME, CONTROL_FRAMES_AHEAD_MAX, CONTROL_FRAMES_PER_SECOND, OPENING_SETTINGS_BYTES_MAX,
};

/// What every connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame's header, in bytes (RFC 9113, section 4.1).
const HEADER_BYTES: usize = 9;
/// Types of frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
/// How finely credit is counted: this much is one control frame.
const FRAME: u64 = 1_000_000;

/// What a peer may still send. Time and the bytes that it is sent give it credit, a control frame takes some.
#[derive(Debug)]
pub(super) struct Meter {
    credit: u64,
    counted: Instant,
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    payload_bytes: usize,
}

/// A peer sent more control frames than anybody needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flood;

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        let credit = CONTROL_FRAMES_AHEAD_MAX * FRAME;
        Self { credit, counted: now, header: [0; HEADER_BYTES], header_bytes: 0, payload_bytes: 0 }
    }

    /// Takes what came in, in whichever pieces.
    pub(super) fn received(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        while !bytes.is_empty() {
            if self.payload_bytes > 0 {
                let skipped = self.payload_bytes.min(bytes.len());
                self.payload_bytes -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let Some((first, rest)) = bytes.split_first() else { break };
            bytes = rest;
            if let Some(place) = self.header.get_mut(self.header_bytes) {
                *place = *first;
            }
            self.header_bytes += 1;
            if self.header_bytes == HEADER_BYTES {
                self.header_bytes = 0;
                self.frame(now)?;
            }
        }
        Ok(())
    }

    /// The peer was sent so many bytes, which it may acknowledge.
    pub(super) fn sent(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.earn(bytes.saturating_mul(FRAME / BYTES_PER_CONTROL_FRAME));
    }

    fn earn(&mut self, credit: u64) {
        self.credit = self.credit.saturating_add(credit).min(CONTROL_FRAMES_AHEAD_MAX * FRAME);
    }

    fn frame(&mut self, now: Instant) -> Result<(), Flood> {
        let [high, middle, low, kind, ..] = self.header;
        self.payload_bytes = payload_bytes(high, middle, low);
        if matches!(kind, DATA | HEADERS) {
            return Ok(());
        }
        let passed = now.saturating_duration_since(self.counted).as_micros();
        self.counted = now;
        self.earn(u64::try_from(passed).unwrap_or(u64::MAX).saturating_mul(CONTROL_FRAMES_PER_SECOND));
        self.credit = self.credit.checked_sub(FRAME).ok_or(Flood)?;
        Ok(())
    }
}

fn payload_bytes(high: u8, middle: u8, low: u8) -> usize {
    usize::from(high) * 65_536 + usize::from(middle) * 256 + usize::from(low)
}

/// A connection of HTTP/2 under watch.
#[derive(Debug)]
pub(super) struct Metered<S> {
    inner: S,
    meter: Meter,
    opening: io::Cursor<Vec<u8>>,
    flooded: Arc<AtomicBool>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Metered<S> {
    /// Waits until the peer has said what HTTP/2 begins with: the preface and its settings. Nobody else is listened to.
    ///
    /// # Errors
    /// When the peer leaves, or speaks something else.
    pub(super) async fn open(mut inner: S) -> io::Result<Self> {
        let mut opening = vec![0; PREFACE.len() + HEADER_BYTES];
        let other = || io::Error::new(io::ErrorKind::InvalidData, "the peer does not speak HTTP/2");
        let mut known = 0;
        while let Some(rest) = opening.get_mut(known..).filter(|rest| !rest.is_empty()) {
            match inner.read(rest).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => known += read,
            }
            // Whoever speaks another protocol, and may wait for our answer, is told so at its first bytes.
            if opening.iter().zip(PREFACE).take(known).any(|(given, due)| given != due) {
                return Err(other());
            }
        }
        let header = opening.get(PREFACE.len()..).unwrap_or_default();
        let &[high, middle, low, SETTINGS, 0, 0, 0, 0, 0] = header else { return Err(other()) };
        if payload_bytes(high, middle, low) > OPENING_SETTINGS_BYTES_MAX {
            return Err(other());
        }
        let now = Instant::now();
        let mut meter = Meter::new(now);
        meter.received(header, now).map_err(|Flood| other())?;
        Ok(Self { inner, meter, opening: io::Cursor::new(opening), flooded: Arc::default() })
    }

    /// Tells, also later, whether the peer was cut off.
    pub(super) fn flooded(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flooded)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if !this.opening.get_ref().is_empty() {
            std::task::ready!(Pin::new(&mut this.opening).poll_read(context, buffer))?;
            if buffer.filled().len() == before {
                this.opening = io::Cursor::default();
            } else {
                return Poll::Ready(Ok(()));
            }
        }
        std::task::ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        let received = buffer.filled().get(before..).unwrap_or_default();
        this.meter.received(received, Instant::now()).map_err(|Flood| {
            this.flooded.store(true, Ordering::Relaxed);
            io::Error::other("the peer sent too many control frames")
        })?;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        self.meter.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.inner).poll_write_vectored(context, pieces))?;
        self.meter.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, payload_bytes: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, payload_bytes, kind, 0, 0, 0, 0, 1];
        frame.resize(HEADER_BYTES + usize::from(payload_bytes), PING);
        frame
    }

    /// How many of these frames go through at once.
    fn allowed(meter: &mut Meter, frame: &[u8], now: Instant) -> u64 {
        (0..10_000).take_while(|_| meter.received(frame, now) == Ok(())).count() as u64
    }

    #[test]
    fn control_frames_are_bounded_and_come_back_with_time() {
        let now = Instant::now();
        let mut meter = Meter::new(now);
        assert_eq!(allowed(&mut meter, &frame(PING, 0), now), CONTROL_FRAMES_AHEAD_MAX);
        let later = now + Duration::from_secs(1);
        assert_eq!(allowed(&mut meter, &frame(3, 0), later), CONTROL_FRAMES_PER_SECOND);
        let much_later = later + Duration::from_secs(86_400);
        assert_eq!(allowed(&mut meter, &frame(99, 0), much_later), CONTROL_FRAMES_AHEAD_MAX);
    }

    #[test]
    fn what_a_peer_is_sent_it_may_acknowledge() {
        let now = Instant::now();
        let mut meter = Meter::new(now);
        for _ in 0..10 * CONTROL_FRAMES_AHEAD_MAX {
            meter.sent(usize::try_from(BYTES_PER_CONTROL_FRAME).unwrap());
            assert_eq!(meter.received(&frame(8, 4), now), Ok(()));
        }
    }

    #[test]
    fn answers_to_a_flood_do_not_pay_for_it() {
        let now = Instant::now();
        let mut meter = Meter::new(now);
        let echoed = (0..10_000).take_while(|_| {
            meter.sent(HEADER_BYTES + 8);
            meter.received(&frame(PING, 8), now) == Ok(())
        });
        assert!(echoed.count() < 2_500);
    }

    #[test]
    fn calls_and_their_data_cost_nothing() {
        let now = Instant::now();
        let mut meter = Meter::new(now);
        assert_eq!(allowed(&mut meter, &frame(HEADERS, 40), now), 10_000);
        assert_eq!(allowed(&mut meter, &frame(DATA, 255), now), 10_000);
    }

    proptest! {
        /// The same bytes cost the same in whichever pieces they arrive.
        #[test]
        fn pieces_do_not_matter(
            frames in prop::collection::vec((0_u8..12, any::<u8>()), 0..40),
            cuts in prop::collection::vec(1_usize..50, 1..40),
        ) {
            let now = Instant::now();
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, bytes)| frame(*kind, *bytes)).collect();
            let (mut whole, mut pieces) = (Meter::new(now), Meter::new(now));
            whole.received(&bytes, now).unwrap();
            let (mut rest, mut cuts) = (bytes.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(*cuts.next().unwrap().min(&rest.len()));
                pieces.received(piece, now).unwrap();
                rest = after;
            }
            let control = frames.iter().filter(|(kind, _)| ![DATA, HEADERS].contains(kind)).count() as u64;
            prop_assert_eq!(whole.credit, (CONTROL_FRAMES_AHEAD_MAX - control) * FRAME);
            prop_assert_eq!(pieces.credit, whole.credit);
        }
    }

    #[tokio::test]
    async fn nobody_but_a_peer_of_http2_is_listened_to() {
        for opening in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            [PREFACE.as_slice(), &frame(PING, 8)].concat(),
            [PREFACE.as_slice(), &[1, 0, 0, SETTINGS, 0, 0, 0, 0, 0]].concat(),
            [PREFACE.as_slice(), &[0, 0, 0, SETTINGS, 1, 0, 0, 0, 0]].concat(),
        ] {
            let (mut peer, ours) = tokio::io::duplex(256);
            tokio::io::AsyncWriteExt::write_all(&mut peer, &opening).await.unwrap();
            let refused = Metered::open(ours).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{opening:?}");
        }
    }

    #[tokio::test]
    async fn what_was_read_to_open_is_passed_on() {
        let (mut peer, ours) = tokio::io::duplex(256);
        let sent = [PREFACE.as_slice(), &[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0], &frame(PING, 8)].concat();
        tokio::io::AsyncWriteExt::write_all(&mut peer, &sent).await.unwrap();
        drop(peer);
        let mut received = Vec::new();
        Metered::open(ours).await.unwrap().read_to_end(&mut received).await.unwrap();
        assert_eq!(received, sent);
    }
}
