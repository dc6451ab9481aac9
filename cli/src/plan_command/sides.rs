//! The plan before and the plan after.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use imbl::OrdMap;
use manifest_folder::{
    Cache, Defaults, Fault, Good, MAX_FILE_BYTES, PassedOver, Reading, Shell, StateFolder, Subject,
};
use planner::{Facts, Plan, Proof, ProofAnswer, Report, Seed, Settings, Timestamp};
use resources::RemoteInstance;
use route_table::InstanceId;
use serde::Deserialize;
use serde_json::Value;

use super::{PlanArgs, versions};
use crate::output;

/// Stands for an installation's seed where nobody knows it. Names made from it are shown as `<random>`.
const UNKNOWN_SEED: [u8; 32] = [0; 32];

/// Both plans.
pub(crate) struct Sides {
    pub(crate) before: Option<Plan>,
    pub(crate) after: Plan,
    pub(crate) settings_before: Option<Arc<Settings>>,
    pub(crate) settings: Arc<Settings>,
    /// Are random names the ones that instances will have?
    pub(crate) seed_is_known: bool,
    /// Version blocks that block nobody.
    pub(crate) warning_blocks: BTreeSet<String>,
    pub(crate) warning_blocks_before: BTreeSet<String>,
    pub(crate) passed_over: Vec<PassedOver>,
}

/// Why there is no plan.
pub(crate) enum Refused {
    /// Manifests are invalid.
    Faults(Vec<Fault>),
    /// Anything else.
    Other(String),
}

impl From<String> for Refused {
    fn from(told: String) -> Self {
        Self::Other(told)
    }
}

/// Reads what the arguments name, and plans.
pub(crate) fn read(args: &PlanArgs) -> Result<Sides, Refused> {
    let reports = match &args.versions {
        Some(file) => versions::read(file)?,
        None => OrdMap::new(),
    };
    let (mut shell, seed_is_known) = shell(args.state.as_deref())?;
    let now = now();
    let mut before = None;
    if let Some(path) = &args.against {
        let reading = read_manifests(path)?;
        shell.take(&reading, now);
        warn_of_base(path, shell.faults());
        before = shell.step(now, facts(shell.objects(), |object| &object.document, &reports, now));
    } else if args.state.is_some() {
        let facts = facts(shell.last_good(), |good| &good.document, &reports, now);
        before = shell.last_plan(now, facts);
    }
    let settings_before = before.as_ref().and(shell.settings().cloned());
    let warning_blocks_before = warning_blocks(&shell);
    let reading = read_manifests(&args.manifests)?;
    shell.take(&reading, now);
    if !shell.faults().is_empty() {
        return Err(Refused::Faults(shell.faults().to_vec()));
    }
    let after = shell.step(now, facts(shell.objects(), |object| &object.document, &reports, now));
    let passed_over = shell.passed_over().to_vec();
    match (after, shell.settings().cloned()) {
        (Some(after), Some(settings)) => {
            let warning_blocks = warning_blocks(&shell);
            Ok(Sides {
                before,
                after,
                settings_before,
                settings,
                seed_is_known,
                warning_blocks,
                warning_blocks_before,
                passed_over,
            })
        }
        _ => {
            Err(Refused::Other("nobody knows the settings: the folder's Installation is invalid".to_owned()))
        }
    }
}

fn shell(state: Option<&Path>) -> Result<(Shell, bool), String> {
    let Some(state) = state else {
        return Ok((Shell::with_seed(Seed::new(UNKNOWN_SEED), Defaults::default()), false));
    };
    let looked = StateFolder::existing(state).and_then(|folder| Shell::look(&folder, Defaults::default()));
    match looked.map_err(|error| error.to_string())? {
        Some(shell) => Ok((shell, true)),
        None => Err(format!(
            "{}: there is no seed here; `latchkey up` keeps its state elsewhere",
            state.display()
        )),
    }
}

fn read_manifests(path: &Path) -> Result<Reading, String> {
    if path.as_os_str() != "-" {
        return Ok(Reading::of_path(path, &mut Cache::default()));
    }
    let mut text = String::new();
    let limit = MAX_FILE_BYTES as u64;
    let read = std::io::stdin().lock().take(limit + 1).read_to_string(&mut text);
    match read {
        Err(error) => Err(format!("standard input: {error}")),
        Ok(length) if length as u64 > limit => Err(format!("standard input: is larger than {limit} bytes")),
        Ok(_) => Ok(Reading::of_text("standard input", &text)),
    }
}

/// What was wrong before is nothing that this change did, but it makes the comparison less than whole.
fn warn_of_base(path: &Path, faults: &[Fault]) {
    if let Some(first) = faults.first() {
        let more = if faults.len() > 1 { format!(" and {} more", faults.len() - 1) } else { String::new() };
        output::complain(&format!(
            "warning: {} has mistakes of its own, and what they are about is compared as far as it can be read: \
             {first}{more}",
            path.display()
        ));
    }
}

/// What a pipeline can know: reported versions, where given. Custom domains are taken as proven, else nothing could be
/// said of them.
fn facts<T>(
    objects: &BTreeMap<Subject, T>,
    document: impl Fn(&T) -> &Arc<Value>,
    reports: &OrdMap<InstanceId, Arc<Report>>,
    now: Timestamp,
) -> Facts {
    let mut facts = Facts { reports: reports.clone(), ..Facts::default() };
    for (subject, object) in objects {
        let Subject::Instance(id) = subject else { continue };
        let Ok(instance) = RemoteInstance::deserialize(&**document(object)) else { continue };
        for domain in instance.spec.custom_domains {
            let proof = Proof { answer: Some((ProofAnswer::Txt, now)), missing_since: None, trouble: None };
            facts.proofs.insert((domain, id.clone()), proof);
        }
    }
    facts
}

fn warning_blocks(shell: &Shell) -> BTreeSet<String> {
    let warns = |good: &Good| good.document.pointer("/spec/action").and_then(Value::as_str) == Some("Warn");
    let blocks = shell.last_good().iter().filter(|(_, good)| warns(good));
    blocks
        .filter_map(|(subject, _)| if let Subject::Block(name) = subject { Some(name.clone()) } else { None })
        .collect()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
