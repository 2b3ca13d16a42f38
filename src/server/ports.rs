//! The three ports: their sockets, and what each serves over TLS or without. How connections are served is
//! [`super::accept`]'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::accept::{self, Caps, Serving, Times};
use super::tls::{self, Tls};
use super::{DRAIN_GRACE, Error};
use crate::config::{Config, Listen};
use crate::domain::clock::Clock;
use crate::domain::drain::Drain;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::Port;

/// How long webhooks and probes that were accepted may take to finish at the end.
const HTTP_GRACE: Duration = Duration::from_secs(10);

/// One thing for each port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Each<T> {
    pub(super) grpc: T,
    pub(super) webhook: T,
    pub(super) ops: T,
}

/// What each port serves.
pub(super) type Routers = Each<axum::Router>;

/// The sockets, bound and not yet served.
#[derive(Debug)]
pub(super) struct Sockets {
    listeners: Each<TcpListener>,
    pub(super) addresses: Each<SocketAddr>,
}

/// What the ports have in common.
#[derive(Debug)]
pub(super) struct Common<'a> {
    pub(super) config: &'a Config,
    pub(super) tls: Option<&'a Tls>,
    pub(super) drain: Drain,
    pub(super) metrics: Metrics,
}

impl Sockets {
    /// Binds all of them.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub(super) async fn bind(listen: &Listen) -> Result<Self, Error> {
        let (grpc, grpc_address) = bind(listen.grpc).await?;
        let (webhook, webhook_address) = bind(listen.webhook).await?;
        let (ops, ops_address) = bind(listen.ops).await?;
        Ok(Self {
            listeners: Each { grpc, webhook, ops },
            addresses: Each { grpc: grpc_address, webhook: webhook_address, ops: ops_address },
        })
    }

    /// Serves on all of them until the drain begins.
    pub(super) fn serve(self, routers: Routers, common: &Common<'_>, tasks: &mut JoinSet<()>) {
        let Each { grpc, webhook, ops } = self.listeners;
        tasks.spawn(accept::serve(grpc, common.serving(Port::Grpc, routers.grpc), DRAIN_GRACE));
        tasks.spawn(accept::serve(webhook, common.serving(Port::Webhook, routers.webhook), HTTP_GRACE));
        tasks.spawn(accept::serve(ops, common.serving(Port::Ops, routers.ops), HTTP_GRACE));
    }
}

impl Common<'_> {
    fn serving(&self, port: Port, router: axum::Router) -> Serving {
        let (listen, settings) = (&self.config.listen, self.config.tls.as_ref());
        let with_tls = match port {
            Port::Grpc => true,
            Port::Webhook => settings.is_some_and(|tls| tls.webhook),
            Port::Ops => settings.is_some_and(|tls| tls.ops),
        };
        Serving {
            port,
            tls: self.tls.filter(|_| with_tls).cloned(),
            router,
            drain: self.drain.clone(),
            caps: Caps { total: listen.connections_max, per_address: listen.connections_per_address_max },
            times: Times::default(),
            metrics: self.metrics.clone(),
        }
    }
}

/// What TLS is spoken with, if it is configured; its end shows in the metrics.
///
/// # Errors
/// When the files cannot be used.
pub(super) fn tls(config: &Config, clock: &Arc<dyn Clock>, metrics: &Metrics) -> Result<Option<Tls>, Error> {
    let Some(settings) = &config.tls else { return Ok(None) };
    let tls = Tls::new(tls::load(settings, clock)?);
    let shown = tls.clone();
    metrics.certificate_end(move || shown.current().not_after_s);
    Ok(Some(tls))
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
