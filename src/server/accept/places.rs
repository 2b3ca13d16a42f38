//! Who may have a connection open: so many in all and so many from one address, and in a full house the newcomer takes
//! the place of whoever has been unused the longest. What connections carry is not its business.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Bits of an IPv6 address that are one site's to give out (RFC 4291, section 2.5.4).
const IPV6_HOST_BITS: u32 = 64;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Caps {
    /// In all.
    pub(in crate::server) total: usize,
    /// From one IPv4 address or IPv6 /64 network.
    pub(in crate::server) per_address: usize,
}

/// Why a connection is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its address has too many.
    Address,
    /// There are too many, and each of them is in use.
    Full,
}

/// The connections of one listener; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Places {
    caps: Caps,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// Counts what happens: it names connections, and says which was used later.
    turn: u64,
    connections: HashMap<u64, Connection>,
    by_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Connection {
    network: IpAddr,
    open_calls: usize,
    /// The turn at which its last call ended, or else it began.
    used: u64,
    leave: Arc<Notify>,
}

impl Places {
    pub(super) fn new(caps: Caps) -> Self {
        Self { caps, held: Arc::default() }
    }

    /// A place for a connection from there.
    pub(super) fn enter(&self, address: IpAddr) -> Result<Place, Refused> {
        let network = network(address);
        let mut held = self.held();
        if held.by_address.get(&network).is_some_and(|open| *open >= self.caps.per_address) {
            return Err(Refused::Address);
        }
        if held.connections.len() >= self.caps.total {
            let unused = held.longest_unused().ok_or(Refused::Full)?;
            if let Some(connection) = held.remove(unused) {
                connection.leave.notify_one();
            }
        }
        let (id, leave) = (held.next_turn(), Arc::new(Notify::new()));
        *held.by_address.entry(network).or_default() += 1;
        let connection = Connection { network, open_calls: 0, used: id, leave: Arc::clone(&leave) };
        held.connections.insert(id, connection);
        drop(held);
        Ok(Place { id, places: self.clone(), leave })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    /// The connection without an open call whose address has the most places, and of those the one that has been unused
    /// the longest: whoever crowds the others out makes room.
    fn longest_unused(&self) -> Option<u64> {
        let unused = self.connections.iter().filter(|(_, connection)| connection.open_calls == 0);
        let crowd = |connection: &Connection| self.by_address.get(&connection.network).copied();
        let first = unused.max_by_key(|(_, connection)| (crowd(connection), Reverse(connection.used)));
        first.map(|(id, _)| *id)
    }

    fn remove(&mut self, id: u64) -> Option<Connection> {
        let connection = self.connections.remove(&id)?;
        if let Some(open) = self.by_address.get_mut(&connection.network) {
            *open -= 1;
            if *open == 0 {
                self.by_address.remove(&connection.network);
            }
        }
        Some(connection)
    }
}

/// A connection's place, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    places: Places,
    leave: Arc<Notify>,
}

impl Place {
    /// Waits until another connection takes this place.
    pub(super) async fn taken(&self) {
        self.leave.notified().await;
    }

    /// Whether a call is open that counts as use.
    pub(super) fn is_in_use(&self) -> bool {
        self.places.held().connections.get(&self.id).is_some_and(|connection| connection.open_calls > 0)
    }

    /// Counts a call as open for as long as the guard lives.
    pub(super) fn call(self: &Arc<Self>) -> OpenCall {
        if let Some(connection) = self.places.held().connections.get_mut(&self.id) {
            connection.open_calls += 1;
        }
        OpenCall(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nobody waits on it any more.
        drop(self.places.held().remove(self.id));
    }
}

/// An open call of a connection.
#[derive(Debug)]
pub(super) struct OpenCall(Arc<Place>);

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut held = self.0.places.held();
        let turn = held.next_turn();
        if let Some(connection) = held.connections.get_mut(&self.0.id) {
            connection.open_calls -= 1;
            connection.used = turn;
        }
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() >> IPV6_HOST_BITS << IPV6_HOST_BITS).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(total: usize, per_address: usize) -> Places {
        Places::new(Caps { total, per_address })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Whether a place was given to another.
    fn is_taken(place: &Place) -> bool {
        !place.places.held().connections.contains_key(&place.id)
    }

    #[tokio::test]
    async fn one_address_gets_its_share_and_no_more() {
        let places = places(10, 2);
        let first = places.enter(address("192.0.2.1")).unwrap();
        let _second = places.enter(address("::ffff:192.0.2.1")).unwrap();
        assert_eq!(places.enter(address("192.0.2.1")).unwrap_err(), Refused::Address);
        assert!(places.enter(address("192.0.2.2")).is_ok());
        drop(first);
        assert!(places.enter(address("192.0.2.1")).is_ok());
    }

    #[tokio::test]
    async fn a_network_of_ipv6_is_one_address() {
        let places = places(10, 1);
        let _one = places.enter(address("2001:db8:0:1::1")).unwrap();
        assert_eq!(places.enter(address("2001:db8:0:1:ffff::2")).unwrap_err(), Refused::Address);
        assert!(places.enter(address("2001:db8:0:2::1")).is_ok());
    }

    #[tokio::test]
    async fn a_full_house_makes_room_at_the_cost_of_the_crowd() {
        let places = places(3, 3);
        let alone = places.enter(address("192.0.2.1")).unwrap();
        let older = Arc::new(places.enter(address("192.0.2.2")).unwrap());
        let unused = places.enter(address("192.0.2.2")).unwrap();
        drop(older.call());
        let _newcomer = places.enter(address("192.0.2.3")).unwrap();
        unused.taken().await;
        assert!(is_taken(&unused) && !is_taken(&older) && !is_taken(&alone));
        // Who has left already does not give his place back twice.
        drop(unused);
        assert_eq!(places.held().connections.len(), 3);
    }

    #[tokio::test]
    async fn a_connection_with_an_open_call_keeps_its_place() {
        let places = places(1, 1);
        let busy = Arc::new(places.enter(address("192.0.2.1")).unwrap());
        let call = busy.call();
        assert_eq!(places.enter(address("192.0.2.2")).unwrap_err(), Refused::Full);
        drop(call);
        assert!(places.enter(address("192.0.2.2")).is_ok());
        assert!(is_taken(&busy));
    }

    #[tokio::test]
    async fn nothing_is_left_of_connections_that_are_gone() {
        let places = places(10, 10);
        let open: Vec<_> = (0..10).map(|_| places.enter(address("192.0.2.1")).unwrap()).collect();
        drop(open);
        let held = places.held();
        assert!(held.connections.is_empty() && held.by_address.is_empty());
    }
}
