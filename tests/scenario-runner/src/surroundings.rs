//! What is around a planner: proxies that report and apply, DNS that is asked. Everything that plans and is no operator
//! needs it played.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use planner::{
    Applied, CertificateFacts, Event, EventKind, Facts, Plan, Proof, ProofAnswer, Report, Subject, Tunnel,
};
use resources::Timestamp;
use route_table::{HostName, InstanceId, RouteTable};
use serde_json::Value;

use crate::file::{DnsAnswer, ObjectRef, Record};
use crate::names::{SEED, random_label};
use crate::world::{CertificateSeen, Instant, Outcome, Reported, SeenEvent, ToldValues, TunnelSeen};

/// A plan is made again when proxies have applied it; it must come to rest within so many.
const MOST_PLANS: usize = 8;

/// Facts of a planner as they come about.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// What is known now.
    pub facts: Facts,
    told: ToldValues,
    events: Vec<SeenEvent>,
}

impl Surroundings {
    /// Plays a step whose objects are written already: `plan` makes a plan with the facts it is given.
    pub fn play(
        &mut self,
        instant: &Instant<'_>,
        mut plan: impl FnMut(&Facts) -> Result<Plan, String>,
    ) -> Result<Outcome, String> {
        self.facts.reports = reports(instant.reports)?;
        self.facts.applied.ready_proxies = instant.proxies.ready;
        let mut settled = self.settle(instant, &mut plan)?;
        if !instant.dns.is_empty() {
            self.ask_dns(instant, &settled)?;
            settled = self.settle(instant, &mut plan)?;
        }
        Ok(outcome(&settled, std::mem::take(&mut self.events)))
    }

    /// A process begins: DNS has not been asked. Everything else is found again in the objects, or comes again.
    pub fn restart(&mut self) {
        self.facts.proofs = OrdMap::new();
    }

    /// Plans, lets the proxies apply it, and plans again until nothing moves.
    fn settle(
        &mut self,
        instant: &Instant<'_>,
        make: &mut impl FnMut(&Facts) -> Result<Plan, String>,
    ) -> Result<Plan, String> {
        for _ in 0..MOST_PLANS {
            let plan = make(&self.facts)?;
            check(&plan, instant)?;
            self.events.extend(plan.events.iter().map(seen));
            self.told.learn(plan.instances.iter().map(|(id, status)| (id.as_str(), &**status)));
            let follow = instant.proxies.follow && instant.proxies.ready > 0;
            let revision = if follow { Some(plan.revision) } else { self.facts.applied.revision };
            let applied = Applied { revision, ..self.facts.applied };
            if self.facts.released == plan.released && applied == self.facts.applied {
                let again = make(&self.facts)?;
                return at_rest(&plan, &again).map(|()| plan);
            }
            self.facts.released = plan.released.clone();
            self.facts.applied = applied;
        }
        Err(format!("does not come to rest within {MOST_PLANS} plans"))
    }

    /// Asks DNS for every instance that names the domain, and keeps what it says.
    fn ask_dns(&mut self, instant: &Instant<'_>, plan: &Plan) -> Result<(), String> {
        let now = Timestamp(instant.now.0);
        let domain = domain_of(instant);
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

/// Planning once more, with nothing changed, must change nothing and tell nothing.
fn at_rest(plan: &Plan, again: &Plan) -> Result<(), String> {
    let differs = if let Some(event) = again.events.first() {
        format!("an event: {event:?}")
    } else if again.routes != plan.routes || again.revision != plan.revision {
        "other routes".to_owned()
    } else if again.instances != plan.instances || again.blocks != plan.blocks {
        "other statuses".to_owned()
    } else if again.next_run != plan.next_run {
        format!("another next run: {:?}, not {:?}", again.next_run, plan.next_run)
    } else {
        return Ok(());
    };
    Err(format!("planned again with nothing changed there is {differs}"))
}

fn domain_of<'i>(instant: &'i Instant<'_>) -> &'i str {
    instant.installation.pointer("/spec/domain").and_then(Value::as_str).unwrap_or_default()
}

/// A proxy must be able to take the routes of every plan.
fn check(plan: &Plan, instant: &Instant<'_>) -> Result<(), String> {
    let domain = domain_of(instant).parse().map_err(|error| format!("domain: {error}"))?;
    let routes = plan.routes.values().cloned();
    RouteTable::from_routes(plan.revision, Some(domain), routes)
        .map(|_| ())
        .map_err(|error| format!("no proxy would take the routes: {error}"))
}

fn instance_id(text: &str) -> Result<InstanceId, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
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

fn seen(event: &Event) -> SeenEvent {
    let Event { about, kind, reason, message } = event;
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
        routes: plan.routes.iter().map(|(id, route)| (id.to_string(), route.clone())).collect(),
        instances: plan.instances.iter().map(|(id, status)| (id.to_string(), (**status).clone())).collect(),
        blocks: plan.blocks.iter().map(|(name, status)| (name.clone(), (**status).clone())).collect(),
        events: Some(events),
        next_run: Some(plan.next_run),
    }
}
