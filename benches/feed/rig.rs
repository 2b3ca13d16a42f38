//! The gateway in front of a sandbox in this process. It measures nothing.

use std::ops::Deref;
use std::path::Path;
use std::process::Stdio;

use tollgate::sandbox::Handle;

use crate::process::Gateway;
use crate::setup::{self, ALL, NO_TURNS, TOKEN, Wanted};

/// Connections from the one address that everybody here has.
const CONNECTIONS_MAX: usize = 1_000;

/// A gateway with its sandbox.
pub(crate) struct Rig {
    gateway: Gateway,
    sandbox: Handle,
}

impl Rig {
    /// Starts one that keeps its data below `disk`.
    pub(crate) async fn start(disk: &Path) -> Self {
        let sandbox = setup::sandbox(None).await;
        let more = format!(
            "{NO_TURNS}listen.connections_per_address_max = {CONNECTIONS_MAX}\ncallers.benchmark.token = \"{TOKEN}\"\n\
             telemetry.log = \"warn\"\n"
        );
        let wanted = Wanted { more: &more, policy: ALL };
        let gateway = Gateway::start(disk, sandbox.address(), wanted, Stdio::inherit()).await;
        Self { gateway, sandbox }
    }

    pub(crate) async fn stop(self) {
        drop(self.gateway);
        self.sandbox.stop().await;
    }
}

impl Deref for Rig {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}
