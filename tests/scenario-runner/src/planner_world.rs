//! The planner alone: keeps objects as an API server would, and facts as an operator would.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use planner::{
    Applied, CertificateFacts, EventKind, Facts, Inventory, Plan, Previous, Proof, ProofAnswer, Report, Seed,
    Settings, Subject, Tunnel, plan,
};
use resources::{
    AGENT_KEYS_ANNOTATION, Checked, Installation, Observed, RemoteInstance, Timestamp, VersionBlock,
};
use route_table::{HostName, InstanceId, RouteTable};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::file::{DnsAnswer, ObjectRef, Record};
use crate::names::{SEED, random_label};
use crate::world::{CertificateSeen, Instant, Outcome, Reported, SeenEvent, ToldValues, TunnelSeen, World};

/// A plan is made again when proxies have applied it; it must come to rest within so many.
const MOST_PLANS: usize = 8;

/// The planner, with everything around it played.
#[derive(Debug, Default)]
pub struct PlannerWorld {
    objects: BTreeMap<ObjectRef, Value>,
    previous: Previous,
    facts: Facts,
    told: ToldValues,
    /// Statuses as they were written last; an API server gives them back with the objects.
    statuses: BTreeMap<ObjectRef, Value>,
}

impl World for PlannerWorld {
    fn play(&mut self, instant: &Instant<'_>) -> Result<Outcome, String> {
        for object in instant.apply {
            self.write(object, instant.now)?;
        }
        for gone in instant.delete {
            self.objects.remove(gone).ok_or_else(|| format!("there is no {gone} to delete"))?;
        }
        self.facts.reports = reports(instant.reports)?;
        self.facts.applied.ready_proxies = instant.proxies.ready;
        if instant.restart {
            // Answers of DNS are asked for anew; everything else is found again in the objects, or comes again.
            self.facts.proofs = OrdMap::new();
            self.previous = Previous::restore(&self.inventory(instant)?);
        }
        let mut events = Vec::new();
        let mut plan = self.settle(instant, &mut events)?;
        if !instant.dns.is_empty() {
            self.ask_dns(instant, &plan)?;
            plan = self.settle(instant, &mut events)?;
        }
        let outcome = outcome(&plan, events);
        self.write_statuses(&outcome)?;
        Ok(outcome)
    }
}

impl PlannerWorld {
    /// Writes an object, and what an API server writes into it.
    fn write(&mut self, object: &Value, now: Timestamp) -> Result<(), String> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let name = text("/metadata/name");
        let reference = match text("/kind") {
            "RemoteInstance" => ObjectRef::Instance(format!("{}/{name}", text("/metadata/namespace"))),
            _ => ObjectRef::Block(name.to_owned()),
        };
        let mut object = object.clone();
        let before = self.objects.get(&reference);
        let generation = match before {
            None => 1,
            Some(before) => {
                let generation = before.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(1);
                generation + i64::from(before.get("spec") != object.get("spec"))
            }
        };
        let created = before.and_then(|before| before.pointer("/metadata/creationTimestamp")).cloned();
        let metadata = object
            .pointer_mut("/metadata")
            .and_then(Value::as_object_mut)
            .ok_or("an object without metadata is refused by every API server")?;
        metadata.insert("generation".to_owned(), generation.into());
        metadata.insert("uid".to_owned(), reference.to_string().into());
        metadata
            .entry("creationTimestamp")
            .or_insert_with(|| created.unwrap_or_else(|| now.to_string().into()));
        self.objects.insert(reference, object);
        Ok(())
    }

    /// Writes the statuses of instances and blocks, so that the next plan finds them.
    fn write_statuses(&mut self, outcome: &Outcome) -> Result<(), String> {
        let Outcome { instances, blocks, .. } = outcome;
        let instances = instances
            .iter()
            .map(|(id, status)| Ok((ObjectRef::Instance(id.clone()), serde_json::to_value(status)?)));
        let blocks = blocks
            .iter()
            .map(|(name, status)| Ok((ObjectRef::Block(name.clone()), serde_json::to_value(status)?)));
        let written: Result<_, serde_json::Error> = instances.chain(blocks).collect();
        self.statuses = written.map_err(|error| format!("a status cannot be written: {error}"))?;
        Ok(())
    }

    /// Plans, lets the proxies apply it, and plans again until nothing moves.
    fn settle(&mut self, instant: &Instant<'_>, events: &mut Vec<SeenEvent>) -> Result<Plan, String> {
        for _ in 0..MOST_PLANS {
            let inventory = self.inventory(instant)?;
            let now = Timestamp(instant.now.0);
            let (plan, previous) = plan(&inventory, &self.previous, now);
            check(&plan, &inventory.settings)?;
            events.extend(plan.events.iter().map(seen));
            self.told.learn(plan.instances.iter().map(|(id, status)| (id.as_str(), &**status)));
            self.previous = previous;
            let released = self.facts.released == plan.released;
            self.facts.released = plan.released.clone();
            let applied = Applied {
                revision: if instant.proxies.follow && instant.proxies.ready > 0 {
                    Some(plan.revision)
                } else {
                    self.facts.applied.revision
                },
                ..self.facts.applied
            };
            if released && applied == self.facts.applied {
                self.check_rest(&inventory, &plan, now)?;
                return Ok(plan);
            }
            self.facts.applied = applied;
        }
        Err(format!("does not come to rest within {MOST_PLANS} plans"))
    }

    /// What has come to rest stays so, whether the planner may use what it worked out before or not.
    fn check_rest(&self, inventory: &Inventory, rest: &Plan, now: Timestamp) -> Result<(), String> {
        for (how, previous) in
            [("again", self.previous.clone()), ("from its decisions alone", self.previous.decisions_alone())]
        {
            let (again, _) = plan(inventory, &previous, now);
            let differs = if let Some(event) = again.events.first() {
                format!("an event: {event:?}")
            } else if again.routes != rest.routes || again.revision != rest.revision {
                "other routes".to_owned()
            } else if again.instances != rest.instances || again.blocks != rest.blocks {
                "other statuses".to_owned()
            } else if again.next_run != rest.next_run {
                format!("another next run: {:?}, not {:?}", again.next_run, rest.next_run)
            } else {
                continue;
            };
            return Err(format!("planned {how} with nothing changed there is {differs}"));
        }
        Ok(())
    }

    fn inventory(&self, instant: &Instant<'_>) -> Result<Inventory, String> {
        let installation: Installation =
            serde_json::from_value(instant.installation.clone()).map_err(|error| error.to_string())?;
        let settings =
            Settings { name: installation.metadata.name, spec: installation.spec, seed: Seed::new(SEED) };
        let mut instances = OrdMap::new();
        let mut blocks = OrdMap::new();
        for (reference, object) in &self.objects {
            let mut object = object.clone();
            if let (Some(status), Some(members)) = (self.statuses.get(reference), object.as_object_mut()) {
                members.insert("status".to_owned(), status.clone());
            }
            match reference {
                ObjectRef::Instance(id) => {
                    if let Some(keys) = instant.enrolled.get(id) {
                        enrol(&mut object, keys);
                    }
                    instances.insert(instance_id(id)?, read::<RemoteInstance>(&object)?);
                }
                ObjectRef::Block(name) => {
                    blocks.insert(name.clone(), read::<VersionBlock>(&object)?);
                }
            }
        }
        Ok(Inventory { settings: Arc::new(settings), instances, blocks, facts: self.facts.clone() })
    }

    /// Asks DNS for every instance that names the domain, and keeps what it says.
    fn ask_dns(&mut self, instant: &Instant<'_>, plan: &Plan) -> Result<(), String> {
        let now = Timestamp(instant.now.0);
        let domain_of = |settings: &Value| settings.pointer("/spec/domain").cloned();
        let domain = domain_of(instant.installation).and_then(|domain| domain.as_str().map(str::to_owned));
        let domain = domain.unwrap_or_default();
        for (name, answer) in instant.dns {
            let host: HostName = name.parse().map_err(|error| format!("dns: {error}"))?;
            for (id, status) in &plan.instances {
                if !status.hostnames.iter().any(|each| each.name == host.as_str()) {
                    continue;
                }
                let known = self.facts.proofs.get(&(host.clone(), id.clone())).cloned();
                let known = known.unwrap_or(Proof { answer: None, missing_since: None, trouble: None });
                let proof = match answer {
                    DnsAnswer::Trouble(what) => Proof { trouble: Some(what.clone()), ..known },
                    DnsAnswer::Records(records) => {
                        let value = self.told.get(host.as_str(), id.as_str());
                        let random = format!("{}.{domain}", random_label(&SEED, id.as_str()));
                        let answer = judge(records, value, &random);
                        let missing = answer == ProofAnswer::Missing;
                        Proof {
                            answer: Some((answer, now)),
                            missing_since: missing.then(|| known.missing_since.unwrap_or(now)),
                            trouble: None,
                        }
                    }
                };
                self.facts.proofs.insert((host.clone(), id.clone()), proof);
            }
        }
        Ok(())
    }
}

/// What records prove.
fn judge(records: &[Record], value: Option<&str>, random: &str) -> ProofAnswer {
    let proves = |record: &Record| match record {
        Record::Txt(text) => (value == Some(text)).then_some(ProofAnswer::Txt),
        Record::Cname(name) => {
            (name.trim_end_matches('.').eq_ignore_ascii_case(random)).then_some(ProofAnswer::Cname)
        }
    };
    records.iter().find_map(proves).unwrap_or(ProofAnswer::Missing)
}

/// What must be so of every plan, whatever was expected.
fn check(plan: &Plan, settings: &Settings) -> Result<(), String> {
    let routes = plan.routes.values().map(|route| (**route).clone());
    RouteTable::from_routes(plan.revision, Some(settings.spec.domain.clone()), routes)
        .map(|_| ())
        .map_err(|error| format!("no proxy would take the routes: {error}"))
}

fn read<T: DeserializeOwned + Checked>(object: &Value) -> Result<Arc<Observed<T>>, String> {
    Observed::read(object.clone()).map(Arc::new)
}

fn instance_id(text: &str) -> Result<InstanceId, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

/// Adds enrolled keys to an object's annotation, as an operator does.
fn enrol(object: &mut Value, keys: &[String]) {
    let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) else { return };
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    let Some(annotations) = annotations.as_object_mut() else { return };
    let written = annotations.get(AGENT_KEYS_ANNOTATION).and_then(Value::as_str).unwrap_or_default();
    let mut all: Vec<&str> = written.split(',').filter(|key| !key.is_empty()).collect();
    all.extend(keys.iter().map(String::as_str));
    let all = all.join(",");
    if !all.is_empty() {
        annotations.insert(AGENT_KEYS_ANNOTATION.to_owned(), all.into());
    }
}

fn reports(told: &BTreeMap<String, Reported>) -> Result<OrdMap<InstanceId, Arc<Report>>, String> {
    told.iter().map(|(id, reported)| Ok((instance_id(id)?, Arc::new(report(reported)?)))).collect()
}

fn report(told: &Reported) -> Result<Report, String> {
    let Reported { tunnel, version, certificate } = told;
    let tunnel =
        tunnel.as_ref().map(|TunnelSeen { connected, since, agent_version, protocol_version }| Tunnel {
            connected: *connected,
            since: Timestamp(since.0),
            agent_version: agent_version.clone(),
            protocol_version: *protocol_version,
        });
    let fingerprint = |text: &String| text.parse().map_err(|error| format!("certificate: {error}"));
    let certificate = certificate.as_ref().map(|CertificateSeen { told, not_after }| {
        let strange: Result<OrdSet<_>, String> = told.strange.iter().map(fingerprint).collect();
        Ok::<_, String>(CertificateFacts {
            fingerprint: fingerprint(&told.fingerprint)?,
            names: told.names.clone(),
            issuer: told.issuer.clone(),
            not_after: not_after.map(|moment| Timestamp(moment.0)),
            acme_account_uri: told.acme_account_uri.clone(),
            strange: strange?,
        })
    });
    Ok(Report { tunnel, version: version.clone(), certificate: certificate.transpose()? })
}

fn seen(event: &planner::Event) -> SeenEvent {
    let planner::Event { about, kind, reason, message } = event;
    SeenEvent {
        kind: match kind {
            EventKind::Normal => "Normal".to_owned(),
            EventKind::Warning => "Warning".to_owned(),
        },
        about: match about {
            Subject::Instance(id) => ObjectRef::Instance(id.to_string()),
            Subject::Block(name) => ObjectRef::Block(name.clone()),
        },
        reason: reason.clone(),
        message: message.clone(),
    }
}

fn outcome(plan: &Plan, events: Vec<SeenEvent>) -> Outcome {
    Outcome {
        routes: plan.routes.iter().map(|(id, route)| (id.to_string(), (**route).clone())).collect(),
        instances: plan.instances.iter().map(|(id, status)| (id.to_string(), (**status).clone())).collect(),
        blocks: plan.blocks.iter().map(|(name, status)| (name.clone(), (**status).clone())).collect(),
        events: Some(events),
        next_run: Some(plan.next_run),
    }
}
