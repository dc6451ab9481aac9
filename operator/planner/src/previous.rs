//! What the plan before decided, and what of it can be used again.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use resources::condition::Truth;
use resources::remote_instance::{HostnameKind, HostnameState, VersionSource};
use resources::{Observed, RemoteInstanceStatus, Timestamp, VersionBlockStatus};
use route_table::{Fingerprint, HostName, InstanceId, Route};

use crate::blocks::{Blocks, Judged, Tally};
use crate::claims::Claims;
use crate::conditions::CERTIFICATE_TRUSTED;
use crate::installation::serves_object;
use crate::inventory::{CertificateFacts, Inventory, ReleasedLabel, Report, Tunnel};
use crate::ordered::Ordered;
use crate::status::fingerprints_in;
use crate::wish::Wish;

/// What the plan before decided, and what of it can be used again. Cloning is cheap.
///
/// Two kinds of things are in it. Decisions that later ones depend on: who holds a name, what was told about a tunnel,
/// when a condition changed. And what was worked out: as long as an instance, its facts, the blocks and the settings
/// stay the same, so do its route and its status.
#[derive(Debug, Clone, Default)]
pub struct Previous {
    pub(crate) revision: u64,
    /// Was there a plan at all?
    pub(crate) planned: bool,
    pub(crate) entries: Ordered<InstanceId, Arc<Entry>>,
    pub(crate) routes: Ordered<InstanceId, Route>,
    pub(crate) instances: Ordered<InstanceId, Arc<RemoteInstanceStatus>>,
    pub(crate) block_statuses: OrdMap<String, Arc<VersionBlockStatus>>,
    pub(crate) released: OrdMap<String, ReleasedLabel>,
    /// The list of released labels as it was given.
    pub(crate) released_given: OrdMap<String, ReleasedLabel>,
    pub(crate) blocks: Arc<Blocks>,
    /// Everything that is worth nothing when any of its causes is unknown.
    pub(crate) worked_out: Option<WorkedOut>,
}

/// What spares the next plan from looking at everything.
#[derive(Debug, Clone)]
pub(crate) struct WorkedOut {
    /// What all of it was worked out from.
    pub(crate) inventory: Inventory,
    pub(crate) names: Claims<HostName>,
    pub(crate) keys: Claims<Fingerprint>,
    pub(crate) tallies: Arc<[Tally]>,
    /// Instances whose route came with a revision that not every proxy had, by that revision.
    pub(crate) not_applied: OrdMap<u64, Arc<[InstanceId]>>,
    /// When to look at whom again.
    pub(crate) look_again: OrdSet<(Timestamp, InstanceId)>,
}

/// What was decided about one instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    /// `None` where only its status is known, from before a restart.
    pub(crate) wish: Option<Arc<Wish>>,
    /// The last that was reported of each thing.
    pub(crate) report: Arc<Report>,
    /// Since when its tunnel is told as connected and not reported.
    pub(crate) missed_since: Option<Timestamp>,
    pub(crate) route: Option<Route>,
    /// The revision that brought the route.
    pub(crate) route_revision: u64,
    pub(crate) status: Arc<RemoteInstanceStatus>,
    pub(crate) judged: Option<Arc<Judged>>,
    pub(crate) look_again: Option<Timestamp>,
}

impl Previous {
    /// What can be known after a restart: the objects' own statuses say who holds which name, which version was
    /// reported, what was told of a tunnel, and since when conditions are as they are. So a restart moves no name from
    /// one instance to another, lets no blocked version in, and repeats no event.
    ///
    /// What it cannot know: which of two instances held an agent key that both list (the older object gets it), and
    /// the last sense of an object that makes none now (it has no route until it is mended; its label is kept for it as
    /// one that was given up). The first plan's revision
    /// follows the one that proxies have applied.
    pub fn restore(inventory: &Inventory) -> Self {
        let instance = |(id, object): (&InstanceId, &Arc<Observed<resources::RemoteInstance>>)| {
            let status = match &**object {
                Observed::Readable(object) => (**object.status.as_ref()?).clone(),
                Observed::Unreadable(nonsense) => nonsense.status()?,
            };
            Some((id.clone(), Arc::new(status)))
        };
        let block = |(name, object): (&String, &Arc<Observed<resources::VersionBlock>>)| {
            let status = match &**object {
                Observed::Readable(object) => (**object.status.as_ref()?).clone(),
                Observed::Unreadable(nonsense) => nonsense.status()?,
            };
            Some((name.clone(), Arc::new(status)))
        };
        let instances = inventory.instances.iter().filter_map(instance);
        Self::remember(inventory, instances, inventory.blocks.iter().filter_map(block).collect())
    }

    /// The same from statuses that are kept apart from the objects, in the order of the instances' ids. Statuses that
    /// another installation wrote are none of ours: what it holds, nobody here has given up.
    pub fn remember(
        inventory: &Inventory,
        instances: impl IntoIterator<Item = (InstanceId, Arc<RemoteInstanceStatus>)>,
        blocks: OrdMap<String, Arc<VersionBlockStatus>>,
    ) -> Self {
        let ours = |(id, _): &(InstanceId, Arc<RemoteInstanceStatus>)| {
            let object = inventory.instances.get(id);
            object.is_some_and(|object| serves_object(&inventory.settings, id, object))
        };
        // Of whom nothing was reported there may be many.
        let nothing: Arc<Report> = Arc::default();
        let entry = |(id, status): (InstanceId, Arc<RemoteInstanceStatus>)| {
            let report = report(&status);
            let report = if report == *nothing { Arc::clone(&nothing) } else { Arc::new(report) };
            (id, Arc::new(Entry { report, status, ..Entry::default() }))
        };
        let entries = Ordered::of(instances.into_iter().filter(ours).map(entry));
        let status = |(id, entry): (&InstanceId, &Arc<Entry>)| (id.clone(), Arc::clone(&entry.status));
        Self {
            revision: inventory.facts.applied.revision.unwrap_or_default(),
            instances: Ordered::of(entries.iter().map(status)),
            entries,
            block_statuses: blocks,
            ..Self::default()
        }
    }

    /// The same decisions, with nothing worked out: the next plan looks at everything, and comes to the same. For
    /// whoever wants to see that it does.
    #[must_use]
    pub fn decisions_alone(&self) -> Self {
        Self { worked_out: None, ..self.clone() }
    }
}

/// What a status remembers of reports.
fn report(status: &RemoteInstanceStatus) -> Report {
    let version = status.version.as_ref().filter(|version| version.source == VersionSource::Reported);
    let tunnel = status.tunnel.as_ref().map(|tunnel| Tunnel {
        connected: tunnel.connected,
        since: tunnel.since.unwrap_or_default(),
        agent_version: tunnel.agent_version.clone(),
        protocol_version: tunnel.protocol_version.and_then(|version| version.try_into().ok()),
    });
    let alarm =
        status.conditions.iter().find(|each| each.kind == CERTIFICATE_TRUSTED && each.status == Truth::False);
    let certificate = status.certificate.as_ref().and_then(|certificate| {
        Some(CertificateFacts {
            fingerprint: certificate.fingerprint_sha256.parse().ok()?,
            names: certificate.names.clone(),
            issuer: certificate.issuer.clone(),
            not_after: certificate.not_after,
            acme_account_uri: certificate.acme_account_uri.clone(),
            strange: alarm.map(|alarm| fingerprints_in(&alarm.message).collect()).unwrap_or_default(),
        })
    });
    Report { tunnel, version: version.map(|version| version.effective.clone()), certificate }
}

impl Entry {
    /// Does it serve this custom domain?
    pub(crate) fn serves_domain(&self, domain: &HostName) -> bool {
        self.status.hostnames.iter().any(|each| {
            each.kind == HostnameKind::Custom
                && each.state == HostnameState::Serving
                && each.name == domain.as_str()
        })
    }

    /// Labels that lead to it, the random one included.
    pub(crate) fn held_labels(&self) -> impl Iterator<Item = &str> {
        let held = self.status.hostnames.iter();
        let held =
            held.filter(|each| each.kind == HostnameKind::Assigned && each.state == HostnameState::Serving);
        held.map(|each| label_of(&each.name))
    }

    /// Do its agents have this key?
    pub(crate) fn has_key(&self, key: &Fingerprint) -> bool {
        self.route
            .as_ref()
            .is_some_and(|route| route.agent_keys.iter().any(|known| known.fingerprint == *key))
    }
}

/// The first label of a name.
pub(crate) fn label_of(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

impl std::fmt::Debug for crate::names::NameMaker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("NameMaker(..)")
    }
}
