//! From readings of a folder to plans: what a cluster's API server and operator are for resources, this is for a
//! folder. It asks no clock and watches nothing, so that scenarios can drive it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use imbl::OrdMap;
use planner::{Facts, Inventory, Plan, Previous, ReleasedLabel, Seed, Settings, plan};
use resources::{
    AGENT_KEYS_ANNOTATION, InstallationSpec, Observed, Parts, RemoteInstance, Timestamp, VersionBlock,
};
use route_table::{Fingerprint, HostName, InstanceId};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::fault::Fault;
use crate::files::Reading;
use crate::manifest::{PassedOver, Subject, observed};
use crate::settle::{Good, InForce, InstallationChoice, LastGood, Settled, settle};
use crate::state::{Enrolled, Memory, Released, Remembered, StateError, StateFolder};

/// The installation of a folder that names none.
pub const DEFAULT_INSTALLATION: &str = "default";
/// Its domain: browsers resolve names below it to this machine.
pub const DEFAULT_DOMAIN: &str = "localhost";

/// What holds where no `Installation` states something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// The port in URLs.
    pub public_port: u16,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { public_port: 443 }
    }
}

/// Why an agent's key was not kept.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// There are too many.
    #[error(transparent)]
    TooMany(#[from] crate::state::TooManyKeys),
    /// It cannot be written down.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A folder's objects, what is remembered of them, and the plans made.
#[derive(Debug)]
pub struct Shell {
    folder: Option<StateFolder>,
    seed: Seed,
    enrolled: Enrolled,
    memory: Memory,
    /// The memory as it is on disk.
    written: Option<Memory>,
    defaults: Defaults,
    good: LastGood,
    settled: Option<Settled>,
    settings: Option<Arc<Settings>>,
    instances: OrdMap<InstanceId, Arc<Observed<RemoteInstance>>>,
    blocks: OrdMap<String, Arc<Observed<VersionBlock>>>,
    /// What each object in the inventory was made from.
    made_from: HashMap<Subject, Arc<Ingredients>>,
    previous: Option<Previous>,
}

#[derive(Debug, PartialEq)]
struct Ingredients {
    document: Arc<Value>,
    problem: Option<(String, String)>,
    created: Timestamp,
    generation: i64,
    keys: Vec<Fingerprint>,
}

impl Shell {
    /// With the state of a folder; the seed is made where there is none.
    pub fn open(folder: StateFolder, defaults: Defaults) -> Result<Self, StateError> {
        let (seed, enrolled, memory) = (folder.seed()?, Enrolled::read(&folder)?, Memory::read(&folder)?);
        let mut shell = Self::with_seed(seed, defaults);
        shell.recall(enrolled, memory);
        shell.folder = Some(folder);
        Ok(shell)
    }

    /// With what a state folder holds, which stays as it is: to look at what would be. `None` where it was never used.
    pub fn look(folder: &StateFolder, defaults: Defaults) -> Result<Option<Self>, StateError> {
        let Some(seed) = folder.existing_seed()? else { return Ok(None) };
        let mut shell = Self::with_seed(seed, defaults);
        shell.recall(Enrolled::read(folder)?, Memory::read(folder)?);
        Ok(Some(shell))
    }

    /// Without a state folder: everything is seen for the first time, and forgotten afterwards.
    pub fn with_seed(seed: Seed, defaults: Defaults) -> Self {
        Self {
            folder: None,
            seed,
            enrolled: Enrolled::default(),
            memory: Memory::default(),
            written: None,
            defaults,
            good: LastGood::new(),
            settled: None,
            settings: None,
            instances: OrdMap::new(),
            blocks: OrdMap::new(),
            made_from: HashMap::new(),
            previous: None,
        }
    }

    fn recall(&mut self, enrolled: Enrolled, memory: Memory) {
        self.enrolled = enrolled;
        for (key, remembered) in &memory.objects {
            if let (Some(subject), Some(document)) = (subject_of(key), &remembered.good) {
                let file = remembered.file.clone().unwrap_or_default();
                self.good.insert(subject, Good { file, document: Arc::clone(document) });
            }
        }
        self.written = Some(memory.clone());
        self.memory = memory;
    }

    /// Takes in what the folder holds now.
    pub fn take(&mut self, reading: &Reading, now: Timestamp) {
        let settled = settle(reading, &self.good);
        self.remember(&settled, now);
        self.settings = self.settings_from(&settled.installation).or_else(|| self.settings.take());
        self.good.clone_from(&settled.good);
        self.settled = Some(settled);
        self.rebuild();
    }

    /// Everything that is wrong with the folder.
    pub fn faults(&self) -> &[Fault] {
        self.settled.as_ref().map_or(&[], |settled| &settled.faults)
    }

    /// Documents of others.
    pub fn passed_over(&self) -> &[PassedOver] {
        self.settled.as_ref().map_or(&[], |settled| &settled.passed_over)
    }

    /// The objects in force.
    pub fn objects(&self) -> &BTreeMap<Subject, InForce> {
        static NONE: BTreeMap<Subject, InForce> = BTreeMap::new();
        self.settled.as_ref().map_or(&NONE, |settled| &settled.objects)
    }

    /// The last good form of each object.
    pub fn last_good(&self) -> &LastGood {
        &self.good
    }

    /// The installation's settings; `None` while nobody knows them: its only document makes no sense.
    pub fn settings(&self) -> Option<&Arc<Settings>> {
        self.settings.as_ref()
    }

    /// What the planner gets; `None` while the settings are not known.
    pub fn inventory(&self, facts: Facts) -> Option<Inventory> {
        let (settings, instances, blocks) =
            (Arc::clone(self.settings.as_ref()?), self.instances.clone(), self.blocks.clone());
        Some(Inventory { settings, instances, blocks, facts })
    }

    /// Makes the next plan; `None` while the settings are not known. Labels given up are this shell's own fact.
    pub fn step(&mut self, now: Timestamp, mut facts: Facts) -> Option<Plan> {
        let released = self.memory.released.iter();
        facts.released = released
            .filter_map(|(label, released)| {
                let by = released.by.parse().ok()?;
                Some((label.clone(), ReleasedLabel { by, at: released.at }))
            })
            .collect();
        let inventory = self.inventory(facts)?;
        let previous = match self.previous.take() {
            Some(previous) => previous,
            None => self.recalled(inventory.clone(), now).map(|(_, previous)| previous).unwrap_or_default(),
        };
        let (plan, previous) = plan(&inventory, &previous, now);
        self.previous = Some(previous);
        self.note(&plan);
        Some(plan)
    }

    /// The plan as it was when the state was saved last, as far as objects and their statuses tell; `None` where there
    /// was none. Ask before the first [`Self::step`].
    pub fn last_plan(&mut self, now: Timestamp, facts: Facts) -> Option<Plan> {
        let settings = match &self.settings {
            Some(settings) => Arc::clone(settings),
            None => self.settings_from(&InstallationChoice::last(&self.good))?,
        };
        self.settings = Some(Arc::clone(&settings));
        let inventory = Inventory { settings, instances: OrdMap::new(), blocks: OrdMap::new(), facts };
        let (plan, previous) = self.recalled(inventory, now)?;
        self.previous = Some(previous);
        Some(plan)
    }

    /// What was decided before this process began. An object that makes no sense now made some then: the last good
    /// forms are planned once, so that the planner knows them. So are objects whose manifests went away meanwhile: their
    /// labels were given up.
    fn recalled(&self, mut before: Inventory, now: Timestamp) -> Option<(Plan, Previous)> {
        let memory = self.written.as_ref().unwrap_or(&self.memory);
        if memory.revision == 0 {
            return None;
        }
        before.facts.applied.revision.get_or_insert(memory.revision);
        (before.instances, before.blocks) = (OrdMap::new(), OrdMap::new());
        for (key, remembered) in &memory.objects {
            let (Some(subject), Some(good)) = (subject_of(key), &remembered.good) else { continue };
            let mut document = self.complete(&subject, good, remembered.created, remembered.generation);
            if let (Some(status), Some(members)) = (&remembered.status, document.as_object_mut()) {
                members.insert("status".to_owned(), status.clone());
            }
            match subject {
                Subject::Instance(id) => put(&mut before.instances, id, document, None),
                Subject::Block(name) => put(&mut before.blocks, name, document, None),
                Subject::Installation => {}
            }
        }
        Some(plan(&before, &Previous::restore(&before), now))
    }

    fn note(&mut self, plan: &Plan) {
        self.memory.revision = plan.revision;
        let released = plan.released.iter();
        self.memory.released = released
            .map(|(label, given_up)| {
                (label.clone(), Released { by: given_up.by.to_string(), at: given_up.at })
            })
            .collect();
        for (id, status) in &plan.instances {
            self.note_status(&Subject::Instance(id.clone()), serde_json::to_value(&**status).ok());
        }
        for (name, status) in &plan.blocks {
            self.note_status(&Subject::Block(name.clone()), serde_json::to_value(&**status).ok());
        }
    }

    fn note_status(&mut self, subject: &Subject, status: Option<Value>) {
        if let Some(remembered) = self.memory.objects.get_mut(&key_of(subject)) {
            remembered.status = status;
        }
    }

    /// Keeps what the next process has to know. Call it once a plan is in force.
    pub fn save(&mut self) -> Result<(), StateError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        if self.written.as_ref() != Some(&self.memory) {
            self.memory.write(folder)?;
            self.written = Some(self.memory.clone());
        }
        Ok(())
    }

    /// Keeps the key of an agent that joined: `true` where it is new. The next plan knows it.
    pub fn enrol(&mut self, id: &InstanceId, key: Fingerprint) -> Result<bool, EnrolError> {
        let mut enrolled = self.enrolled.clone();
        if !enrolled.add(id.clone(), key)? {
            return Ok(false);
        }
        self.keep(enrolled)?;
        Ok(true)
    }

    /// Takes the key of an agent away: `true` where it was there.
    pub fn remove_key(&mut self, id: &InstanceId, key: &Fingerprint) -> Result<bool, StateError> {
        let mut enrolled = self.enrolled.clone();
        if !enrolled.remove(id, key) {
            return Ok(false);
        }
        self.keep(enrolled)?;
        Ok(true)
    }

    /// On disk first: a key that is in force but forgotten would be worse than one that has to be sent again.
    fn keep(&mut self, enrolled: Enrolled) -> Result<(), StateError> {
        if let Some(folder) = &self.folder {
            enrolled.write(folder)?;
        }
        self.enrolled = enrolled;
        self.rebuild();
        Ok(())
    }

    fn settings_from(&self, choice: &InstallationChoice) -> Option<Arc<Settings>> {
        let (name, spec) = match choice {
            InstallationChoice::Unknown => return None,
            InstallationChoice::Unstated => (DEFAULT_INSTALLATION.to_owned(), default_spec(self.defaults)?),
            InstallationChoice::Stated(stated) => {
                let mut spec = stated.spec.clone();
                if !stated.states_public_port {
                    spec.public_port = self.defaults.public_port;
                }
                (stated.name.clone(), spec)
            }
        };
        let settings = Settings { name, spec, seed: self.seed.clone() };
        // The same settings are the same Arc: the planner then looks at nobody again because of them.
        match &self.settings {
            Some(present) if **present == settings => Some(Arc::clone(present)),
            _ => Some(Arc::new(settings)),
        }
    }

    fn remember(&mut self, settled: &Settled, now: Timestamp) {
        let mut before = std::mem::take(&mut self.memory.objects);
        let installation = settled.good.get_key_value(&Subject::Installation);
        for (subject, object) in &settled.objects {
            let key = key_of(subject);
            let spec = hash_of_spec(&object.document);
            let good = settled.good.get(subject);
            let mut remembered = before.remove(&key).unwrap_or_else(|| Remembered {
                created: now,
                generation: 1,
                spec: spec.clone(),
                file: None,
                good: None,
                status: None,
            });
            if remembered.spec != spec {
                remembered.generation += 1;
                remembered.spec = spec;
            }
            remembered.file = good.map(|good| good.file.clone());
            remembered.good = good.map(|good| Arc::clone(&good.document));
            self.memory.objects.insert(key, remembered);
        }
        if let Some((subject, good)) = installation {
            let remembered = Remembered {
                created: now,
                generation: 1,
                spec: hash_of_spec(&good.document),
                file: Some(good.file.clone()),
                good: Some(Arc::clone(&good.document)),
                status: None,
            };
            let key = key_of(subject);
            let known = before.remove(&key).filter(|known| known.spec == remembered.spec);
            self.memory.objects.insert(key, known.unwrap_or(remembered));
        }
    }

    /// Makes objects for the planner. What did not change stays the same `Arc`: the planner sees that at a glance.
    fn rebuild(&mut self) {
        let Some(settled) = &self.settled else { return };
        let mut seen = BTreeSet::new();
        for (subject, object) in &settled.objects {
            seen.insert(subject.clone());
            let Some(remembered) = self.memory.objects.get(&key_of(subject)) else { continue };
            let ingredients = Ingredients {
                document: Arc::clone(&object.document),
                problem: object.problem.clone(),
                created: remembered.created,
                generation: remembered.generation,
                keys: self.keys_of(subject),
            };
            if self.made_from.get(subject).is_some_and(|made| **made == ingredients) {
                continue;
            }
            let document =
                self.complete(subject, &object.document, remembered.created, remembered.generation);
            match subject {
                Subject::Instance(id) => {
                    put(&mut self.instances, id.clone(), document, object.problem.as_ref());
                }
                Subject::Block(name) => {
                    put(&mut self.blocks, name.clone(), document, object.problem.as_ref());
                }
                Subject::Installation => {}
            }
            self.made_from.insert(subject.clone(), Arc::new(ingredients));
        }
        for (gone, _) in self.made_from.extract_if(|subject, _| !seen.contains(subject)) {
            match gone {
                Subject::Instance(id) => drop(self.instances.remove(&id)),
                Subject::Block(name) => drop(self.blocks.remove(&name)),
                Subject::Installation => {}
            }
        }
    }

    fn keys_of(&self, subject: &Subject) -> Vec<Fingerprint> {
        match subject {
            Subject::Instance(id) => self.enrolled.of(id).copied().collect(),
            Subject::Block(_) | Subject::Installation => Vec::new(),
        }
    }

    /// The document with what an API server, and the enrolment there, would have written into it.
    fn complete(&self, subject: &Subject, document: &Value, created: Timestamp, generation: i64) -> Value {
        let mut document = document.clone();
        let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut) else {
            return document;
        };
        metadata.insert("creationTimestamp".to_owned(), json!(created));
        metadata.insert("generation".to_owned(), json!(generation));
        let enrolled = self.keys_of(subject);
        if !enrolled.is_empty() {
            let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
            if let Some(annotations) = annotations.as_object_mut() {
                let stated =
                    annotations.get(AGENT_KEYS_ANNOTATION).and_then(Value::as_str).unwrap_or_default();
                let stated =
                    stated.split(',').map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned);
                let all: BTreeSet<String> = stated.chain(enrolled.iter().map(ToString::to_string)).collect();
                let text = all.into_iter().collect::<Vec<_>>().join(",");
                annotations.insert(AGENT_KEYS_ANNOTATION.to_owned(), Value::String(text));
            }
        }
        document
    }
}

fn put<K: Ord + Clone, T: Parts>(
    objects: &mut OrdMap<K, Arc<Observed<T>>>,
    key: K,
    document: Value,
    problem: Option<&(String, String)>,
) {
    // Every object here has metadata that makes sense, so there always is one.
    match observed(document, problem) {
        Some(object) => drop(objects.insert(key, Arc::new(object))),
        None => drop(objects.remove(&key)),
    }
}

fn default_spec(defaults: Defaults) -> Option<InstallationSpec> {
    let domain: HostName = DEFAULT_DOMAIN.parse().ok()?;
    serde_json::from_value(json!({"domain": domain, "publicPort": defaults.public_port})).ok()
}

fn key_of(subject: &Subject) -> String {
    match subject {
        Subject::Instance(id) => format!("RemoteInstance/{id}"),
        Subject::Block(name) => format!("VersionBlock/{name}"),
        Subject::Installation => "Installation".to_owned(),
    }
}

fn subject_of(key: &str) -> Option<Subject> {
    match key.split_once('/') {
        Some(("RemoteInstance", id)) => id.parse().ok().map(Subject::Instance),
        Some(("VersionBlock", name)) => Some(Subject::Block(name.to_owned())),
        _ => (key == "Installation").then_some(Subject::Installation),
    }
}

fn hash_of_spec(document: &Value) -> String {
    let spec = document.get("spec").unwrap_or(&Value::Null).to_string();
    Fingerprint::from_bytes(Sha256::digest(spec.as_bytes()).into()).to_string()
}

#[cfg(test)]
#[path = "shell_tests.rs"]
mod tests;
