//! `crds/` is what the types say.

use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn the_folder_is_what_the_types_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    let there: BTreeMap<String, String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    let meant: BTreeMap<String, String> = resources::crds::files().unwrap().into_iter().collect();
    assert_eq!(there.keys().collect::<Vec<_>>(), meant.keys().collect::<Vec<_>>());
    for (name, text) in &meant {
        assert!(
            &there[name] == text,
            "crds/{name} is stale: cargo run -p resources --example generate-crds, and commit what it writes"
        );
    }
}

#[test]
fn what_is_written_reads_as_the_same_definition() {
    for (definition, (name, text)) in
        resources::crds::definitions().into_iter().zip(resources::crds::files().unwrap())
    {
        let read: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(read, serde_json::to_value(&definition).unwrap(), "{name}");
    }
}
