//! What the operator is told of instances: who has a tunnel here, and what agents reported. Pure: what is open, what was
//! said and the time go in, messages come out.

use std::collections::{BTreeMap, BTreeSet};

use operator_link::{
    limits::{MAX_FACTS, PART_BYTES},
    wire,
};
use prost::Message as _;
use route_table::InstanceId;

/// What is open for an instance now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenTunnels {
    /// How many.
    pub(super) count: u32,
    /// Unix seconds: since when the first of them is.
    pub(super) since: i64,
    /// The agent's version, of the newest.
    pub(super) agent_version: String,
    /// The protocol version, of the newest.
    pub(super) protocol_version: u32,
}

#[derive(Debug, Default)]
struct Entry {
    tunnel: Option<wire::Tunnel>,
    reported: Option<wire::Reported>,
    /// What was not told yet.
    new_tunnel: bool,
    new_report: bool,
}

/// Everything known, and what of it the leader has not heard yet.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: BTreeMap<InstanceId, Entry>,
    /// Entries with something new.
    new: BTreeSet<InstanceId>,
    /// A leader that hears everything: how far it is.
    telling: Option<Telling>,
}

/// Everything is being told.
#[derive(Debug)]
struct Telling {
    begun: bool,
    last: Option<InstanceId>,
}

impl Book {
    /// Looks at the tunnels of an instance.
    pub(super) fn tunnels(&mut self, id: InstanceId, open: Option<OpenTunnels>, now: i64) {
        if open.is_none() && !self.entries.contains_key(&id) {
            return;
        }
        let entry = self.entries.entry(id.clone()).or_default();
        let known = entry.tunnel.as_ref();
        let was_open = known.is_some_and(|known| known.connected);
        let next = match (open, known) {
            (Some(open), _) => wire::Tunnel {
                connected: true,
                // A session that is renewed beside the old one is no interruption.
                since: known.filter(|_| was_open).map_or(open.since, |known| known.since),
                agent_version: open.agent_version,
                protocol_version: Some(open.protocol_version),
                count: open.count,
            },
            (None, Some(known)) if was_open => {
                wire::Tunnel { connected: false, since: now, count: 0, ..known.clone() }
            }
            // It was gone before, or never there.
            (None, _) => return,
        };
        if known != Some(&next) {
            entry.tunnel = Some(next);
            entry.new_tunnel = true;
            self.new.insert(id);
        }
    }

    /// An agent reported.
    pub(super) fn reported(&mut self, id: InstanceId, reported: wire::Reported) {
        let entry = self.entries.entry(id.clone()).or_default();
        entry.reported = Some(reported);
        entry.new_report = true;
        self.new.insert(id);
    }

    /// Forgets instances that left the table.
    pub(super) fn retain(&mut self, known: impl Fn(&InstanceId) -> bool) {
        self.entries.retain(|id, _| known(id));
        self.new.retain(|id| self.entries.contains_key(id));
    }

    /// A leader knows nothing yet.
    pub(super) fn begin(&mut self) {
        self.telling = Some(Telling { begun: false, last: None });
    }

    /// The next message, if there is something to tell. What is in it counts as told.
    pub(super) fn next(&mut self) -> Option<wire::Facts> {
        match self.telling.take() {
            Some(telling) => Some(self.everything(telling)),
            None => self.news(),
        }
    }

    fn everything(&mut self, telling: Telling) -> wire::Facts {
        use std::ops::Bound::{Excluded, Unbounded};
        let from_the_start = !telling.begun;
        let mut batch = Batch::default();
        let start = telling.last.clone().map_or(Unbounded, Excluded);
        let mut last = telling.last;
        let mut complete = true;
        for (id, entry) in self.entries.range_mut((start, Unbounded)) {
            if batch.is_full() {
                complete = false;
                break;
            }
            batch.add(id, entry.tunnel.clone(), entry.reported.clone());
            (entry.new_tunnel, entry.new_report) = (false, false);
            self.new.remove(id);
            last = Some(id.clone());
        }
        if !complete {
            self.telling = Some(Telling { begun: true, last });
        }
        wire::Facts { from_the_start, complete, instances: batch.instances }
    }

    fn news(&mut self) -> Option<wire::Facts> {
        let mut batch = Batch::default();
        while !batch.is_full() {
            let Some(id) = self.new.pop_first() else { break };
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let tunnel = entry.tunnel.clone().filter(|_| entry.new_tunnel);
            let reported = entry.reported.clone().filter(|_| entry.new_report);
            (entry.new_tunnel, entry.new_report) = (false, false);
            batch.add(&id, tunnel, reported);
        }
        let instances = batch.instances;
        (!instances.is_empty()).then_some(wire::Facts { from_the_start: false, complete: false, instances })
    }
}

/// Instances of one message, within what the other side takes.
#[derive(Debug, Default)]
struct Batch {
    instances: Vec<wire::InstanceFacts>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.instances.len() >= MAX_FACTS || self.bytes >= PART_BYTES
    }

    fn add(&mut self, id: &InstanceId, tunnel: Option<wire::Tunnel>, reported: Option<wire::Reported>) {
        let facts = wire::InstanceFacts { id: id.to_string(), tunnel, reported };
        self.bytes += facts.encoded_len();
        self.instances.push(facts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> InstanceId {
        format!("homes/{name}").parse().unwrap()
    }

    fn open(count: u32, since: i64) -> OpenTunnels {
        OpenTunnels { count, since, agent_version: "0.1.0".to_owned(), protocol_version: 2 }
    }

    fn reported(version: &str) -> wire::Reported {
        wire::Reported { version: Some(version.to_owned()), certificate: None, at: 5 }
    }

    /// Id, tunnel (connected, since, count) and version of an instance.
    type Told = (String, Option<(bool, i64, u32)>, Option<String>);

    /// What is told next.
    fn told(book: &mut Book) -> Vec<Told> {
        let facts = book.next().unwrap_or_default();
        let each = facts.instances.into_iter().map(|facts| {
            let tunnel = facts.tunnel.map(|tunnel| (tunnel.connected, tunnel.since, tunnel.count));
            (facts.id, tunnel, facts.reported.and_then(|reported| reported.version))
        });
        each.collect()
    }

    #[test]
    fn only_what_is_new_is_told_and_a_renewed_tunnel_is_no_interruption() {
        let mut book = Book::default();
        book.tunnels(id("a"), None, 1);
        assert!(book.next().is_none(), "never there");
        book.tunnels(id("a"), Some(open(1, 10)), 11);
        assert_eq!(told(&mut book), [("homes/a".to_owned(), Some((true, 10, 1)), None)]);
        book.tunnels(id("a"), Some(open(1, 10)), 12);
        assert!(book.next().is_none(), "nothing new");
        book.tunnels(id("a"), Some(open(2, 10)), 13);
        book.tunnels(id("a"), Some(open(1, 12)), 14);
        assert!(book.next().is_some_and(|facts| facts.instances[0].tunnel.as_ref().unwrap().since == 10));
        book.reported(id("a"), reported("2026.11.1"));
        assert_eq!(told(&mut book), [("homes/a".to_owned(), None, Some("2026.11.1".to_owned()))]);
        book.tunnels(id("a"), None, 20);
        book.tunnels(id("a"), None, 25);
        assert_eq!(told(&mut book), [("homes/a".to_owned(), Some((false, 20, 0)), None)]);
        book.tunnels(id("a"), Some(open(1, 30)), 31);
        assert_eq!(told(&mut book), [("homes/a".to_owned(), Some((true, 30, 1)), None)]);
    }

    #[test]
    fn a_new_leader_hears_everything_in_batches_and_then_what_came_meanwhile() {
        let mut book = Book::default();
        book.begin();
        let empty = book.next().unwrap();
        assert!(empty.from_the_start && empty.complete && empty.instances.is_empty());
        for at in 0..=MAX_FACTS {
            book.tunnels(id(&format!("{at:05}")), Some(open(1, 1)), 1);
        }
        assert_eq!(book.next().unwrap().instances.len(), MAX_FACTS);
        book.begin();
        let first = book.next().unwrap();
        assert!(first.from_the_start && !first.complete && first.instances.len() == MAX_FACTS);
        // One that was told, and one that was not.
        book.tunnels(id("00000"), None, 7);
        book.tunnels(id(&format!("{MAX_FACTS:05}")), None, 8);
        let second = book.next().unwrap();
        assert!(!second.from_the_start && second.complete);
        assert_eq!(second.instances.len(), 1);
        assert_eq!(told(&mut book), [("homes/00000".to_owned(), Some((false, 7, 0)), None)]);
        assert!(book.next().is_none());
        book.begin();
        assert_eq!(
            book.next().unwrap().instances[0].tunnel.as_ref().unwrap().since,
            7,
            "since when it is gone"
        );
    }

    #[test]
    fn a_message_stays_small_whatever_certificates_look_like() {
        let mut book = Book::default();
        for at in 0..200 {
            let names = (0..100).map(|name| format!("{name:0>250}")).collect();
            let certificate = Some(wire::Certificate { names, ..wire::Certificate::default() });
            book.reported(id(&format!("{at}")), wire::Reported { certificate, ..reported("1") });
        }
        let mut messages = 0;
        while let Some(facts) = book.next() {
            assert!(facts.encoded_len() < PART_BYTES + 30_000, "{}", facts.encoded_len());
            messages += 1;
        }
        assert!(messages > 10);
    }

    #[test]
    fn who_left_the_table_is_forgotten() {
        let mut book = Book::default();
        book.reported(id("a"), reported("1"));
        book.reported(id("b"), reported("2"));
        book.retain(|known| *known == id("b"));
        assert_eq!(told(&mut book).len(), 1);
        book.begin();
        assert_eq!(told(&mut book)[0].0, "homes/b");
    }
}
