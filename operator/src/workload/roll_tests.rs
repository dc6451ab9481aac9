use super::*;

const OLD: &str = "old";
const NEW: &str = "new";

/// Pods, proxies and the time of a test.
struct World {
    roll: Roll,
    pods: Pods,
    lost: BTreeMap<String, Instant>,
    proxies: BTreeMap<String, ProxySeen>,
    replicas: u32,
    wanted: Option<&'static str>,
    settings: RollSettings,
    now: Instant,
    made: u32,
}

impl World {
    /// Ready pods of the old template, each with 100 tunnels; a new template is wanted.
    fn of(replicas: u32) -> Self {
        let mut world = Self {
            roll: Roll::default(),
            pods: Pods::new(),
            lost: BTreeMap::new(),
            proxies: BTreeMap::new(),
            replicas,
            wanted: Some(NEW),
            settings: RollSettings::default(),
            now: Instant::now(),
            made: 0,
        };
        for ordinal in 0..replicas {
            world.make(ordinal, OLD).ready = true;
            world.attach(ordinal, 100);
        }
        world
    }

    fn make(&mut self, ordinal: u32, revision: &str) -> &mut ProxyPod {
        self.made += 1;
        let pod = ProxyPod {
            name: name(ordinal),
            uid: format!("uid-{}", self.made),
            ordinal,
            revision: revision.to_owned(),
            ready: false,
            is_ending: false,
            trouble: None,
            node: None,
        };
        self.pods.insert(name(ordinal), pod);
        self.pods.get_mut(&name(ordinal)).unwrap()
    }

    fn attach(&mut self, ordinal: u32, tunnels: u64) {
        self.proxies.insert(name(ordinal), ProxySeen { is_current: true, tunnels });
    }

    fn pod(&mut self, ordinal: u32) -> &mut ProxyPod {
        self.pods.get_mut(&name(ordinal)).unwrap()
    }

    fn next(&mut self) -> Action {
        let seen = Seen {
            replicas: self.replicas,
            wanted: self.wanted,
            pods: &self.pods,
            lost: &self.lost,
            proxies: &self.proxies,
            settings: self.settings,
        };
        self.roll.next(&seen, self.now)
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// What the shell does when the API server grants it.
    fn grant(&mut self) -> u32 {
        let action = self.next();
        let Action::Evict { pod, uid } = action else { panic!("{action:?}") };
        let seen = Seen {
            replicas: self.replicas,
            wanted: self.wanted,
            pods: &self.pods,
            lost: &self.lost,
            proxies: &self.proxies,
            settings: self.settings,
        };
        self.roll.evicted(&pod, &uid, &seen, self.now);
        self.pods[&pod].ordinal
    }

    /// The evicted pod ends and a new one of the wanted template takes its place, not ready yet.
    fn replace(&mut self, ordinal: u32) {
        self.proxies.remove(&name(ordinal));
        let wanted = self.wanted.unwrap();
        self.make(ordinal, wanted);
    }

    #[track_caller]
    fn waits_for(&mut self, what: &str) -> Option<Instant> {
        let action = self.next();
        match action {
            Action::Wait { reason, until } if reason.contains(what) => until,
            other => panic!("not waiting for {what}: {other:?}"),
        }
    }

    #[track_caller]
    fn is_paused_by(&mut self, what: &str) {
        let action = self.next();
        assert!(
            matches!(&action, Action::Paused { reason } if reason.contains(what)),
            "not {what}: {action:?}"
        );
    }

    #[track_caller]
    fn would_evict(&mut self, ordinal: u32) {
        let uid = self.pod(ordinal).uid.clone();
        assert_eq!(self.next(), Action::Evict { pod: name(ordinal), uid });
    }
}

fn name(ordinal: u32) -> String {
    format!("proxy-{ordinal}")
}

#[test]
fn row_1_a_pod_on_a_lost_node_is_deleted_by_force_after_a_minute() {
    let mut world = World::of(3);
    world.wanted = Some(OLD);
    world.lost.insert(name(1), world.now);
    world.pod(1).ready = false;
    world.pass(59);
    assert_eq!(world.next(), Action::Done);
    world.pass(1);
    let uid = world.pod(1).uid.clone();
    let delete = Action::ForceDelete { pod: name(1), uid };
    assert_eq!(world.next(), delete);
    // Also while it is being deleted the slow way, and whatever else is going on.
    world.pod(1).is_ending = true;
    world.wanted = None;
    assert_eq!(world.next(), delete);
}

#[test]
fn row_1_one_lost_pod_after_the_other() {
    let mut world = World::of(3);
    world.wanted = Some(OLD);
    for ordinal in 0..3 {
        world.lost.insert(name(ordinal), world.now);
        world.pod(ordinal).ready = false;
    }
    world.pass(60);
    let uid = world.pod(2).uid.clone();
    assert_eq!(world.next(), Action::ForceDelete { pod: name(2), uid });
    world.pods.remove(&name(2));
    world.lost.remove(&name(2));
    assert_eq!(world.next(), Action::Done, "the next one waits until there is another pod");
    world.make(2, OLD);
    assert_eq!(world.next(), Action::Done, "... that is ready");
    world.pod(2).ready = true;
    let uid = world.pod(1).uid.clone();
    assert_eq!(world.next(), Action::ForceDelete { pod: name(1), uid });
    // One that will not be ready holds nobody up.
    world.pod(2).ready = false;
    world.pod(2).trouble = Some("CrashLoopBackOff".to_owned());
    assert!(matches!(world.next(), Action::ForceDelete { .. }));
}

#[test]
fn row_2_the_controller_comes_first() {
    let mut world = World::of(2);
    world.wanted = None;
    world.waits_for("has not seen the settings");
}

#[test]
fn row_3_nothing_old_is_done() {
    let mut world = World::of(2);
    world.wanted = Some(OLD);
    assert_eq!(world.next(), Action::Done);
    world.pod(0).ready = false;
    world.pods.remove(&name(1));
    assert_eq!(world.next(), Action::Done, "what is not well is not the roll's matter");
}

#[test]
fn row_4_who_is_ending_has_time() {
    let mut world = World::of(3);
    let evicted = world.grant();
    assert_eq!(evicted, 2);
    // The watch is behind: the pod looks as before.
    world.waits_for("proxy-2 is ending");
    world.pod(2).is_ending = true;
    world.pass(3600);
    world.waits_for("proxy-2 is ending");
    world.replace(2);
    let until = world.waits_for("proxy-2 is not ready yet");
    assert_eq!(until, Some(world.now + Duration::from_mins(5)), "its time begins when the place is free");
}

#[test]
fn row_5_a_missing_pod_is_waited_for_and_pauses_the_roll() {
    let mut world = World::of(3);
    world.grant();
    world.pods.remove(&name(2));
    world.waits_for("number 2 is not made");
    world.pass(300);
    world.is_paused_by("number 2 was not made within 300 s");
    // Somebody else's doing counts as well.
    let mut world = World::of(3);
    world.pods.remove(&name(0));
    world.waits_for("number 0");
    world.pass(300);
    world.is_paused_by("number 0");
}

#[test]
fn row_6_a_pod_that_cannot_start_pauses_at_once() {
    let mut world = World::of(3);
    world.grant();
    world.replace(2);
    world.pod(2).trouble = Some("ImagePullBackOff: no such image".to_owned());
    world.is_paused_by("proxy-2 does not start: ImagePullBackOff: no such image");
}

#[test]
fn row_7_a_pod_that_is_not_ready_in_time_pauses_and_comes_to_itself() {
    let mut world = World::of(3);
    world.grant();
    world.replace(2);
    world.waits_for("proxy-2 is not ready");
    world.pass(300);
    world.is_paused_by("proxy-2 was not ready within 300 s");
    world.pod(2).ready = true;
    world.attach(2, 100);
    world.would_evict(1);
}

/// A new leader remembers no step: new pods must be ready all the same.
#[test]
fn row_7_holds_without_memory() {
    let mut world = World::of(3);
    world.make(2, NEW);
    world.waits_for("proxy-2 is not ready");
    world.pass(299);
    world.waits_for("proxy-2 is not ready");
    world.pass(1);
    world.is_paused_by("proxy-2");
}

#[test]
fn row_8_the_current_routes_come_before_the_next_pod() {
    let mut world = World::of(3);
    world.grant();
    world.replace(2);
    world.pod(2).ready = true;
    world.waits_for("proxy-2 with the current routes");
    world.attach(2, 100);
    world.proxies.get_mut(&name(2)).unwrap().is_current = false;
    world.waits_for("proxy-2 with the current routes");
    world.pass(300);
    world.is_paused_by("current routes");
    world.attach(2, 100);
    world.would_evict(1);
}

#[test]
fn row_9_tunnels_are_waited_for_wherever_they_went() {
    let mut world = World::of(3);
    world.grant();
    world.replace(2);
    world.pod(2).ready = true;
    world.attach(2, 0);
    let until = world.waits_for("100 of the 100 tunnels that proxy-2 held are not back");
    assert_eq!(until, Some(world.now + Duration::from_mins(10)));
    world.attach(1, 150);
    world.attach(2, 39);
    world.waits_for("11 of the 100");
    world.attach(2, 40);
    world.would_evict(1);
}

#[test]
fn row_9_time_is_up() {
    let mut world = World::of(3);
    world.grant();
    world.replace(2);
    world.pod(2).ready = true;
    world.attach(2, 0);
    world.waits_for("not back");
    world.pass(599);
    world.waits_for("not back");
    world.pass(1);
    world.would_evict(1);
}

#[test]
fn row_10_a_refused_eviction_is_tried_again_later() {
    let mut world = World::of(3);
    world.would_evict(2);
    world.roll.refused("proxy-2", "the budget says so", world.now);
    let until = world.waits_for("proxy-2 must not be evicted yet: the budget says so");
    assert_eq!(until, Some(world.now + AGAIN_AFTER));
    world.pass(10);
    world.would_evict(2);
}

#[test]
fn row_11_who_is_not_ready_goes_first() {
    let mut world = World::of(4);
    world.pod(0).ready = false;
    world.pod(1).ready = false;
    world.would_evict(1);
}

#[test]
fn row_12_one_at_a_time_from_the_highest_number() {
    let mut world = World::of(3);
    let mut order = Vec::new();
    for _ in 0..3 {
        let ordinal = world.grant();
        order.push(ordinal);
        world.replace(ordinal);
        world.waits_for("not ready");
        world.pod(ordinal).ready = true;
        world.attach(ordinal, 100);
    }
    assert_eq!(order, [2, 1, 0]);
    assert_eq!(world.next(), Action::Done);
}

#[test]
fn a_rollback_takes_the_bad_pod_alone() {
    let mut world = World::of(3);
    world.grant();
    world.replace(2);
    world.pod(2).trouble = Some("CrashLoopBackOff".to_owned());
    world.is_paused_by("CrashLoopBackOff");
    world.pass(1000);
    world.wanted = Some(OLD);
    assert_eq!(world.grant(), 2);
    world.replace(2);
    world.pod(2).ready = true;
    world.attach(2, 0);
    assert_eq!(world.next(), Action::Done);
}

#[test]
fn a_third_template_replaces_the_bad_pod_first() {
    let mut world = World::of(3);
    world.grant();
    world.replace(2);
    world.pod(2).trouble = Some("CrashLoopBackOff".to_owned());
    world.wanted = Some("third");
    world.would_evict(2);
}

#[test]
fn who_is_scaled_away_is_not_waited_for() {
    let mut world = World::of(3);
    world.grant();
    world.replicas = 2;
    world.pod(2).is_ending = true;
    // The step was about a pod that is not wanted any more, but its tunnels are.
    world.proxies.remove(&name(2));
    world.waits_for("not back");
    world.attach(0, 200);
    world.would_evict(1);
}
