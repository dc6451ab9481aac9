//! How much one address may ask for: connections at a time, and new ones a minute.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use hashbrown::HashMap;

/// One client, as limits count them: an IPv4 address, or an IPv6 network of 64 bits, which is what one
/// household or one server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let network = u128::from(v6) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(network))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// New things a minute, and how many of them may come at once (GCRA).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In a minute; 0 is none at all.
    pub per_minute: u32,
    /// At once.
    pub burst: u32,
}

impl Rate {
    fn interval(self) -> Duration {
        Duration::from_mins(1) / self.per_minute.max(1)
    }
}

/// Keeps rates for keys of one kind, in bounded memory.
#[derive(Debug)]
pub struct Rates<K> {
    due: HashMap<K, Instant, foldhash::fast::RandomState>,
    max_keys: usize,
}

impl<K: Eq + Hash> Rates<K> {
    /// For so many keys; when there are more, those that are not due any more are forgotten, and if that
    /// is not enough, all: a flood from everywhere at once is not held by rates of single addresses.
    pub fn new(max_keys: usize) -> Self {
        Self { due: HashMap::default(), max_keys }
    }

    /// May `key` do one more thing now?
    pub fn admit(&mut self, key: K, rate: Rate, now: Instant) -> bool {
        if rate.per_minute == 0 {
            return false;
        }
        if self.due.len() >= self.max_keys && !self.due.contains_key(&key) {
            self.due.retain(|_, due| *due > now);
            if self.due.len() >= self.max_keys {
                self.due.clear();
            }
        }
        let interval = rate.interval();
        let due = self.due.entry(key).or_insert(now);
        let next = (*due).max(now) + interval;
        if next.saturating_duration_since(now) > interval * rate.burst.max(1) {
            return false;
        }
        *due = next;
        true
    }
}

/// The limits of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Connections at a time.
    pub connections: u32,
    /// New connections.
    pub rate: Rate,
}

/// All addresses that are connected, and what they did in the last minute.
#[derive(Clone, Debug)]
pub struct Clients(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    limits: ClientLimits,
}

#[derive(Debug)]
struct State {
    connections: HashMap<Client, u32, foldhash::fast::RandomState>,
    rates: Rates<Client>,
}

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientRefusal {
    /// Too many connections at a time.
    TooMany,
    /// Too many new ones a minute.
    TooFast,
}

/// One connection of an address; counts until it is dropped.
#[derive(Debug)]
pub struct ClientPermit {
    clients: Clients,
    client: Client,
}

impl Clients {
    /// Nobody yet.
    pub fn new(limits: ClientLimits, max_clients: usize) -> Self {
        let state = State { connections: HashMap::default(), rates: Rates::new(max_clients) };
        Self(Arc::new(Shared { state: Mutex::new(state), limits }))
    }

    /// Counts one more connection of an address, if it may have one.
    pub fn admit(&self, address: IpAddr, now: Instant) -> Result<ClientPermit, ClientRefusal> {
        let client = Client::from(address);
        let limits = self.0.limits;
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.connections.get(&client).is_some_and(|count| *count >= limits.connections) {
            return Err(ClientRefusal::TooMany);
        }
        if !state.rates.admit(client, limits.rate, now) {
            return Err(ClientRefusal::TooFast);
        }
        *state.connections.entry(client).or_insert(0) += 1;
        drop(state);
        Ok(ClientPermit { clients: self.clone(), client })
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let mut state = self.clients.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = state.connections.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                state.connections.remove(&self.client);
            }
        }
    }
}

/// Counts things of one kind up to a limit.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU32>);

/// One of the things; counts until it is dropped.
#[derive(Debug)]
pub struct Held(Arc<AtomicU32>);

impl Gauge {
    /// How many there are.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, unless that would be more than `limit`.
    pub fn hold(&self, limit: u32) -> Option<Held> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        let held = Held(self.0.clone());
        (before < limit).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ClientLimits = ClientLimits { connections: 2, rate: Rate { per_minute: 60, burst: 3 } };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv6_household_is_one_client_and_mapped_ipv4_is_ipv4() {
        assert_eq!(Client::from(address("2001:db8::1")), Client::from(address("2001:db8::ffff:1")));
        assert_ne!(Client::from(address("2001:db8::1")), Client::from(address("2001:db8:0:1::1")));
        assert_eq!(Client::from(address("::ffff:192.0.2.1")), Client::from(address("192.0.2.1")));
    }

    #[test]
    fn connections_count_until_they_are_dropped() {
        let clients = Clients::new(LIMITS, 10);
        let now = Instant::now();
        let first = clients.admit(address("192.0.2.1"), now).unwrap();
        let _second = clients.admit(address("192.0.2.1"), now).unwrap();
        assert_eq!(clients.admit(address("192.0.2.1"), now).unwrap_err(), ClientRefusal::TooMany);
        assert!(clients.admit(address("192.0.2.2"), now).is_ok());
        drop(first);
        assert!(clients.admit(address("192.0.2.1"), now).is_ok());
    }

    #[test]
    fn a_burst_is_followed_by_the_steady_rate() {
        let mut rates = Rates::new(10);
        let now = Instant::now();
        let rate = LIMITS.rate;
        assert_eq!((0..5).filter(|_| rates.admit(1, rate, now)).count(), 3);
        assert!(!rates.admit(1, rate, now + Duration::from_millis(900)));
        assert!(rates.admit(1, rate, now + Duration::from_millis(1100)));
        assert!(rates.admit(2, rate, now));
        assert!(!rates.admit(3, Rate { per_minute: 0, burst: 9 }, now));
    }

    #[test]
    fn the_memory_of_rates_is_bounded() {
        let mut rates = Rates::new(100);
        let now = Instant::now();
        for key in 0..10_000 {
            assert!(rates.admit(key, LIMITS.rate, now));
            assert!(rates.due.len() <= 100);
        }
    }

    #[test]
    fn a_gauge_never_passes_its_limit() {
        let gauge = Gauge::default();
        let held = gauge.hold(1).unwrap();
        assert!(gauge.hold(1).is_none());
        assert_eq!(gauge.count(), 1);
        drop(held);
        assert!(gauge.hold(1).is_some());
    }
}
