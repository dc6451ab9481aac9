//! Which proxies there are, and what they have put in force.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use operator_link::Position;
use planner::{Applied, Timestamp};
use tokio_util::sync::CancellationToken;

/// What is known of a proxy that is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyState {
    /// The replica: its pod's name.
    pub name: Arc<str>,
    /// The version of its program.
    pub version: String,
    /// Which process: another value under the same name is another one.
    pub incarnation: u64,
    /// The table in force there.
    pub position: Option<Position>,
    /// Does it accept visitors and tunnels?
    pub ready: bool,
    /// Live tunnels.
    pub tunnels: u32,
    /// Since when it is attached.
    pub attached_since: Timestamp,
    /// For how long there has been a table that it has not put in force yet.
    pub lag: Duration,
}

/// All proxies, by name.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    proxies: BTreeMap<Arc<str>, Proxy>,
    /// The pods there should be, and whether they are ready. Not known: whoever is attached.
    pods: Option<BTreeMap<String, bool>>,
    streams: u64,
}

#[derive(Debug)]
struct Proxy {
    version: String,
    incarnation: u64,
    /// Kept when its stream ends: the table in force there stays so.
    position: Option<Position>,
    ready: bool,
    tunnels: u32,
    stream: Option<Stream>,
}

#[derive(Debug)]
struct Stream {
    number: u64,
    since: Timestamp,
    replaced: CancellationToken,
}

/// Who attaches.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) name: Arc<str>,
    pub(crate) version: String,
    pub(crate) incarnation: u64,
    pub(crate) has: Option<Position>,
}

impl Roster {
    /// Another stream: it takes the place of an older one of the same name, which is told by the token it got. Gives
    /// the stream's number, and its own token.
    pub(crate) fn attach(&mut self, arrival: Arrival, now: Timestamp) -> (u64, CancellationToken) {
        let Arrival { name, version, incarnation, has } = arrival;
        self.streams += 1;
        let token = CancellationToken::new();
        let stream = Stream { number: self.streams, since: now, replaced: token.clone() };
        let before = self.proxies.remove(&name);
        if let Some(older) = before.as_ref().and_then(|proxy| proxy.stream.as_ref()) {
            older.replaced.cancel();
        }
        // The same process is as it was; of another one nothing is known.
        let same = before.filter(|proxy| proxy.incarnation == incarnation);
        let (ready, tunnels) = same.map_or((false, 0), |proxy| (proxy.ready, proxy.tunnels));
        let proxy = Proxy { version, incarnation, position: has, ready, tunnels, stream: Some(stream) };
        self.proxies.insert(name, proxy);
        (self.streams, token)
    }

    /// A stream ended. `false` when another one has taken its place.
    pub(crate) fn detach(&mut self, name: &str, number: u64) -> bool {
        let Some(proxy) = self.on_stream(name, number) else { return false };
        proxy.stream = None;
        true
    }

    /// The proxy did not come back in time. `false` when it did.
    pub(crate) fn is_gone(&mut self, name: &str) -> bool {
        if self.proxies.get(name).is_some_and(|proxy| proxy.stream.is_some()) {
            return false;
        }
        // A ready pod without a stream still serves from the table it has.
        if !self.pods.as_ref().is_some_and(|pods| pods.contains_key(name)) {
            self.proxies.remove(name);
        }
        true
    }

    /// What the proxy says is in force there.
    pub(crate) fn applied(&mut self, name: &str, number: u64, position: Option<Position>) {
        if let Some(proxy) = self.on_stream(name, number) {
            proxy.position = position;
        }
    }

    pub(crate) fn health(&mut self, name: &str, number: u64, ready: bool, tunnels: u32) {
        if let Some(proxy) = self.on_stream(name, number) {
            (proxy.ready, proxy.tunnels) = (ready, tunnels);
        }
    }

    fn on_stream(&mut self, name: &str, number: u64) -> Option<&mut Proxy> {
        let proxy = self.proxies.get_mut(name)?;
        proxy.stream.as_ref().is_some_and(|stream| stream.number == number).then_some(proxy)
    }

    /// The pods there should be. `true` when that is news.
    pub(crate) fn expect(&mut self, pods: BTreeMap<String, bool>) -> bool {
        self.proxies.retain(|name, proxy| proxy.stream.is_some() || pods.contains_key(&**name));
        let pods = Some(pods);
        let news = self.pods != pods;
        self.pods = pods;
        news
    }

    /// What every ready proxy has put in force in this term.
    pub(crate) fn in_force(&self, term: Option<u64>) -> Applied {
        let revision = |proxy: &Proxy| {
            let position = proxy.position.filter(|position| Some(position.term) == term)?;
            Some(position.revision)
        };
        let revisions: Vec<Option<u64>> = if let Some(pods) = &self.pods {
            let ready = pods.iter().filter(|(_, ready)| **ready);
            ready.map(|(pod, _)| self.proxies.get(pod.as_str()).and_then(revision)).collect()
        } else {
            let ready = self.proxies.values().filter(|proxy| proxy.ready);
            ready.map(revision).collect()
        };
        Applied {
            ready_proxies: u32::try_from(revisions.len()).unwrap_or(u32::MAX),
            // `None` is less than any revision: one that has none keeps all back.
            revision: revisions.into_iter().min().flatten(),
        }
    }

    /// Everybody who is attached. `lag` says how long a table newer than one's own has been there.
    pub(crate) fn attached(&self, lag: impl Fn(Option<Position>) -> Option<Instant>) -> Vec<ProxyState> {
        let state = |(name, proxy): (&Arc<str>, &Proxy)| {
            let stream = proxy.stream.as_ref()?;
            Some(ProxyState {
                name: Arc::clone(name),
                version: proxy.version.clone(),
                incarnation: proxy.incarnation,
                position: proxy.position,
                ready: proxy.ready,
                tunnels: proxy.tunnels,
                attached_since: stream.since,
                lag: lag(proxy.position).map_or(Duration::ZERO, |since| since.elapsed()),
            })
        };
        self.proxies.iter().filter_map(state).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attach(roster: &mut Roster, name: &str, incarnation: u64) -> (u64, CancellationToken) {
        let arrival = Arrival { name: name.into(), version: "1".to_owned(), incarnation, has: None };
        roster.attach(arrival, Timestamp(0))
    }

    fn at(term: u64, revision: u64) -> Position {
        Position { term, revision }
    }

    fn in_force(roster: &Roster) -> (u32, Option<u64>) {
        let applied = roster.in_force(Some(3));
        (applied.ready_proxies, applied.revision)
    }

    #[test]
    fn all_who_are_ready_have_to_have_it_in_this_term() {
        let mut roster = Roster::default();
        assert_eq!(in_force(&roster), (0, None));
        let (a, _) = attach(&mut roster, "a", 1);
        roster.applied("a", a, Some(at(3, 7)));
        assert_eq!(in_force(&roster), (0, None), "it is not ready");
        roster.health("a", a, true, 5);
        assert_eq!(in_force(&roster), (1, Some(7)));
        let (b, _) = attach(&mut roster, "b", 1);
        assert_eq!(in_force(&roster), (1, Some(7)));
        roster.health("b", b, true, 5);
        assert_eq!(in_force(&roster), (2, None));
        roster.applied("b", b, Some(at(2, 9)));
        assert_eq!(in_force(&roster), (2, None), "another leader's revision");
        roster.applied("b", b, Some(at(3, 6)));
        assert_eq!(in_force(&roster), (2, Some(6)));
    }

    #[test]
    fn pods_count_where_they_are_known() {
        let mut roster = Roster::default();
        let (a, _) = attach(&mut roster, "a", 1);
        roster.applied("a", a, Some(at(3, 7)));
        assert!(roster.expect(BTreeMap::from([("a".to_owned(), true), ("b".to_owned(), false)])));
        assert_eq!(in_force(&roster), (1, Some(7)));
        assert!(roster.expect(BTreeMap::from([("a".to_owned(), true), ("b".to_owned(), true)])));
        assert_eq!(in_force(&roster), (2, None), "ready, but it never attached");
        assert!(!roster.expect(BTreeMap::from([("a".to_owned(), true), ("b".to_owned(), true)])));
    }

    #[test]
    fn a_pod_without_a_stream_keeps_its_table() {
        let mut roster = Roster::default();
        roster.expect(BTreeMap::from([("a".to_owned(), true)]));
        let (a, _) = attach(&mut roster, "a", 1);
        roster.applied("a", a, Some(at(3, 7)));
        assert!(roster.detach("a", a) && roster.is_gone("a"));
        assert_eq!(in_force(&roster), (1, Some(7)));
        assert!(roster.attached(|_| None).is_empty());
        roster.expect(BTreeMap::new());
        roster.expect(BTreeMap::from([("a".to_owned(), true)]));
        assert_eq!(in_force(&roster), (1, None), "another pod of that name");
    }

    #[test]
    fn the_newest_stream_of_a_name_wins() {
        let mut roster = Roster::default();
        let (older, replaced) = attach(&mut roster, "a", 1);
        roster.health("a", older, true, 5);
        let (newer, not_replaced) = attach(&mut roster, "a", 2);
        assert!(replaced.is_cancelled() && !not_replaced.is_cancelled());
        roster.applied("a", older, Some(at(3, 9)));
        roster.health("a", older, true, 6);
        let states = roster.attached(|_| None);
        assert_eq!((states.len(), states[0].position, states[0].ready), (1, None, false));
        assert!(!roster.detach("a", older) && !roster.is_gone("a"));
        assert!(roster.detach("a", newer) && roster.is_gone("a"));
    }
}
