//! Which custom domains instances ask for. Pure, and what an edit of one object costs does not grow with their number.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use planner::Settings;
use resources::{Object, Observed, RemoteInstance};
use route_table::{HostName, InstanceId};

/// A domain to be shown to be an instance's, and how that could be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The domain.
    pub domain: HostName,
    /// Who wants it.
    pub id: InstanceId,
    /// Where a TXT record would be.
    pub txt_name: String,
    /// What it would hold.
    pub txt_value: String,
    /// Where a CNAME record of the domain would lead.
    pub cname_target: HostName,
}

impl Wanted {
    pub(super) fn key(&self) -> (HostName, InstanceId) {
        (self.domain.clone(), self.id.clone())
    }
}

type Instances = OrdMap<InstanceId, Arc<Observed<RemoteInstance>>>;

/// Gathers what instances ask for.
#[derive(Debug, Default)]
pub struct Wishes {
    settings: Option<Arc<Settings>>,
    seen: Instances,
    wanted: OrdMap<InstanceId, Vec<Arc<Wanted>>>,
}

impl Wishes {
    /// Looks at what has changed since the last call. `None`: nothing did that matters here.
    ///
    /// An object that makes no sense asks for what it asked for when it did.
    pub fn read(&mut self, settings: &Arc<Settings>, instances: &Instances) -> Option<Vec<Arc<Wanted>>> {
        let mut changed = false;
        if self.settings.as_ref() != Some(settings) {
            changed = self.settings.replace(Arc::clone(settings)).is_some();
            self.seen = Instances::new();
            self.wanted =
                self.wanted.iter().filter(|(id, _)| instances.contains_key(*id)).map(cloned).collect();
        }
        let seen = std::mem::replace(&mut self.seen, instances.clone());
        for difference in seen.diff(instances) {
            changed |= match difference {
                DiffItem::Add(id, object) | DiffItem::Update { new: (id, object), .. } => {
                    self.look(settings, id, object)
                }
                DiffItem::Remove(id, _) => self.wanted.remove(id).is_some(),
            };
        }
        changed.then(|| self.wanted.values().flatten().cloned().collect())
    }

    fn look(&mut self, settings: &Settings, id: &InstanceId, object: &Observed<RemoteInstance>) -> bool {
        let Observed::Readable(object) = object else { return false };
        let wanted = wanted(settings, id, object);
        if wanted.is_empty() {
            return self.wanted.remove(id).is_some();
        }
        if self.wanted.get(id) == Some(&wanted) {
            return false;
        }
        self.wanted.insert(id.clone(), wanted);
        true
    }
}

fn cloned((id, wanted): (&InstanceId, &Vec<Arc<Wanted>>)) -> (InstanceId, Vec<Arc<Wanted>>) {
    (id.clone(), wanted.clone())
}

fn wanted(settings: &Settings, id: &InstanceId, object: &Object<RemoteInstance>) -> Vec<Arc<Wanted>> {
    let namespace = id.as_str().split('/').next().unwrap_or_default();
    let spec = &object.spec;
    if spec.custom_domains.is_empty() || !planner::serves(settings, namespace, &spec.installation) {
        return Vec::new();
    }
    let random = planner::random_label(&settings.seed, id);
    let Ok(cname_target) = settings.spec.domain.with_label(&random) else { return Vec::new() };
    let txt_value = planner::verification_value(&settings.seed, id);
    let ours = |domain: &HostName| domain.is_at_or_below(&settings.spec.domain);
    let theirs = spec.custom_domains.iter().filter(|domain| !ours(domain));
    let wanted = theirs.map(|domain| {
        Arc::new(Wanted {
            domain: domain.clone(),
            id: id.clone(),
            txt_name: planner::verification_name(domain),
            txt_value: txt_value.clone(),
            cname_target: cname_target.clone(),
        })
    });
    wanted.collect()
}

#[cfg(test)]
mod tests {
    use planner::Seed;
    use serde_json::json;

    use super::*;

    fn settings(seed: u8) -> Arc<Settings> {
        let spec = serde_json::from_value(json!({"domain": "ui.example.com", "default": true})).unwrap();
        Arc::new(Settings { name: "default".to_owned(), spec, seed: Seed::new([seed; 32]) })
    }

    fn object(spec: &serde_json::Value) -> Arc<Observed<RemoteInstance>> {
        let metadata = json!({"name": "lake", "namespace": "homes"});
        let object = json!({"apiVersion": "latchkey.dev/v1alpha1", "kind": "RemoteInstance", "metadata": metadata,
            "spec": spec});
        Arc::new(Observed::read(object).unwrap())
    }

    fn asking(domains: &[&str]) -> Arc<Observed<RemoteInstance>> {
        object(&json!({"customDomains": domains}))
    }

    fn names(wanted: Option<Vec<Arc<Wanted>>>) -> Option<Vec<String>> {
        Some(wanted?.iter().map(|each| each.domain.to_string()).collect())
    }

    fn id(text: &str) -> InstanceId {
        text.parse().unwrap()
    }

    #[test]
    fn only_changes_that_matter_are_told() {
        let mut wishes = Wishes::default();
        let settings = settings(7);
        let mut instances = Instances::new();
        assert_eq!(names(wishes.read(&settings, &instances)), None);
        instances.insert(id("homes/lake"), asking(&["b.example", "a.example", "x.ui.example.com"]));
        instances.insert(id("homes/barn"), asking(&[]));
        let expected = Some(vec!["b.example".to_owned(), "a.example".to_owned()]);
        assert_eq!(
            names(wishes.read(&settings, &instances)),
            expected,
            "names of the installation are not asked about"
        );
        assert_eq!(names(wishes.read(&settings, &instances)), None);
        instances.insert(id("homes/barn"), object(&json!({"enabled": true})));
        assert_eq!(names(wishes.read(&settings, &instances)), None, "an edit of something else");
        instances.insert(id("homes/lake"), object(&json!({"customDomains": 7})));
        assert_eq!(names(wishes.read(&settings, &instances)), None, "without sense it asks for what it did");
        instances.remove(&id("homes/lake"));
        assert_eq!(names(wishes.read(&settings, &instances)), Some(vec![]));
    }

    #[test]
    fn they_ask_as_the_planner_tells_owners() {
        let mut wishes = Wishes::default();
        let settings = settings(7);
        let instances = Instances::unit(id("homes/lake"), asking(&["a.example"]));
        let wanted = wishes.read(&settings, &instances).unwrap();
        let seed = &settings.seed;
        assert_eq!(
            *wanted[0],
            Wanted {
                domain: "a.example".parse().unwrap(),
                id: id("homes/lake"),
                txt_name: "_latchkey.a.example".to_owned(),
                txt_value: planner::verification_value(seed, &id("homes/lake")),
                cname_target: format!("{}.ui.example.com", planner::random_label(seed, &id("homes/lake")))
                    .parse()
                    .unwrap(),
            }
        );
    }

    #[test]
    fn another_seed_asks_for_other_records_and_another_installation_for_none() {
        let mut wishes = Wishes::default();
        let instances = Instances::unit(id("homes/lake"), asking(&["a.example"]));
        let first = wishes.read(&settings(7), &instances).unwrap();
        let second = wishes.read(&settings(8), &instances).unwrap();
        assert_ne!(first, second);
        let elsewhere = Instances::unit(
            id("homes/lake"),
            object(&json!({"installation": "other", "customDomains": ["a.example"]})),
        );
        assert_eq!(names(wishes.read(&settings(8), &elsewhere)), Some(vec![]));
    }
}
