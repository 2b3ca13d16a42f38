//! The way between a gateway and its Stripe, which a test can cut and mend. It looks at nothing that it carries.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::rig::until;

/// Carries connections from an address of its own.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    to: SocketAddr,
    carrier: JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, to, carrier: tokio::spawn(carry(listener, to)) }
    }

    /// Breaks all connections; from now on new ones are refused.
    pub(super) async fn cut(&mut self) {
        self.carrier.abort();
        drop((&mut self.carrier).await);
    }

    /// Carries on.
    pub(super) async fn mend(&mut self) {
        let listener = until(async || TcpListener::bind(self.address).await.ok()).await;
        self.carrier = tokio::spawn(carry(listener, self.to));
    }
}

async fn carry(listener: TcpListener, to: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        connections.spawn(async move {
            let mut far = TcpStream::connect(to).await?;
            copy_bidirectional(&mut near, &mut far).await
        });
    }
}
