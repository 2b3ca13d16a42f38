//! What is counted of the gateway's own ports: connections and the certificate that they show.

use opentelemetry::KeyValue;

use super::Metrics;
use super::names::{self, Cut, Port};

impl Metrics {
    /// Counts a connection as open for as long as the guard lives.
    pub fn connection(&self, port: Port) -> Connection {
        self.0.connections_open.add(1, &[KeyValue::new(names::LABEL_PORT, port.as_str())]);
        Connection(self.clone(), port)
    }

    /// A connection was refused or cut.
    pub fn connection_cut(&self, port: Port, why: Cut) {
        self.cut(1, port, why);
    }

    pub(super) fn cuts_begin_at_nought(&self) {
        for port in Port::ALL {
            Cut::ALL.into_iter().for_each(|why| self.cut(0, port, why));
        }
    }

    fn cut(&self, count: u64, port: Port, why: Cut) {
        let labels = [
            KeyValue::new(names::LABEL_PORT, port.as_str()),
            KeyValue::new(names::LABEL_REASON, why.as_str()),
        ];
        self.0.connections_cut.add(count, &labels);
    }

    /// From now on shows when the gateway's certificate ends; `end_s` tells it whenever somebody looks, in seconds of
    /// Unix time.
    pub fn certificate_end(&self, end_s: impl Fn() -> i64 + Send + Sync + 'static) {
        let gauge = self.0.meter.i64_observable_gauge(names::CERTIFICATE_END).with_unit("s");
        let about = "When the gateway's certificate ends, in Unix time";
        gauge.with_description(about).with_callback(move |seen| seen.observe(end_s(), &[])).build();
    }
}

/// An open connection.
#[derive(Debug)]
#[must_use = "the connection counts as closed as soon as this is dropped"]
pub struct Connection(Metrics, Port);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.0.connections_open.add(-1, &[KeyValue::new(names::LABEL_PORT, self.1.as_str())]);
    }
}
