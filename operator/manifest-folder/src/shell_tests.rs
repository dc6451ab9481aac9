use std::path::Path;

use planner::{Applied, Proof, ProofAnswer};
use resources::condition::Truth;

use super::*;
use crate::files::Reading;

const NOW: Timestamp = Timestamp(1_795_255_200);

fn instance(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstance\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn block(name: &str, versions: &str) -> String {
    format!(
        "---\napiVersion: latchkey.dev/v1alpha1\nkind: VersionBlock\nmetadata: {{name: {name}}}\nspec: {{versions: [\"{versions}\"], reason: hole}}\n"
    )
}

fn installation(domain: &str) -> String {
    format!(
        "---\napiVersion: latchkey.dev/v1alpha1\nkind: Installation\nmetadata: {{name: home}}\nspec: {{domain: {domain}}}\n"
    )
}

fn reading(text: &str) -> Reading {
    Reading::of_text("a.yaml", text)
}

fn opened(state: &Path) -> Shell {
    Shell::open(StateFolder::open(state).unwrap(), Defaults::default()).unwrap()
}

fn hosts(plan: &Plan, id: &str) -> Vec<String> {
    plan.routes
        .get(id)
        .map(|route| route.hostnames.iter().map(ToString::to_string).collect())
        .unwrap_or_default()
}

fn ready(plan: &Plan, id: &str) -> (Truth, String) {
    let conditions = &plan.instances[id].conditions;
    let ready = conditions.iter().find(|each| each.kind == "Ready").unwrap();
    (ready.status, ready.reason.to_string())
}

#[test]
fn a_folder_becomes_a_plan_under_the_default_installation() {
    let mut shell = Shell::with_seed(Seed::new([7; 32]), Defaults { public_port: 8443 });
    shell.take(&reading(&instance("lake", "enabled: true, hostname: lake")), NOW);
    let plan = shell.step(NOW, Facts::default()).unwrap();
    assert!(hosts(&plan, "default/lake").contains(&"lake.localhost".to_owned()), "{plan:?}");
    assert_eq!(plan.instances["default/lake"].url.as_deref(), Some("https://lake.localhost:8443"));
    let settings = shell.settings().unwrap();
    assert_eq!((settings.name.as_str(), settings.spec.domain.as_str()), ("default", "localhost"));
}

#[test]
fn a_stated_port_wins_over_the_default_one() {
    for (spec, port) in [("domain: a.example", 8443), ("domain: a.example, publicPort: 443", 443)] {
        let mut shell = Shell::with_seed(Seed::new([7; 32]), Defaults { public_port: 8443 });
        shell.take(&reading(&installation(&spec["domain: ".len()..])), NOW);
        assert_eq!(shell.settings().unwrap().spec.public_port, port, "{spec}");
    }
}

#[test]
fn without_settings_there_is_no_plan_and_broken_settings_change_nothing() {
    let mut shell = Shell::with_seed(Seed::new([7; 32]), Defaults::default());
    let lake = instance("lake", "enabled: true, hostname: lake");
    shell.take(&reading(&(installation("\"*\"") + &lake)), NOW);
    assert!(shell.step(NOW, Facts::default()).is_none());
    shell.take(&reading(&(installation("a.example") + &lake)), NOW);
    let plan = shell.step(NOW, Facts::default()).unwrap();
    shell.take(&reading(&(installation("\"*\"") + &lake)), NOW);
    let again = shell.step(NOW, Facts::default()).unwrap();
    assert_eq!(
        (again.revision, hosts(&again, "default/lake")),
        (plan.revision, hosts(&plan, "default/lake"))
    );
    assert_eq!(shell.faults().len(), 1);
}

#[test]
fn what_did_not_change_stays_the_same_arc_and_generations_count_specs() {
    let mut shell = Shell::with_seed(Seed::new([7; 32]), Defaults::default());
    let object = |shell: &Shell, id: &str| Arc::clone(&shell.instances[id]);
    shell.take(&reading(&(instance("a", "") + &instance("b", ""))), NOW);
    let (a, b) = (object(&shell, "default/a"), object(&shell, "default/b"));
    let later = NOW.plus_seconds(60);
    shell.take(&reading(&(instance("a", "") + &instance("b", "tunnels: 2"))), later);
    assert!(Arc::ptr_eq(&a, &object(&shell, "default/a")));
    assert!(!Arc::ptr_eq(&b, &object(&shell, "default/b")));
    let facts = |shell: &Shell, id: &str| {
        let object = object(shell, id);
        (object.about().generation, object.about().created)
    };
    assert_eq!(facts(&shell, "default/a"), (Some(1), Some(NOW)));
    assert_eq!(facts(&shell, "default/b"), (Some(2), Some(NOW)));
    shell.take(&reading(&instance("b", "tunnels: 2")), later);
    assert!(shell.instances.get("default/a").is_none());
    shell.take(&reading(&(instance("a", "") + &instance("b", "tunnels: 2"))), later);
    assert_eq!(facts(&shell, "default/a"), (Some(1), Some(later)), "deleted and made again is young");
}

#[test]
fn an_invalid_object_keeps_its_route_and_switching_off_wins() {
    let mut shell = Shell::with_seed(Seed::new([7; 32]), Defaults::default());
    shell.take(&reading(&instance("lake", "enabled: true, hostname: lake")), NOW);
    let good = hosts(&shell.step(NOW, Facts::default()).unwrap(), "default/lake");
    assert!(!good.is_empty());
    shell.take(&reading(&instance("lake", "enabled: true, hostname: lake, tunnels: 0")), NOW);
    let plan = shell.step(NOW, Facts::default()).unwrap();
    assert_eq!(hosts(&plan, "default/lake"), good);
    assert_eq!(ready(&plan, "default/lake").0, Truth::False);
    shell.take(&reading(&instance("lake", "enabled: false, hostname: lake, tunnels: 0")), NOW);
    let plan = shell.step(NOW, Facts::default()).unwrap();
    assert!(plan.routes.get("default/lake").is_none_or(|route| !route.enabled), "{plan:?}");
}

#[test]
fn a_restart_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let both =
        instance("aaa", "enabled: true, hostname: lake") + &instance("zzz", "enabled: true, hostname: lake");
    let (seed, first, revision) = {
        let mut shell = opened(&state);
        // zzz is younger and comes later in every order, but holds the name.
        shell.take(&reading(&instance("aaa", "enabled: true")), NOW.plus_seconds(-60));
        shell.step(NOW.plus_seconds(-60), Facts::default()).unwrap();
        let zzz = instance("zzz", "enabled: true, hostname: lake");
        shell.take(&reading(&(instance("aaa", "enabled: true") + &zzz)), NOW);
        shell.step(NOW, Facts::default()).unwrap();
        shell.take(&reading(&both), NOW.plus_seconds(10));
        let plan = shell.step(NOW.plus_seconds(10), Facts::default()).unwrap();
        shell.save().unwrap();
        (shell.seed.clone(), (hosts(&plan, "default/aaa"), hosts(&plan, "default/zzz")), plan.revision)
    };
    assert!(
        first.1.contains(&"lake.localhost".to_owned()) && !first.0.contains(&"lake.localhost".to_owned())
    );
    let mut shell = opened(&state);
    assert!(shell.seed == seed);
    shell.take(&reading(&both), NOW.plus_seconds(20));
    let plan = shell.step(NOW.plus_seconds(20), Facts::default()).unwrap();
    assert_eq!((hosts(&plan, "default/aaa"), hosts(&plan, "default/zzz")), first);
    assert!(plan.revision >= revision, "{} < {revision}", plan.revision);
    assert!(plan.events.is_empty(), "{:?}", plan.events);
}

#[test]
fn the_last_plan_is_known_before_the_folder_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut shell = opened(&state);
    assert!(shell.last_plan(NOW, Facts::default()).is_none());
    shell.take(&reading(&(installation("a.example") + &instance("lake", "enabled: true"))), NOW);
    let plan = shell.step(NOW, Facts::default()).unwrap();
    shell.save().unwrap();
    drop(shell);
    let mut shell = opened(&state);
    let last = shell.last_plan(NOW, Facts::default()).unwrap();
    assert_eq!(hosts(&last, "default/lake"), hosts(&plan, "default/lake"));
    shell.take(&reading(""), NOW);
    assert!(shell.step(NOW, Facts::default()).unwrap().routes.is_empty());
}

#[test]
fn a_restart_with_a_broken_file_goes_on_with_the_last_good_plan() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let text =
        instance("one", "enabled: true, hostname: one") + &instance("two", "enabled: true, hostname: two");
    let before = {
        let mut shell = opened(&state);
        shell.take(&reading(&text), NOW);
        let plan = shell.step(NOW, Facts::default()).unwrap();
        shell.save().unwrap();
        plan
    };
    for broken in ["# latchkey\nx: [".to_owned(), text.replace("hostname: two", "hostname: two, tunnels: 0")]
    {
        let mut shell = opened(&state);
        shell.take(&reading(&broken), NOW.plus_seconds(60));
        assert!(!shell.faults().is_empty());
        let plan = shell.step(NOW.plus_seconds(60), Facts::default()).unwrap();
        for id in ["default/one", "default/two"] {
            assert_eq!(hosts(&plan, id), hosts(&before, id), "{broken}");
        }
    }
}

#[test]
fn labels_given_up_stay_taken_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    {
        let mut shell = opened(&state);
        shell.take(&reading(&instance("old", "enabled: true, hostname: lake")), NOW);
        shell.step(NOW, Facts::default()).unwrap();
        shell.take(&reading(&instance("other", "enabled: true")), NOW.plus_seconds(10));
        shell.step(NOW.plus_seconds(10), Facts::default()).unwrap();
        shell.save().unwrap();
    }
    let mut shell = opened(&state);
    shell.take(&reading(&instance("new", "enabled: true, hostname: lake")), NOW.plus_seconds(20));
    let plan = shell.step(NOW.plus_seconds(20), Facts::default()).unwrap();
    assert!(!hosts(&plan, "default/new").contains(&"lake.localhost".to_owned()), "{plan:?}");
    assert!(plan.released.contains_key("lake"));
}

#[test]
fn keys_of_agents_are_merged_kept_and_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let (one, two) = (Fingerprint::from_bytes([1; 32]), Fingerprint::from_bytes([2; 32]));
    let stated = instance("lake", "enabled: true").replace(
        "{name: lake}",
        &format!("{{name: lake, annotations: {{latchkey.dev/agent-keys: \"{one}\"}}}}"),
    );
    let id: InstanceId = "default/lake".parse().unwrap();
    let keys = |plan: &Plan| {
        let mut keys: Vec<_> =
            plan.routes["default/lake"].agent_keys.iter().map(|key| key.fingerprint).collect();
        keys.sort();
        keys
    };
    {
        let mut shell = opened(&state);
        shell.take(&reading(&stated), NOW);
        assert_eq!(keys(&shell.step(NOW, Facts::default()).unwrap()), [one]);
        assert!(shell.enrol(&id, two).unwrap() && !shell.enrol(&id, two).unwrap());
        assert_eq!(keys(&shell.step(NOW, Facts::default()).unwrap()), [one, two]);
    }
    let mut shell = opened(&state);
    shell.take(&reading(&stated), NOW);
    assert_eq!(keys(&shell.step(NOW, Facts::default()).unwrap()), [one, two]);
    assert!(shell.remove_key(&id, &two).unwrap() && !shell.remove_key(&id, &two).unwrap());
    assert_eq!(keys(&shell.step(NOW, Facts::default()).unwrap()), [one]);
}

#[test]
fn looking_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    drop(StateFolder::open(&state).unwrap());
    assert!(Shell::look(&StateFolder::existing(&state).unwrap(), Defaults::default()).unwrap().is_none());
    let mut shell = opened(&state);
    shell.take(&reading(&instance("lake", "enabled: true")), NOW);
    shell.step(NOW, Facts::default()).unwrap();
    shell.save().unwrap();
    let before = std::fs::read(state.join("memory.json")).unwrap();
    let mut looking =
        Shell::look(&StateFolder::existing(&state).unwrap(), Defaults::default()).unwrap().unwrap();
    looking.take(&reading(""), NOW);
    assert!(looking.step(NOW, Facts::default()).unwrap().routes.is_empty());
    looking.save().unwrap();
    assert_eq!(std::fs::read(state.join("memory.json")).unwrap(), before);
}

#[test]
fn damaged_memory_is_told_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    drop(opened(&state));
    StateFolder::open(&state).unwrap().write("memory.json", b"{\"version\": 1").unwrap();
    let told = Shell::open(StateFolder::open(&state).unwrap(), Defaults::default()).unwrap_err().to_string();
    assert!(told.contains("memory.json") && told.contains("mend it"), "{told}");
}

/// Facts of the caller reach the planner: a proof, and that the routes are in force.
#[test]
fn facts_are_the_callers() {
    let mut shell = Shell::with_seed(Seed::new([7; 32]), Defaults::default());
    shell.take(
        &reading(
            &(instance("lake", "enabled: true, customDomains: [home.example.com]") + &block("old", "<1")),
        ),
        NOW,
    );
    let plan = shell.step(NOW, Facts::default()).unwrap();
    assert!(!hosts(&plan, "default/lake").contains(&"home.example.com".to_owned()));
    let mut facts = Facts::default();
    let key = ("home.example.com".parse().unwrap(), "default/lake".parse().unwrap());
    let proof = Proof { answer: Some((ProofAnswer::Txt, NOW)), missing_since: None, trouble: None };
    facts.proofs.insert(key, proof);
    facts.applied = Applied { ready_proxies: 1, revision: Some(plan.revision) };
    let plan = shell.step(NOW.plus_seconds(1), facts).unwrap();
    assert!(hosts(&plan, "default/lake").contains(&"home.example.com".to_owned()));
    assert_eq!(plan.blocks["old"].matched, 0);
}
