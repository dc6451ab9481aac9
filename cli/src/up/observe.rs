//! What the folder says, as `up` takes it in: manifests, targets, and the plans that follow.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use imbl::OrdMap;
use manifest_folder::{
    DEFAULT_INSTALLATION, Defaults, Fault, FolderWatch, ManifestFolder, Reading, Shell, StateError,
    StateFolder, Subject,
};
use planner::{Applied, Facts, Plan, Proof, ProofAnswer, Report, Settings};
use resources::{Observed, RemoteInstance, TARGET_ANNOTATION, Timestamp};
use route_table::{Fingerprint, HostName, InstanceId};

use super::{agents::Wanted, running::now};
use crate::plan_command::{color, faults::render_one};

/// The folder of manifests, its state, and the plans made.
#[derive(Debug)]
pub struct Observer {
    folder: ManifestFolder,
    shell: Shell,
    settings: Arc<Settings>,
    /// The installation, where the folder states none.
    unstated: Option<Reading>,
    trust_domains: bool,
    /// Keys of agents of this process.
    lent: BTreeMap<InstanceId, Fingerprint>,
    /// Complaints made already, so that each is made once.
    complained: BTreeSet<String>,
}

impl Observer {
    /// Reads the folder for the first time. An error where there is nothing to begin with. `domain` is the one of a folder
    /// that states none.
    pub async fn open(
        folder: &Path,
        state: StateFolder,
        defaults: Defaults,
        domain: Option<&HostName>,
        trust_domains: bool,
    ) -> Result<Self, String> {
        let unstated = domain.map(installation);
        let folder = ManifestFolder::open(folder, FolderWatch::default()).await;
        let mut shell = Shell::open(state, defaults).map_err(|error| error.to_string())?;
        shell.take(&complete(&folder.snapshot(), unstated.as_ref()), now());
        let Some(settings) = shell.settings().cloned() else {
            let faults: String = shell.faults().iter().map(told).collect();
            return Err(format!(
                "the folder's Installation makes no sense, so there is no domain to serve\n{faults}"
            ));
        };
        let (lent, complained) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { folder, shell, settings, unstated, trust_domains, lent, complained })
    }

    /// Returns when the folder has changed, and was read. What makes no sense leaves what was in force before.
    pub async fn changed(&mut self) {
        let reading = self.folder.changed().await;
        self.shell.take(&complete(&reading, self.unstated.as_ref()), now());
        if let Some(settings) = self.shell.settings() {
            self.settings = settings.clone();
        }
    }

    /// The installation's domain.
    pub fn domain(&self) -> &HostName {
        &self.settings.spec.domain
    }

    /// Where agents are told to open their tunnels, if not where they asked.
    pub fn tunnel_address(&self) -> Option<String> {
        self.settings.spec.tunnel_address.clone()
    }

    fn instances(&self) -> OrdMap<InstanceId, Arc<Observed<RemoteInstance>>> {
        self.shell.inventory(Facts::default()).map(|inventory| inventory.instances).unwrap_or_default()
    }

    /// Where instances listen on this machine, as far as they say so.
    pub fn targets(&self) -> BTreeMap<InstanceId, Wanted> {
        let target = |object: &Observed<RemoteInstance>| {
            object.about().annotations.get(TARGET_ANNOTATION).map(Wanted::read)
        };
        self.instances().iter().filter_map(|(id, object)| Some((id.clone(), target(object)?))).collect()
    }

    /// Registers the keys of this process's agents, and takes back those of agents that are wanted no more.
    pub fn lend_keys(&mut self, keys: BTreeMap<InstanceId, Fingerprint>) -> Result<(), String> {
        if self.lent == keys {
            return Ok(());
        }
        for (id, key) in self.lent.iter().filter(|(id, key)| keys.get(*id) != Some(*key)) {
            self.shell.remove_key(id, key).map_err(|error| error.to_string())?;
        }
        for (id, key) in &keys {
            self.shell.enrol(id, *key).map_err(|error| format!("{id}: {error}"))?;
        }
        self.lent = keys;
        Ok(())
    }

    /// Keeps the key of an agent that joined.
    pub fn enrol(&mut self, id: &InstanceId, key: Fingerprint) -> Result<(), String> {
        self.shell.enrol(id, key).map(drop).map_err(|error| error.to_string())
    }

    /// The next plan.
    pub fn plan(
        &mut self,
        reports: &OrdMap<InstanceId, Arc<Report>>,
        applied: Applied,
        now: Timestamp,
    ) -> Result<Plan, String> {
        let proofs = if self.trust_domains { self.trusted(now) } else { OrdMap::new() };
        let facts = Facts { proofs, reports: reports.clone(), applied, ..Facts::default() };
        self.shell.step(now, facts).ok_or_else(|| "the folder has no installation any more".to_owned())
    }

    /// Keeps what the next process has to know.
    pub fn save(&mut self) -> Result<(), StateError> {
        self.shell.save()
    }

    /// With `--trust-domains`, whoever writes the folder is believed.
    fn trusted(&self, now: Timestamp) -> OrdMap<(HostName, InstanceId), Proof> {
        let proof = Proof { answer: Some((ProofAnswer::Txt, now)), missing_since: None, trouble: None };
        let mut proofs = OrdMap::new();
        for (id, object) in &self.instances() {
            let Observed::Readable(instance) = &**object else { continue };
            for domain in &instance.spec.custom_domains {
                proofs.insert((domain.clone(), id.clone()), proof.clone());
            }
        }
        proofs
    }

    /// What is wrong with the folder now, one line each.
    pub fn problems(&self) -> Vec<String> {
        self.shell.faults().iter().map(ToString::to_string).collect()
    }

    /// Complaints, with the place and a caret, that were not made before. Who mends a mistake and makes it again hears of
    /// it again.
    pub fn complaints(&mut self) -> Vec<String> {
        let reports: BTreeSet<String> = self.shell.faults().iter().map(told).collect();
        let fresh = reports.difference(&self.complained).cloned().collect();
        self.complained = reports;
        fresh
    }
}

/// A mistake with its place, for standard error.
fn told(fault: &Fault) -> String {
    render_one(fault, color::wanted(&io::stderr()))
}

/// The document that a folder could have held.
fn installation(domain: &HostName) -> Reading {
    let document = serde_json::json!({
        "apiVersion": resources::API_VERSION,
        "kind": "Installation",
        "metadata": {"name": DEFAULT_INSTALLATION},
        "spec": {"domain": domain},
    });
    Reading::of_text("--domain", &document.to_string())
}

/// The folder, with the installation of the command line where it states none.
fn complete(reading: &Reading, unstated: Option<&Reading>) -> Reading {
    let mut reading = reading.clone();
    let mut objects = reading.files.values().flat_map(|file| &file.objects);
    let states_one = objects.any(|object| object.subject == Subject::Installation);
    if let Some(unstated) = unstated.filter(|_| !states_one) {
        reading.files.extend(unstated.files.clone());
    }
    reading
}
