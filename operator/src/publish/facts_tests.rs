use planner::CertificateFacts;
use route_table::{Fingerprint, Route};

use super::*;

/// 2026-11-21T10:00:00Z.
const NOW: i64 = 1_795_255_200;
const HOUR: i64 = 3_600;

fn id(name: &str) -> InstanceId {
    format!("homes/{name}").parse().unwrap()
}

fn tunnel(name: &str, connected: bool, since: i64) -> Told {
    let tunnel =
        Tunnel { connected, since: Timestamp(since), agent_version: None, protocol_version: Some(2) };
    Told { id: id(name), tunnel: Some(tunnel), reported: None }
}

fn version(name: &str, version: &str) -> Told {
    let reported = Reported { version: Some(version.to_owned()), certificate: None };
    Told { id: id(name), tunnel: None, reported: Some(reported) }
}

fn table(names: &[&str]) -> Routes {
    names.iter().map(|name| (id(name), Route::new(id(name)))).collect()
}

/// Facts, and a clock.
struct Story {
    facts: Facts,
    now: i64,
    table: Option<Routes>,
    strangers: usize,
}

impl Story {
    fn new() -> Self {
        Self { facts: Facts::default(), now: NOW, table: None, strangers: 10 }
    }

    fn batch(&mut self, proxy: &str, from_the_start: bool, complete: bool, told: Vec<Told>) -> Taken {
        let batch = Batch { from_the_start, complete, told };
        let proxy: Arc<str> = proxy.into();
        let taken = self.facts.take(&proxy, batch, self.table.as_ref(), self.strangers, Timestamp(self.now));
        self.facts.forget(&proxy, &taken.unnamed);
        taken
    }

    /// A proxy that attaches tells all it has.
    fn all(&mut self, proxy: &str, told: Vec<Told>) -> Taken {
        self.batch(proxy, true, true, told)
    }

    fn news(&mut self, proxy: &str, told: Told) -> Taken {
        self.batch(proxy, false, false, vec![told])
    }

    fn gone(&mut self, proxy: &str) {
        let held = self.facts.held_by(proxy);
        self.facts.cut(proxy, &held, Timestamp(self.now));
    }

    fn tunnel(&self, name: &str) -> Option<(bool, i64)> {
        let reports = self.facts.reports();
        let tunnel = reports.get(&id(name))?.tunnel.as_ref()?;
        Some((tunnel.connected, tunnel.since.0 - NOW))
    }

    fn version(&self, name: &str) -> Option<String> {
        self.facts.reports().get(&id(name))?.version.clone()
    }
}

#[test]
fn a_tunnel_that_moved_is_up_whichever_proxy_speaks_last() {
    let mut story = Story::new();
    story.all("a", vec![tunnel("house", true, NOW - 500)]);
    story.all("b", vec![]);
    assert_eq!(story.tunnel("house"), Some((true, -500)));
    story.now += 10;
    story.news("b", tunnel("house", true, NOW + 9));
    assert_eq!(story.tunnel("house"), Some((true, 9)), "what was heard last");
    story.news("a", tunnel("house", false, NOW + 10));
    assert_eq!(story.tunnel("house"), Some((true, 9)), "one that is up counts before one that is not");
    story.now += 10;
    story.news("b", tunnel("house", false, NOW + 20));
    assert_eq!(story.tunnel("house"), Some((false, 20)));
}

#[test]
fn the_clock_of_a_proxy_is_off_by_an_hour() {
    for off in [HOUR, -HOUR] {
        let mut story = Story::new();
        story.all("right", vec![]);
        story.all("wrong", vec![]);
        story.news("wrong", tunnel("house", true, NOW + off));
        let up = story.tunnel("house").unwrap();
        assert!(up.0 && (-60..=0).contains(&up.1), "{up:?}");
        // It goes down at the wrong one and up at the right one: who is ahead has no advantage.
        story.now += 100;
        story.news("wrong", tunnel("house", false, story.now + off));
        story.news("right", tunnel("house", true, story.now));
        assert_eq!(story.tunnel("house"), Some((true, 100)));
        story.now += 100;
        story.news("right", tunnel("house", false, story.now));
        assert_eq!(story.tunnel("house"), Some((false, 200)));
        // The same for what agents report.
        story.news("wrong", version("house", "1"));
        story.news("right", version("house", "2"));
        assert_eq!(story.version("house").as_deref(), Some("2"));
    }
}

#[test]
fn what_lies_in_the_future_stays_where_it_was_put() {
    let mut story = Story::new();
    story.all("a", vec![tunnel("house", true, NOW + HOUR)]);
    assert_eq!(story.tunnel("house"), Some((true, 0)));
    story.now += 300;
    let taken = story.all("a", vec![tunnel("house", true, NOW + HOUR)]);
    assert_eq!((story.tunnel("house"), taken.changed), (Some((true, 0)), false));
}

#[test]
fn what_is_not_named_again_is_forgotten() {
    let mut story = Story::new();
    story.all("a", vec![tunnel("house", true, NOW - 9), tunnel("barn", true, NOW - 9), version("barn", "1")]);
    story.batch("a", true, false, vec![tunnel("house", true, NOW - 9)]);
    assert_eq!(story.tunnel("barn"), Some((true, -9)), "absence says nothing yet");
    story.batch("a", false, false, vec![]);
    story.batch("a", false, true, vec![tunnel("mill", true, NOW - 9)]);
    assert_eq!([story.tunnel("house"), story.tunnel("barn")], [Some((true, -9)), None]);
    assert_eq!((story.version("barn"), story.facts.reports().len()), (None, 2));
}

#[test]
fn a_new_round_forgets_members_too_and_keeps_what_other_proxies_say() {
    let mut story = Story::new();
    story.all("a", vec![tunnel("house", true, NOW - 9), version("house", "1")]);
    story.news("b", version("house", "2"));
    story.all("a", vec![tunnel("house", true, NOW - 9)]);
    assert_eq!((story.tunnel("house"), story.version("house").as_deref()), (Some((true, -9)), Some("2")));
    story.all("b", vec![]);
    assert_eq!((story.tunnel("house"), story.version("house")), (Some((true, -9)), None));
}

#[test]
fn a_proxy_that_is_gone_takes_its_tunnels_along_unless_another_has_them() {
    let mut story = Story::new();
    story.all("a", vec![tunnel("house", true, NOW - 9), tunnel("barn", true, NOW - 9), version("barn", "7")]);
    story.all("b", vec![tunnel("house", true, NOW - 5)]);
    story.now += 15;
    story.gone("a");
    assert_eq!([story.tunnel("house"), story.tunnel("barn")], [Some((true, -5)), Some((false, 15))]);
    assert_eq!(story.version("barn").as_deref(), Some("7"), "what is known of it stays");
    // It is back, with one of them.
    story.all("a", vec![tunnel("barn", true, NOW - 9)]);
    assert_eq!(story.tunnel("barn"), Some((true, -9)));
}

#[test]
fn nothing_new_is_no_news() {
    let mut story = Story::new();
    assert!(story.all("a", vec![tunnel("house", true, NOW - 9)]).changed);
    let before = story.facts.reports();
    assert!(!story.all("a", vec![tunnel("house", true, NOW - 9)]).changed);
    assert!(!story.news("b", tunnel("house", false, NOW - 1)).changed);
    assert!(before.ptr_eq(&story.facts.reports()));
}

#[test]
fn a_report_has_parts_of_two_proxies() {
    let mut story = Story::new();
    let certificate = CertificateFacts {
        fingerprint: Fingerprint::from_bytes([1; 32]),
        names: vec![],
        issuer: None,
        not_after: None,
        acme_account_uri: None,
        strange: imbl::OrdSet::new(),
    };
    let reported = Reported { version: Some("1".to_owned()), certificate: Some(certificate.clone()) };
    story.news("a", Told { id: id("house"), tunnel: None, reported: Some(reported) });
    story.news("b", tunnel("house", true, NOW));
    let reports = story.facts.reports();
    let report = reports.get(&id("house")).unwrap();
    assert_eq!((report.version.as_deref(), &report.certificate), (Some("1"), &Some(certificate)));
    assert!(report.tunnel.as_ref().unwrap().connected);
}

#[test]
fn strangers_are_bounded_and_swept_away() {
    let mut story = Story::new();
    (story.table, story.strangers) = (Some(table(&["house"])), 2);
    let strangers = |from: u32, to: u32| (from..to).map(|at| tunnel(&format!("stranger-{at}"), false, NOW));
    let taken = story.all("a", strangers(0, 5).collect());
    assert_eq!((taken.dropped, story.facts.reports().len()), (2, 3));
    // Who is in the table has always room.
    assert_eq!(story.news("a", tunnel("house", true, NOW)).dropped, 0);
    assert_eq!(story.facts.reports().len(), 1, "too many then: those that are no more are forgotten");
    assert_eq!(story.tunnel("house"), Some((true, 0)));
    // As long as no table is known, everybody is welcome.
    let mut story = Story::new();
    story.strangers = 0;
    assert_eq!(story.all("a", strangers(0, 5).collect()).dropped, 0);
}
