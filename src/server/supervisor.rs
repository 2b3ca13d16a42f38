//! Tells the service manager that started the gateway how it stands, by systemd's protocol (sd_notify(3)). It decides
//! nothing: whoever changes the state says so here.

use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::{Environment, NOTIFY_SOCKET_VARIABLE, WATCHDOG_USEC_VARIABLE};
use crate::domain::clock::awake;

/// Longest that a word to the service manager may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The way to the service manager; clones lead to the same. Where none asked to be told, nothing is sent.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    /// The name of its socket.
    socket: Option<Arc<str>>,
    /// Without a sign of life for this long, the service manager takes the process for hung.
    watchdog: Option<Duration>,
    /// Whether it was told that the gateway is going. It is held while a state is told, so that none comes behind that.
    is_stopping: Arc<Mutex<bool>>,
}

impl Supervisor {
    /// The service manager that the environment names.
    #[must_use]
    pub fn new(environment: &Environment) -> Self {
        let watchdog = environment.get(WATCHDOG_USEC_VARIABLE).and_then(|text| text.parse().ok());
        Self {
            socket: environment.get(NOTIFY_SOCKET_VARIABLE).map(Arc::from),
            watchdog: watchdog.map(Duration::from_micros),
            is_stopping: Arc::default(),
        }
    }

    /// The gateway serves, with the settings as they stand or, where those could not be taken, with older ones. Ends a
    /// reload too.
    pub fn ready(&self, settings_are_current: bool) {
        let status = match settings_are_current {
            true => "serving",
            false => "serving with older settings: those that stand now cannot be taken, see the log",
        };
        self.enter(&format!("READY=1\nSTATUS={status}"), false);
    }

    /// The settings are about to be read again; [`Self::ready`] has to follow.
    pub fn reloading(&self) {
        self.enter(&format!("RELOADING=1\nMONOTONIC_USEC={}", awake().as_micros()), false);
    }

    /// The gateway is going. Settings that are taken until it is gone change nothing of that.
    pub fn stopping(&self) {
        self.enter("STOPPING=1\nSTATUS=stopping: open calls may finish", true);
    }

    /// Gives signs of life for as long as it is polled, twice in the time within which one is due. They come from the
    /// threads that serve calls, so they end when those are stuck.
    pub async fn keep_alive(self) {
        let Some(within) = self.watchdog.filter(|within| !within.is_zero()) else { return };
        loop {
            self.tell("WATCHDOG=1");
            tokio::time::sleep(within / 2).await;
        }
    }

    /// Tells a state, unless the last one has been told.
    fn enter(&self, state: &str, is_last: bool) {
        let mut is_stopping = self.is_stopping.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_stopping {
            *is_stopping = is_last;
            self.tell(state);
        }
    }

    fn tell(&self, state: &str) {
        let Some(socket) = self.socket.as_deref() else { return };
        if let Err(error) = send(socket, state) {
            tracing::warn!(%error, socket, "the service manager could not be told");
        }
    }
}

/// A name that begins with `@` is of the abstract kind, which is in no file system (unix(7)).
fn send(name: &str, state: &str) -> io::Result<()> {
    let address = match name.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(rest) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut text = [0; 4096];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    fn supervisor(name: &str) -> Supervisor {
        Supervisor::new(&Environment::from_iter([(NOTIFY_SOCKET_VARIABLE, name)]))
    }

    #[test]
    fn what_is_told_has_the_form_that_systemd_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let supervisor = supervisor(path.to_str().unwrap());
        let elsewhere = supervisor.clone();
        let before = awake().as_micros();
        supervisor.reloading();
        let text = heard(&manager);
        let at = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=awake().as_micros()).contains(&at), "{text}");
        supervisor.ready(true);
        assert_eq!(heard(&manager), "READY=1\nSTATUS=serving");
        supervisor.ready(false);
        assert!(heard(&manager).starts_with("READY=1\nSTATUS=serving with older settings"));
        supervisor.stopping();
        assert!(heard(&manager).starts_with("STOPPING=1\n"));
        // A reload that was under way may end after that.
        elsewhere.reloading();
        supervisor.ready(true);
        manager.set_nonblocking(true).unwrap();
        assert_eq!(manager.recv(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_socket_outside_the_file_system_is_reached() {
        use std::os::linux::net::SocketAddrExt as _;

        let name = format!("tollgate-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        supervisor(&format!("@{name}")).ready(true);
        assert!(heard(&manager).starts_with("READY=1"));
    }

    #[test]
    fn without_a_service_manager_nothing_is_told_and_nothing_fails() {
        Supervisor::new(&Environment::default()).ready(true);
        supervisor("/nowhere/notify").ready(true);
    }
}
