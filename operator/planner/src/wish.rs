//! What an instance asks for, read from its object and from nothing else.

use std::sync::Arc;

use resources::{AGENT_KEYS_ANNOTATION, Observed, RemoteInstance, Timestamp};
use resources::{RemoteInstanceSpec, Unreadable};
use route_table::{Fingerprint, HostName, InstanceId, MAX_AGENT_KEYS_PER_ROUTE};

use crate::installation::serves;
use crate::inventory::Settings;
use crate::names::{AskedLabel, NameMaker, read_label};

/// What an instance of this installation asks for.
///
/// An object that makes no sense still stands for something. What proxies get:
///
/// | object | its last sense | `spec.enabled` in it | proxies get |
/// |---|---|---|---|
/// | makes sense | any | as read | what it says |
/// | makes no sense | never seen | any | no route: nobody knows whom it keeps out |
/// | makes no sense | enabled | `false` | the last good route, disabled |
/// | makes no sense | enabled | `true`, or not a boolean | the last good route |
/// | makes no sense | enabled, but an object without sense switched it off since | any | the last good route, disabled |
/// | makes no sense | disabled | any | the last good route, disabled: only sense can switch on |
/// | makes no sense | any | any | in each case with the blocks of today, so that a new block still shuts it out |
/// | makes no sense | any | any | in each case with the enrolled keys of today: removing a key still shuts it out |
/// | deleted | any | | nothing |
///
/// "Seen" means by this process: a status remembers no networks, so after a restart such an instance has no route.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) id: InstanceId,
    /// The object as it is now.
    pub(crate) object: Arc<Observed<RemoteInstance>>,
    /// Its last sense: the same object, an older one, or none.
    pub(crate) sense: Option<Arc<Observed<RemoteInstance>>>,
    pub(crate) enabled: bool,
    /// Its random name.
    pub(crate) random: HostName,
    pub(crate) label: Option<AskedLabel>,
    /// Custom domains in the order written, each once.
    pub(crate) domains: Box<[AskedDomain]>,
    /// Agent keys, in order, each once.
    pub(crate) keys: Box<[Fingerprint]>,
    /// What is wrong with the annotation of enrolled keys.
    pub(crate) bad_keys: Option<String>,
}

/// A custom domain as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AskedDomain {
    pub(crate) name: HostName,
    /// Is it at or below the installation's domain, where names are not anybody's own?
    pub(crate) ours: bool,
}

impl Wish {
    /// Reads an object; `None` where another installation serves it.
    pub(crate) fn read(
        settings: &Settings,
        names: &NameMaker,
        id: &InstanceId,
        object: &Arc<Observed<RemoteInstance>>,
        before: Option<&Wish>,
    ) -> Option<Self> {
        let sense = match &**object {
            Observed::Readable(_) => Some(Arc::clone(object)),
            Observed::Unreadable(_) => before.and_then(|before| before.sense.clone()),
        };
        let spec = spec_of(sense.as_ref());
        let asked = match (spec, &**object) {
            (Some(spec), _) => spec.installation.as_str(),
            (None, Observed::Unreadable(nonsense)) => nonsense.installation.as_deref().unwrap_or_default(),
            (None, Observed::Readable(_)) => "",
        };
        let namespace = id.as_str().split('/').next().unwrap_or_default();
        if !serves(settings, namespace, asked) {
            return None;
        }
        let switched_off = match &**object {
            Observed::Readable(_) => false,
            // What an object without sense switched off, only sense can switch on again.
            Observed::Unreadable(nonsense) => {
                nonsense.enabled == Some(false) || before.is_some_and(|before| !before.enabled)
            }
        };
        let (keys, bad_keys) = keys(spec, object);
        // A random label below any domain that leaves room for it is a name.
        let random = settings.spec.domain.with_label(&names.random_label(id)).ok()?;
        Some(Self {
            id: id.clone(),
            enabled: spec.is_some_and(|spec| spec.enabled) && !switched_off,
            random,
            label: spec.and_then(|spec| spec.hostname.as_deref()).map(|asked| read_label(settings, asked)),
            domains: spec.map(|spec| domains(settings, spec)).unwrap_or_default(),
            keys,
            bad_keys,
            object: Arc::clone(object),
            sense,
        })
    }

    /// What its owner wants, as far as it ever made sense.
    pub(crate) fn spec(&self) -> Option<&RemoteInstanceSpec> {
        spec_of(self.sense.as_ref())
    }

    /// What is wrong with the object, if anything is.
    pub(crate) fn nonsense(&self) -> Option<&Unreadable> {
        match &*self.object {
            Observed::Readable(_) => None,
            Observed::Unreadable(nonsense) => Some(nonsense),
        }
    }

    pub(crate) fn generation(&self) -> Option<i64> {
        self.object.about().generation
    }

    /// When it was made. In a folder nobody knows.
    pub(crate) fn created(&self) -> Option<Timestamp> {
        self.object.about().created
    }

    /// The label it asks for, where it could be had.
    pub(crate) fn claimed_label(&self) -> Option<&HostName> {
        match &self.label {
            Some(AskedLabel::Claimed(name)) => Some(name),
            Some(AskedLabel::Refused { .. }) | None => None,
        }
    }

    /// Every name that another instance could ask for, too.
    pub(crate) fn claimed_names(&self) -> impl Iterator<Item = &HostName> {
        let domains = self.domains.iter().filter(|domain| !domain.ours).map(|domain| &domain.name);
        self.claimed_label().into_iter().chain(domains)
    }
}

fn spec_of(object: Option<&Arc<Observed<RemoteInstance>>>) -> Option<&RemoteInstanceSpec> {
    match object.map(|object| &**object) {
        Some(Observed::Readable(object)) => Some(&object.spec),
        Some(Observed::Unreadable(_)) | None => None,
    }
}

/// Custom domains, each once. [`HostName`] has made case and trailing dots alike and refused wildcards and other
/// scripts (`bücher.example` is written `xn--bcher-kva.example`) before.
fn domains(settings: &Settings, spec: &RemoteInstanceSpec) -> Box<[AskedDomain]> {
    let mut domains: Vec<AskedDomain> = Vec::with_capacity(spec.custom_domains.len());
    for name in &spec.custom_domains {
        if domains.iter().all(|known| known.name != *name) {
            domains
                .push(AskedDomain { name: name.clone(), ours: name.is_at_or_below(&settings.spec.domain) });
        }
    }
    domains.into()
}

/// Keys from the spec and from enrolment, and what is wrong with the latter.
fn keys(
    spec: Option<&RemoteInstanceSpec>,
    object: &Observed<RemoteInstance>,
) -> (Box<[Fingerprint]>, Option<String>) {
    let mut keys: Vec<Fingerprint> = spec.map(|spec| spec.agent_keys.clone()).unwrap_or_default();
    let mut bad = None;
    let enrolled = object.about().annotations.get(AGENT_KEYS_ANNOTATION).unwrap_or_default();
    for text in enrolled.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match text.parse() {
            Ok(key) => keys.push(key),
            Err(error) => bad = bad.or(Some(format!("{AGENT_KEYS_ANNOTATION}: {error}"))),
        }
    }
    keys.sort_unstable();
    keys.dedup();
    if keys.len() > MAX_AGENT_KEYS_PER_ROUTE {
        bad = Some(format!("has {} agent keys; the first {MAX_AGENT_KEYS_PER_ROUTE} count", keys.len()));
        keys.truncate(MAX_AGENT_KEYS_PER_ROUTE);
    }
    (keys.into(), bad)
}
