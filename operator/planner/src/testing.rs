//! What several tests need.

use resources::InstallationSpec;
use route_table::InstanceId;

use crate::inventory::{Seed, Settings};

pub(crate) fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

pub(crate) fn settings() -> Settings {
    let spec: InstallationSpec = serde_json::from_str(r#"{"domain": "ui.example.com"}"#).unwrap();
    Settings { name: "default".to_owned(), spec, seed: Seed::new([7; 32]) }
}
