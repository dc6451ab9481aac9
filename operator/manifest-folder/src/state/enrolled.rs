//! Keys of agents that joined. In a cluster they stand in an annotation; here Git is never written, so they stand here.

use std::collections::{BTreeMap, BTreeSet};

use route_table::{Fingerprint, InstanceId};
use serde::{Deserialize, Serialize};

use super::folder::{StateError, StateFolder};

const FILE: &str = "enrolled.json";
const VERSION: u32 = 1;
const HELP: &str = "mend it, or remove it and let every agent join again";

/// Most keys of an instance: as many as a route can have.
pub const MAX_KEYS_PER_INSTANCE: usize = route_table::MAX_AGENT_KEYS_PER_ROUTE;

/// Keys by instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Enrolled {
    keys: BTreeMap<InstanceId, BTreeSet<Fingerprint>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    keys: BTreeMap<String, BTreeSet<Fingerprint>>,
}

impl Enrolled {
    /// The keys in a state folder.
    pub fn read(folder: &StateFolder) -> Result<Self, StateError> {
        let Some(written) = folder.read_json::<Written>(FILE, HELP)? else { return Ok(Self::default()) };
        if written.version != VERSION {
            let problem = format!("it has version {}, and this build knows {VERSION}", written.version);
            return Err(folder.damaged(FILE, problem, HELP));
        }
        let read = written.keys.into_iter().map(|(id, keys)| Ok((id.parse::<InstanceId>()?, keys)));
        let keys: Result<_, route_table::InstanceIdError> = read.collect();
        Ok(Self { keys: keys.map_err(|error| folder.damaged(FILE, error.to_string(), HELP))? })
    }

    /// Keeps them.
    pub fn write(&self, folder: &StateFolder) -> Result<(), StateError> {
        let keys = self.keys.iter().map(|(id, keys)| (id.to_string(), keys.clone())).collect();
        folder.write_json(FILE, &Written { version: VERSION, keys })
    }

    /// The keys of an instance.
    pub fn of<'k>(&'k self, id: &InstanceId) -> impl Iterator<Item = &'k Fingerprint> + use<'k> {
        self.keys.get(id).into_iter().flatten()
    }

    /// Adds a key; `false` where it was there.
    pub fn add(&mut self, id: InstanceId, key: Fingerprint) -> Result<bool, TooManyKeys> {
        let keys = self.keys.entry(id).or_default();
        if keys.len() >= MAX_KEYS_PER_INSTANCE && !keys.contains(&key) {
            return Err(TooManyKeys);
        }
        Ok(keys.insert(key))
    }

    /// Takes a key away; `false` where it was not there.
    pub fn remove(&mut self, id: &InstanceId, key: &Fingerprint) -> bool {
        let Some(keys) = self.keys.get_mut(id) else { return false };
        let removed = keys.remove(key);
        if keys.is_empty() {
            self.keys.remove(id);
        }
        removed
    }
}

/// An instance has as many keys as it can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the instance has {MAX_KEYS_PER_INSTANCE} enrolled keys already; remove those of agents that are gone"
)]
pub struct TooManyKeys;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Fingerprint {
        Fingerprint::from_bytes([byte; 32])
    }

    #[test]
    fn keys_are_kept_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(&dir.path().join("state")).unwrap();
        let id: InstanceId = "homes/lake".parse().unwrap();
        let mut enrolled = Enrolled::read(&folder).unwrap();
        assert_eq!(enrolled, Enrolled::default());
        assert_eq!(enrolled.add(id.clone(), key(1)), Ok(true));
        assert_eq!(enrolled.add(id.clone(), key(1)), Ok(false));
        enrolled.write(&folder).unwrap();
        let mut again = Enrolled::read(&folder).unwrap();
        assert_eq!(again, enrolled);
        assert_eq!(again.of(&id).collect::<Vec<_>>(), [&key(1)]);
        for byte in 2..=64 {
            assert_eq!(again.add(id.clone(), key(byte)), Ok(true));
        }
        assert_eq!(again.add(id.clone(), key(65)), Err(TooManyKeys));
        assert_eq!(again.add(id.clone(), key(64)), Ok(false));
        assert!(again.remove(&id, &key(1)) && !again.remove(&id, &key(1)));
    }

    #[test]
    fn a_damaged_file_is_told_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(&dir.path().join("state")).unwrap();
        for damaged in ["", "{", r#"{"version": 2, "keys": {}}"#, r#"{"version": 1, "keys": {"x": []}}"#] {
            folder.write(FILE, damaged.as_bytes()).unwrap();
            let told = Enrolled::read(&folder).unwrap_err().to_string();
            assert!(told.contains("enrolled.json"), "{told}");
            assert_eq!(folder.read(FILE).unwrap().unwrap(), damaged.as_bytes());
        }
    }
}
