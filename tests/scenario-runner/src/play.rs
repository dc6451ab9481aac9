//! Plays a scenario step by step, and stops at the first that comes out differently.

use std::collections::BTreeMap;
use std::fmt;

use resources::Timestamp;

use crate::compare::{Mismatch, compare};
use crate::file::{DnsAnswer, Facts, Proxies, Record, ReportChange, Scenario};
use crate::moment;
use crate::names;
use crate::world::{self, CertificateSeen, Instant, Reported, ToldValues, TunnelSeen, World};

/// A step that came out differently, or that could not be played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which step, counted from 1.
    pub number: usize,
    /// What it says it does.
    pub step: String,
    /// When it was.
    pub now: Timestamp,
    /// What went wrong.
    pub failed: Failed,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// The step could not be played.
    Stuck(String),
    /// It came out differently.
    Differently(Vec<Mismatch>),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "  step {} ({}), {}", self.number, self.now, self.step)?;
        match &self.failed {
            Failed::Stuck(why) => writeln!(formatter, "    cannot be played: {why}"),
            Failed::Differently(mismatches) => {
                mismatches.iter().try_for_each(|Mismatch { path, expected, came }| {
                    writeln!(formatter, "    {path}\n      expected  {expected}\n      came      {came}")
                })
            }
        }
    }
}

/// What is known at a step.
#[derive(Default)]
struct Known {
    proxies: Proxies,
    reports: BTreeMap<String, Reported>,
    enrolled: BTreeMap<String, Vec<String>>,
}

impl Known {
    fn learn(&mut self, facts: &Facts, now: Timestamp) {
        let Facts { proxies, reports, enrolled, dns: _ } = facts;
        if let Some(proxies) = proxies {
            self.proxies = *proxies;
        }
        for (id, change) in reports {
            match change {
                ReportChange::Nothing => {
                    self.reports.remove(id);
                }
                ReportChange::Says(change) => {
                    let report = self.reports.entry(id.clone()).or_default();
                    if let Some(connected) = change.connected {
                        let before = report.tunnel.take().filter(|tunnel| tunnel.connected == connected);
                        let since = change.since.map(|since| since.from(now));
                        let since = since.or(before.as_ref().map(|tunnel| tunnel.since)).unwrap_or(now);
                        report.tunnel = Some(TunnelSeen {
                            connected,
                            since,
                            agent_version: change.agent_version.clone(),
                            protocol_version: change.protocol_version,
                        });
                    }
                    if change.version.is_some() {
                        report.version.clone_from(&change.version);
                    }
                    if let Some(told) = &change.certificate {
                        let not_after = told.not_after.map(|when| when.from(now));
                        report.certificate = Some(CertificateSeen { told: told.clone(), not_after });
                    }
                }
            }
        }
        for (id, keys) in enrolled {
            self.enrolled.insert(id.clone(), keys.clone());
        }
    }
}

/// Plays the scenario.
pub fn play(scenario: &Scenario, world: &mut dyn World) -> Result<(), Failure> {
    let mut settings = scenario.installation.clone();
    let mut known = Known::default();
    let mut now: Option<Timestamp> = None;
    let mut told = ToldValues::default();
    let mut ids = Vec::new();
    for (at, step) in scenario.steps.iter().enumerate() {
        let at_this = match (now, step.at) {
            (None, when) => when.map_or(moment::BEGIN, |when| when.from(moment::BEGIN)),
            (Some(last), None) => last.plus_seconds(60),
            (Some(last), Some(when)) => when.from(last),
        };
        now = Some(at_this);
        let failure = |failed| Failure { number: at + 1, step: step.step.clone(), now: at_this, failed };
        settings.extend(step.installation.clone());
        known.learn(&step.facts, at_this);
        let dns = resolve(&step.facts.dns, &told).map_err(|why| failure(Failed::Stuck(why)))?;
        let instant = Instant {
            now: at_this,
            installation: &world::installation(&settings),
            apply: &step.apply,
            delete: &step.delete,
            restart: step.restart,
            proxies: known.proxies,
            reports: &known.reports,
            enrolled: &known.enrolled,
            dns: &dns,
        };
        let outcome = world.play(&instant).map_err(|why| failure(Failed::Stuck(why)))?;
        let mut mismatches = compare(&step.expect, &outcome, &known.reports, at_this);
        if !mismatches.is_empty() {
            ids.extend(outcome.instances.keys().chain(outcome.routes.keys()).cloned());
            ids.extend(step.expect.statuses.keys().cloned());
            let folded = |text: &str| names::fold(text, ids.iter().map(String::as_str));
            for Mismatch { path, expected, came } in &mut mismatches {
                (*path, *expected, *came) = (folded(path), folded(expected), folded(came));
            }
            return Err(failure(Failed::Differently(mismatches)));
        }
        ids.extend(outcome.instances.keys().cloned());
        told.learn(outcome.instances.iter().map(|(id, status)| (id.as_str(), status)));
    }
    Ok(())
}

/// Puts the values that statuses tell into DNS records, as the owner of a domain would.
fn resolve(
    answers: &BTreeMap<String, DnsAnswer>,
    told: &ToldValues,
) -> Result<BTreeMap<String, DnsAnswer>, String> {
    let tell = |domain: &str, id: &str| {
        told.get(domain, id)
            .map(str::to_owned)
            .ok_or_else(|| format!("the status of {id} told no verification value for {domain} yet"))
    };
    let resolved = |(domain, answer): (&String, &DnsAnswer)| {
        let text = |text: &str| names::expand_verification(text, |id| tell(domain, id));
        let record = |record: &Record| {
            Ok(match record {
                Record::Txt(value) => Record::Txt(text(value)?),
                Record::Cname(name) => Record::Cname(text(name)?),
            })
        };
        let answer = match answer {
            DnsAnswer::Records(records) => {
                DnsAnswer::Records(records.iter().map(record).collect::<Result<_, String>>()?)
            }
            DnsAnswer::Trouble(what) => DnsAnswer::Trouble(what.clone()),
        };
        Ok((domain.clone(), answer))
    };
    answers.iter().map(resolved).collect()
}
