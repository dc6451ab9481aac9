//! A folder of manifests, with its state folder: objects are files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use manifest_folder::{Cache, Defaults, Reading, Shell, StateFolder};
use resources::Timestamp;
use route_table::{Fingerprint, InstanceId};
use scenarios::{Instant, ObjectRef, Outcome, SEED, Surroundings, World};
use serde_json::Value;

pub(crate) struct FolderWorld {
    root: tempfile::TempDir,
    cache: Cache,
    /// `None` only while a process takes the place of another: the state folder belongs to one.
    shell: Option<Shell>,
    surroundings: Surroundings,
    enrolled: BTreeMap<InstanceId, BTreeSet<Fingerprint>>,
}

fn text<'o>(object: &'o Value, pointer: &str) -> &'o str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn reference(object: &Value) -> ObjectRef {
    let name = text(object, "/metadata/name");
    match text(object, "/kind") {
        "RemoteInstance" => ObjectRef::Instance(format!("{}/{name}", text(object, "/metadata/namespace"))),
        _ => ObjectRef::Block(name.to_owned()),
    }
}

impl FolderWorld {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("manifests")).unwrap();
        let state = root.path().join("state");
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
        let seed = state.join("seed");
        fs::write(&seed, Fingerprint::from_bytes(SEED).to_string()).unwrap();
        fs::set_permissions(&seed, fs::Permissions::from_mode(0o600)).unwrap();
        let shell = open(&state);
        Self {
            root,
            cache: Cache::default(),
            shell: Some(shell),
            surroundings: Surroundings::default(),
            enrolled: BTreeMap::new(),
        }
    }

    fn manifests(&self) -> PathBuf {
        self.root.path().join("manifests")
    }

    fn shell(&mut self) -> &mut Shell {
        self.shell.as_mut().unwrap()
    }

    fn file_of(&self, object: &ObjectRef) -> PathBuf {
        let name = match object {
            ObjectRef::Instance(id) => format!("instance-{}.yaml", id.replace('/', "-in-")),
            ObjectRef::Block(name) => format!("block-{name}.yaml"),
        };
        self.manifests().join(name)
    }

    fn read(&mut self, now: Timestamp) {
        let reading = Reading::of_path(&self.manifests(), &mut self.cache);
        self.shell().take(&reading, now);
    }

    /// Keys join and leave by the ways they have in a folder.
    fn enrol(&mut self, wanted: &BTreeMap<String, Vec<String>>) {
        for (id, keys) in wanted {
            let id: InstanceId = id.parse().unwrap();
            let keys: BTreeSet<Fingerprint> = keys.iter().map(|key| key.parse().unwrap()).collect();
            let known = self.enrolled.insert(id.clone(), keys.clone()).unwrap_or_default();
            for key in known.difference(&keys) {
                assert!(self.shell().remove_key(&id, key).unwrap());
            }
            for key in keys.difference(&known) {
                assert!(self.shell().enrol(&id, *key).unwrap());
            }
        }
    }
}

fn open(state: &std::path::Path) -> Shell {
    Shell::open(StateFolder::open(state).unwrap(), Defaults::default()).unwrap()
}

impl World for FolderWorld {
    fn play(&mut self, instant: &Instant<'_>) -> Result<Outcome, String> {
        if instant.restart {
            drop(self.shell.take());
            self.shell = Some(open(&self.root.path().join("state")));
            self.cache = Cache::default();
            self.surroundings.restart();
        }
        fs::write(self.manifests().join("installation.yaml"), instant.installation.to_string()).unwrap();
        for gone in instant.delete {
            fs::remove_file(self.file_of(gone)).unwrap();
        }
        // A folder takes no times from manifests; objects that say theirs come in that order.
        let mut by_time: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for object in instant.apply {
            by_time.entry(text(object, "/metadata/creationTimestamp")).or_default().push(object);
        }
        let groups = i64::try_from(by_time.len()).unwrap();
        for (group, objects) in (1..).zip(by_time.into_values()) {
            for object in objects {
                fs::write(self.file_of(&reference(object)), object.to_string()).unwrap();
            }
            if group < groups {
                self.read(instant.now.plus_seconds(group - groups));
            }
        }
        self.read(instant.now);
        self.enrol(instant.enrolled);
        let shell = self.shell.as_mut().unwrap();
        let outcome = self.surroundings.play(instant, |facts| {
            shell
                .step(instant.now, facts.clone())
                .ok_or_else(|| format!("the installation's settings make no sense: {:?}", shell.faults()))
        })?;
        self.shell().save().map_err(|error| error.to_string())?;
        Ok(outcome)
    }
}
