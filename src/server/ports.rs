//! The three ports: their sockets, and what each serves over TLS or without. How connections are served is
//! [`super::accept`]'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::Error;
use super::accept::{self, Caps, Serving, Times};
use super::tls::{self, Tls};
use crate::audit::Strangers;
use crate::config::{Config, EventsMode, Listen};
use crate::domain::clock::Clock;
use crate::domain::drain::Drain;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::Port;

/// How long webhooks that were accepted may take to finish at the end.
const WEBHOOK_GRACE: Duration = Duration::from_secs(10);
/// How long probes may take to finish when everything else has ended.
const OPS_GRACE: Duration = Duration::from_secs(1);

/// Where the ports are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) grpc: SocketAddr,
    pub(super) webhook: SocketAddr,
    pub(super) ops: SocketAddr,
}

/// What callers and Stripe are served with.
#[derive(Debug)]
pub(super) struct Routers {
    pub(super) grpc: axum::Router,
    pub(super) webhook: axum::Router,
}

/// The sockets, bound and not yet served.
#[derive(Debug)]
pub(super) struct Sockets {
    grpc: TcpListener,
    /// None where events are read from Stripe's list.
    webhook: Option<TcpListener>,
    /// None once it is served.
    ops: Option<TcpListener>,
    pub(super) addresses: Addresses,
}

/// What the ports have in common.
#[derive(Debug)]
pub(super) struct Common<'a> {
    pub(super) config: &'a Config,
    pub(super) tls: Option<&'a Tls>,
    pub(super) drain: Drain,
    pub(super) strangers: Strangers,
    pub(super) metrics: Metrics,
}

impl Sockets {
    /// Binds all of them that are needed.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub(super) async fn bind(listen: &Listen, mode: EventsMode) -> Result<Self, Error> {
        let (grpc, grpc_address) = bind(listen.grpc).await?;
        let (webhook, webhook_address) = match mode {
            EventsMode::Webhook => {
                let (webhook, address) = bind(listen.webhook).await?;
                (Some(webhook), address)
            }
            EventsMode::Poll => (None, listen.webhook),
        };
        let (ops, ops_address) = bind(listen.ops).await?;
        let addresses = Addresses { grpc: grpc_address, webhook: webhook_address, ops: ops_address };
        Ok(Self { grpc, webhook, ops: Some(ops), addresses })
    }

    /// Serves operators until `ended`, which is before everything else begins and after it has ended.
    pub(super) fn serve_ops(
        &mut self,
        router: axum::Router,
        common: &Common<'_>,
        ended: Drain,
        tasks: &mut JoinSet<()>,
    ) {
        let serving = Serving { drain: ended, ..common.serving(Port::Ops, router) };
        tasks.extend(self.ops.take().map(|ops| accept::serve(ops, serving, OPS_GRACE)));
    }

    /// Serves callers and Stripe until the drain begins, and open calls for at most the configured grace after that.
    pub(super) fn serve(self, routers: Routers, common: &Common<'_>, tasks: &mut JoinSet<()>) {
        let (grpc, webhook) =
            (common.serving(Port::Grpc, routers.grpc), common.serving(Port::Webhook, routers.webhook));
        tasks.spawn(accept::serve(self.grpc, grpc, common.config.listen.grace));
        tasks.extend(self.webhook.map(|socket| accept::serve(socket, webhook, WEBHOOK_GRACE)));
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
            strangers: self.strangers.clone(),
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
