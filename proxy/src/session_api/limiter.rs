//! How often somebody may ask: the generic cell rate algorithm, over a bounded map.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often is often enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// In the long run, this many a minute.
    pub per_minute: u32,
    /// At once, this many.
    pub burst: u32,
}

/// Limits how often each key may come.
///
/// Remembers at most `capacity` keys. When that many are active, whoever is not among them shares one
/// allowance, so that neither memory nor the limit can be escaped by coming from many addresses.
#[derive(Debug)]
pub struct Limiter<K> {
    interval: Duration,
    tolerance: Duration,
    capacity: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    /// When each key would be even with its allowance.
    even_at: HashMap<K, Instant>,
    others_even_at: Option<Instant>,
    swept: Option<Instant>,
}

impl<K: Eq + Hash> Limiter<K> {
    /// Sweeping costs a walk over all keys, so it is done this often at most.
    const SWEEP_EVERY: Duration = Duration::from_secs(1);

    /// A limiter that remembers up to `capacity` keys.
    pub fn new(allowance: Allowance, capacity: usize) -> Self {
        let interval = Duration::from_mins(1) / allowance.per_minute.max(1);
        Self {
            interval,
            tolerance: interval * allowance.burst.saturating_sub(1),
            capacity,
            state: Mutex::new(State { even_at: HashMap::new(), others_even_at: None, swept: None }),
        }
    }

    /// May `key` come now? If not, in how long.
    pub fn check(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(even_at) = state.even_at.get_mut(&key) {
            return self.take(even_at, now);
        }
        if state.even_at.len() >= self.capacity
            && state.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= Self::SWEEP_EVERY)
        {
            state.swept = Some(now);
            state.even_at.retain(|_, even_at| *even_at > now);
        }
        if state.even_at.len() >= self.capacity {
            return self.take(state.others_even_at.get_or_insert(now), now);
        }
        let mut even_at = now;
        let answer = self.take(&mut even_at, now);
        state.even_at.insert(key, even_at);
        answer
    }

    fn take(&self, even_at: &mut Instant, now: Instant) -> Result<(), Duration> {
        let from = (*even_at).max(now);
        match from.duration_since(now).checked_sub(self.tolerance) {
            Some(early) if !early.is_zero() => Err(early),
            _ => {
                *even_at = from + self.interval;
                Ok(())
            }
        }
    }
}

/// Who a client is for limits: an IPv4 address, or the /64 of an IPv6 address.
pub(super) fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_then_the_rate() {
        let limiter = Limiter::new(Allowance { per_minute: 60, burst: 3 }, 10);
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(limiter.check("a", start), Ok(()));
        }
        assert_eq!(limiter.check("a", start), Err(SECOND));
        assert_eq!(limiter.check("b", start), Ok(()), "others are not held up");
        assert_eq!(limiter.check("a", start + SECOND / 2), Err(SECOND / 2), "asking in vain costs nothing");
        assert_eq!(limiter.check("a", start + SECOND), Ok(()));
        assert_eq!(limiter.check("a", start + SECOND), Err(SECOND));
        for _ in 0..3 {
            assert_eq!(limiter.check("a", start + SECOND * 100), Ok(()));
        }
        assert!(limiter.check("a", start + SECOND * 100).is_err(), "a burst does not grow with waiting");
    }

    #[test]
    fn memory_is_bounded_and_strangers_share_when_it_is_full() {
        let limiter = Limiter::new(Allowance { per_minute: 60, burst: 1 }, 100);
        let start = Instant::now();
        let admitted = (0..1000).filter(|key| limiter.check(*key, start).is_ok()).count();
        assert_eq!(admitted, 101, "each that is remembered, and one for all others");
        assert_eq!(limiter.state.lock().unwrap().even_at.len(), 100);
        let later = start + SECOND * 2;
        assert_eq!(limiter.check(5000, later), Ok(()));
        assert_eq!(limiter.state.lock().unwrap().even_at.len(), 1, "who is even is forgotten");
    }

    #[test]
    fn clients_are_told_apart_by_network() {
        let network = |text: &str| client_network(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
