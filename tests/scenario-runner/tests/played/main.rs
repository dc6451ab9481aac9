//! Every scenario of `tests/scenarios`, played wherever something plans.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a helper that fails is a test that fails"
)]

mod folder_world;

use std::path::{Path, PathBuf};

use folder_world::FolderWorld;
use scenarios::{Need, PlannerWorld, Scenario, World, play, read_folder, read_text};

/// Fewer mean that some were lost, or that the folder is another one.
const LEAST: usize = 60;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn scenarios() -> Vec<(PathBuf, Scenario)> {
    let folder = folder();
    let scenarios = read_folder(&folder).unwrap_or_else(|error| panic!("{error}"));
    assert!(scenarios.len() >= LEAST, "only {} scenarios in {}", scenarios.len(), folder.display());
    scenarios
}

/// Plays all that are asked for; `SCENARIO=part-of-a-name` asks for some.
fn play_all<W: World>(scenarios: &[(PathBuf, Scenario)], world: impl Fn() -> W) {
    let only = std::env::var("SCENARIO").ok();
    let mut failed = Vec::new();
    for (path, scenario) in scenarios {
        let file = path.file_stem().unwrap().to_string_lossy();
        if only.as_ref().is_some_and(|part| !file.contains(part.as_str())) {
            continue;
        }
        if let Err(failure) = play(scenario, &mut world()) {
            eprintln!("{file}: {}\n{failure}", scenario.title);
            failed.push(file);
        }
    }
    assert!(failed.is_empty(), "{} of {} came out differently: {failed:?}", failed.len(), scenarios.len());
}

#[test]
fn by_the_planner() {
    let mut scenarios = scenarios();
    // What was there before is for a shell to keep; the planner alone sees what is there.
    scenarios.retain(|(_, scenario)| !scenario.needs.contains(&Need::RemembersDeleted));
    play_all(&scenarios, PlannerWorld::default);
}

#[test]
fn by_a_folder_of_manifests() {
    let mut scenarios = scenarios();
    // A folder refuses to change what an API server would refuse to change, and keeps what objects meant.
    let cannot = [Need::MutableFields, Need::ForgetfulRestart];
    scenarios.retain(|(_, scenario)| !cannot.iter().any(|need| scenario.needs.contains(need)));
    assert!(scenarios.len() >= LEAST);
    play_all(&scenarios, FolderWorld::new);
}

#[test]
fn every_title_is_said_once() {
    let scenarios = scenarios();
    let mut titles: Vec<&str> = scenarios.iter().map(|(_, scenario)| scenario.title.as_str()).collect();
    titles.sort_unstable();
    titles.dedup();
    assert_eq!(titles.len(), scenarios.len());
}

#[test]
fn the_example_in_the_readme_holds() {
    let readme = folder().join("README.md");
    let text = std::fs::read_to_string(&readme).unwrap();
    let (_, example) = text.split_once("```yaml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    play_all(&[(readme, read_text(example).unwrap())], PlannerWorld::default);
}
