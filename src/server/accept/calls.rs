//! What a connection puts around each of its calls: where it came from, that it is open, and how long its messages may
//! take to arrive. What is called is not its business.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;
use tower::Service as _;

use super::places::{OpenCall, Place};
use crate::grpc::{Peer, layer, too_slow};

/// The service of one connection.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) router: axum::Router,
    pub(super) peer: Peer,
    pub(super) place: Arc<Place>,
    /// Whether only calls of the contract are use. Whoever nobody knows could hold his place with any other for ever.
    pub(super) contract_only: bool,
    /// How long the messages of a request may take to arrive, if that is bounded here.
    pub(super) arrival: Option<Duration>,
}

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let is_use = !self.contract_only || layer::is_of_contract(request.uri().path());
        let open = is_use.then(|| self.place.call());
        request.extensions_mut().insert(self.peer.clone());
        let arrival = self.arrival.filter(|_| !request.body().is_end_stream());
        let request = request.map(|body| match arrival {
            Some(arrival) => Body::new(Arriving { body, late: Box::pin(tokio::time::sleep(arrival)) }),
            None => Body::new(body),
        });
        let answer = self.router.clone().call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Body::new(Answered { body, _open: open }))) })
    }
}

/// The messages of a request, which are waited for so long and no longer.
struct Arriving<B> {
    body: B,
    late: Pin<Box<Sleep>>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Arriving<B>
where
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        std::task::ready!(this.late.as_mut().poll(context));
        Poll::Ready(Some(Err(axum::Error::new(too_slow()))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer, with which the call ends.
struct Answered {
    body: Body,
    _open: Option<OpenCall>,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use tonic::{Code, Status};

    use super::*;

    fn arriving<B>(body: B, ms: u64) -> Arriving<B> {
        Arriving { body, late: Box::pin(tokio::time::sleep(Duration::from_millis(ms))) }
    }

    #[tokio::test]
    async fn a_message_that_never_ends_ends_the_call() {
        let never = StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, axum::Error>>());
        let error = arriving(never, 10).frame().await.unwrap().unwrap_err();
        assert_eq!(Status::from_error(Box::new(error)).code(), Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn what_has_arrived_is_not_late() {
        let whole = Full::new(Bytes::from_static(b"message"));
        assert_eq!(arriving(whole, 0).collect().await.unwrap().to_bytes(), "message");
    }
}
