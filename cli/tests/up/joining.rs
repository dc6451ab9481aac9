//! `latchkey join`, and an agent of its own that joins with the bundle.

use std::{path::Path, process::Output};

use crate::{
    agent::Agent,
    support::{Place, Up, fingerprint, instance, is_private, latchkey, origin, text},
};

fn join(place: &Place, output: &Path, more: &[&str]) -> Output {
    let (manifests, state) = (place.manifests(), place.state());
    let output = output.to_str().unwrap();
    let mut args = vec!["join", "default/far", &manifests, "--state", &state, "-o", output];
    args.extend_from_slice(more);
    latchkey(&args)
}

#[test]
fn an_agent_joins_once_with_its_bundle_and_is_known_after_a_restart() {
    let place = Place::new();
    place.write("far.yaml", &instance("far", None, "  enabled: true\n  hostname: far\n"));
    let target = origin("from far away").to_string();
    let bundle = place.path("far.json");
    let early = join(&place, &bundle, &[]);
    assert!(
        !early.status.success() && text(&early.stderr).contains("start it first"),
        "{}",
        text(&early.stderr)
    );

    let mut up = Up::start(&place);
    let port = up.port;
    up.until("it is planned", |told| told["instance"] == "default/far");
    let made = join(&place, &bundle, &[]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(is_private(&bundle) && made.stdout.is_empty());
    let token = serde_json::from_slice::<serde_json::Value>(&std::fs::read(&bundle).unwrap()).unwrap();
    let token = token["joinToken"].as_str().unwrap();
    assert!(!text(&made.stderr).contains(token), "the token is never printed");
    let kept = std::fs::read_to_string(place.path("state/join-tokens.json")).unwrap();
    assert!(!kept.contains(token), "only its hash is kept");

    let agent = Agent::start(&bundle, &place.path("agent"), &target);
    let row = up.ready("default/far");
    let seen = up.visit("far.localhost").unwrap();
    assert!(seen.body.ends_with("from far away"), "{}", seen.body);
    assert_eq!(seen.fingerprint, fingerprint(&row));

    // Whoever finds the bundle later has nothing.
    let _thief = Agent::start(&bundle, &place.path("thief"), &target);
    let said = up.complains("used before, by another agent");
    assert!(said.contains("422"), "{said}");
    assert!(!said.contains(token));

    up.stop();
    let mut up = Up::start_on(&place, port, &[]);
    up.ready("default/far");
    assert!(up.visit("far.localhost").unwrap().body.ends_with("from far away"));
    drop(agent);
}

#[test]
fn a_bundle_is_for_an_instance_there_is_and_lands_in_a_file_of_its_own() {
    let place = Place::new();
    place.write("near.yaml", &instance("near", None, "  enabled: true\n  hostname: near\n"));
    let mut up = Up::start(&place);
    up.until("it is planned", |told| told["instance"] == "default/near");
    let bundle = place.path("bundle.json");
    let unknown = join(&place, &bundle, &[]);
    assert!(
        text(&unknown.stderr)
            .contains("there is no instance default/far; `latchkey up` knows of default/near")
    );
    assert!(!bundle.exists());
    place.write("far.yaml", &instance("far", None, "  enabled: true\n  hostname: far\n"));
    up.until("it is planned", |told| told["instance"] == "default/far");
    std::fs::write(&bundle, "somebody's").unwrap();
    let taken = join(&place, &bundle, &[]);
    assert!(text(&taken.stderr).contains("remove it, or name another file"), "{}", text(&taken.stderr));
    assert_eq!(std::fs::read_to_string(&bundle).unwrap(), "somebody's");
    let printed = join(&place, Path::new("-"), &["--server", "tunnel.example.com:443", "--valid", "30m"]);
    let printed: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(printed["server"], "tunnel.example.com:443");
    assert_eq!(printed["serverName"], "connect.localhost");
    assert!(!join(&place, Path::new("-"), &["--valid", "1y"]).status.success());
}
