//! What a gateway shows on its operations port, read by those who measure it.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::net::SocketAddr;

/// The whole page.
pub(crate) async fn page(ops: SocketAddr) -> String {
    // The client wants one before it sees that it needs none; a gateway in this process may have been first.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(format!("http://{ops}/metrics")).send().await.unwrap().text().await.unwrap()
}

/// The sum over all series that begin like this and are wanted.
pub(crate) fn sum(page: &str, series: &str, wanted: impl Fn(&str) -> bool) -> f64 {
    let lines = page.lines().filter(|line| line.starts_with(series) && wanted(line));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}
