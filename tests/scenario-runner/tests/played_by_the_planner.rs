//! Every scenario of `tests/scenarios`, played by the planner alone.

use std::path::Path;

use scenarios::{PlannerWorld, play, read_folder};

/// Fewer mean that some were lost, or that the folder is another one.
const LEAST: usize = 60;

#[test]
fn every_scenario_comes_out_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let only = std::env::var("SCENARIO").ok();
    let scenarios = read_folder(&folder).unwrap_or_else(|error| panic!("{error}"));
    assert!(scenarios.len() >= LEAST, "only {} scenarios in {}", scenarios.len(), folder.display());
    let mut failed = 0;
    for (path, scenario) in &scenarios {
        let file = path.file_stem().unwrap().to_string_lossy();
        if only.as_ref().is_some_and(|part| !file.contains(part.as_str())) {
            continue;
        }
        if let Err(failure) = play(scenario, &mut PlannerWorld::default()) {
            eprintln!("{file}: {}\n{failure}", scenario.title);
            failed += 1;
        }
    }
    assert_eq!(failed, 0, "of {} scenarios", scenarios.len());
}
