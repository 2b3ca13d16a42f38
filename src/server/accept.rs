//! The listeners' accept loop: who gets a place, and a graceful end for all. What is served is not its business.

mod calls;
mod closing;
mod connection;
mod meter;
mod places;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub(super) use places::Caps;
use places::{Places, Refused};

use super::tls::Tls;
use crate::audit::Strangers;
use crate::domain::drain::Drain;
use crate::domain::limits::{
    CONNECTION_AGE_MS_MAX, ENDING_MS_MAX, LEAVING_MS_MAX, LINGERING_MS_MAX, OPENING_MS_MAX, REQUEST_MS_MAX,
    SIGN_OF_LIFE_MS_MAX, SILENCE_MS_MAX,
};
use crate::domain::planted;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::{Cut, Port};

/// Pause after a failed accept, when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// HTTP/1.1, for webhooks and probes.
    Http1,
    /// HTTP/2, for gRPC.
    Http2,
}

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Until TLS stands and the first words were said.
    pub(super) opening: Duration,
    /// Until it takes no new calls.
    pub(super) age: Duration,
    /// To stay past its age without a call that counts as use.
    pub(super) lingering: Duration,
    /// To leave when another needs its place.
    pub(super) leaving: Duration,
    /// To stand, or to stay without a call that counts as use, when the gateway goes.
    pub(super) ending: Duration,
    /// For the messages of a request to arrive.
    pub(super) request: Duration,
    /// To be silent before it is asked for a sign of life.
    pub(super) silence: Duration,
    /// To give the sign of life; one that does not is gone, whatever its sockets say.
    pub(super) sign_of_life: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            opening: Duration::from_millis(OPENING_MS_MAX),
            age: Duration::from_millis(CONNECTION_AGE_MS_MAX),
            lingering: Duration::from_millis(LINGERING_MS_MAX),
            leaving: Duration::from_millis(LEAVING_MS_MAX),
            ending: Duration::from_millis(ENDING_MS_MAX),
            request: Duration::from_millis(REQUEST_MS_MAX),
            silence: Duration::from_millis(SILENCE_MS_MAX),
            sign_of_life: Duration::from_millis(SIGN_OF_LIFE_MS_MAX),
        }
    }
}

/// What a port serves, and how.
#[derive(Clone, Debug)]
pub(super) struct Serving {
    /// Which port; gRPC speaks HTTP/2 and the others HTTP/1.1.
    pub(super) port: Port,
    /// TLS, if it is spoken.
    pub(super) tls: Option<Tls>,
    /// What is served.
    pub(super) router: axum::Router,
    /// When to end.
    pub(super) drain: Drain,
    /// How many connections there may be.
    pub(super) caps: Caps,
    /// How long they may take.
    pub(super) times: Times,
    /// Where those are counted whose certificate is refused.
    pub(super) strangers: Strangers,
    /// Where they are counted.
    pub(super) metrics: Metrics,
}

impl Serving {
    fn protocol(&self) -> Protocol {
        match self.port {
            Port::Grpc => Protocol::Http2,
            Port::Webhook | Port::Ops => Protocol::Http1,
        }
    }
}

/// Serves on `listener` until the drain begins, then lets open calls finish for at most `grace`.
pub(super) async fn serve(listener: TcpListener, serving: Serving, grace: Duration) {
    let (places, serving) = (Places::new(serving.caps), Arc::new(serving));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = serving.drain.begun() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok(accepted) => admit(accepted, &places, &serving, &mut connections),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Whoever is connected by now may have sent a call, and is told whether it was taken.
    closing::close(listener, |accepted| admit(accepted, &places, &serving, &mut connections)).await;
    if planted::active("drain-cuts-calls") {
        connections.abort_all();
    }
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, finish).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "connections were cut at the end of the grace period"
        );
    }
}

/// Serves a connection, if there is a place for it.
fn admit(
    (stream, address): (TcpStream, SocketAddr),
    places: &Places,
    serving: &Arc<Serving>,
    connections: &mut JoinSet<()>,
) {
    let place = match places.enter(address.ip()) {
        Ok(place) => place,
        Err(refused) => {
            let cut = match refused {
                Refused::Address => Cut::Address,
                Refused::Full => Cut::Full,
            };
            return serving.metrics.connection_cut(serving.port, cut);
        }
    };
    let serving = Arc::clone(serving);
    connections.spawn(async move {
        let open = serving.metrics.connection(serving.port);
        if let Err(cut) = connection::serve(stream, address, place, &serving).await {
            tracing::debug!(%address, reason = cut.as_str(), "a connection was cut");
            serving.metrics.connection_cut(serving.port, cut);
        }
        drop(open);
    });
}

#[cfg(test)]
mod tests;
