//! Compares statuses.

use std::collections::BTreeMap;

use resources::remote_instance::{CertificateStatus, HostnameStatus, TunnelStatus};
use resources::{RemoteInstanceStatus, Timestamp, VersionBlockStatus};
use route_table::Fingerprint;

use super::{ABSENT, Differences, NONE, canonical, or_none, shown, sorted};
use crate::expect::{BlockMembers, CertificateMembers, ExpectedHostname, StatusMembers, TunnelMembers};
use crate::moment::When;

impl Differences {
    pub(super) fn status(&mut self, path: &str, expected: &StatusMembers, status: &RemoteInstanceStatus) {
        let StatusMembers {
            observed_generation,
            url,
            hostnames,
            version,
            blocked_by,
            tunnel,
            certificate,
            conditions,
        } = expected;
        self.generation(path, *observed_generation, status.observed_generation);
        self.member(path, "url", url.as_ref(), String::clone, or_none(status.url.as_deref()));
        if let Some(expected) = hostnames {
            self.hostnames(path, expected, &status.hostnames);
        }
        let effective =
            status.version.as_ref().map(|version| format!("{} {:?}", version.effective, version.source));
        self.member(path, "version", version.as_ref(), String::clone, or_none(effective.as_deref()));
        let list = |list: &Vec<String>| sorted(list);
        self.member(path, "blockedBy", blocked_by.as_ref(), list, sorted(&status.blocked_by));
        if let Some(expected) = tunnel {
            let path = format!("{path}.tunnel");
            if let Some((expected, tunnel)) = self.presence(&path, expected, status.tunnel.as_ref(), shown) {
                self.tunnel(&path, expected, tunnel);
            }
        }
        if let Some(expected) = certificate {
            let path = format!("{path}.certificate");
            if let Some((expected, certificate)) =
                self.presence(&path, expected, status.certificate.as_ref(), shown)
            {
                self.certificate(&path, expected, certificate);
            }
        }
        self.conditions(path, conditions, &status.conditions);
    }

    fn generation(&mut self, path: &str, expected: Option<i64>, came: Option<i64>) {
        let came = came.map_or_else(|| NONE.to_owned(), |generation| generation.to_string());
        self.member(path, "observedGeneration", expected.as_ref(), i64::to_string, came);
    }

    fn hostnames(
        &mut self,
        path: &str,
        expected: &BTreeMap<String, ExpectedHostname>,
        came: &[HostnameStatus],
    ) {
        let told = |host: &HostnameStatus| format!("{:?}: {}", host.state, host.message);
        for (name, expected) in expected {
            let path = format!("{path}.hostnames.{name}");
            let ExpectedHostname { state, kind, verification } = expected;
            let mut of_that_name = came.iter().filter(|host| host.name == *name);
            let Some(host) = of_that_name.next() else {
                self.note(path, state, &ABSENT);
                continue;
            };
            if let Some(second) = of_that_name.next() {
                self.note(&path, &"one entry", &format!("another: {}", told(second)));
            }
            let fits = format!("{:?}", host.state) == state.state
                && state.message.as_ref().is_none_or(|part| part.is_in(&host.message));
            if !fits {
                self.note(&path, state, &told(host));
            }
            self.member(&path, "kind", kind.as_ref(), String::clone, format!("{:?}", host.kind));
            let Some(expected) = verification else { continue };
            let path = format!("{path}.verification");
            let shown = |record: &_| shown(record);
            if let Some((expected, record)) =
                self.presence(&path, expected, host.verification.as_ref(), shown)
            {
                self.member(&path, "type", expected.kind.as_ref(), String::clone, &record.kind);
                self.member(&path, "name", expected.name.as_ref(), String::clone, &record.name);
                self.member(&path, "value", expected.value.as_ref(), String::clone, &record.value);
            }
        }
        for host in came.iter().filter(|host| !expected.contains_key(&host.name)) {
            self.note(format!("{path}.hostnames.{}", host.name), &"absent (it is not named)", &told(host));
        }
    }

    fn time(&mut self, path: &str, name: &str, expected: Option<When>, came: Option<Timestamp>) {
        let now = self.now;
        let came = came.map_or_else(|| NONE.to_owned(), |moment| moment.to_string());
        self.member(path, name, expected.as_ref(), |when| when.from(now).to_string(), came);
    }

    fn tunnel(&mut self, path: &str, expected: &TunnelMembers, tunnel: &TunnelStatus) {
        let TunnelMembers { connected, since, agent_version, protocol_version } = expected;
        self.member(path, "connected", connected.as_ref(), bool::to_string, tunnel.connected);
        self.time(path, "since", *since, tunnel.since);
        let agent = or_none(tunnel.agent_version.as_deref());
        self.member(path, "agentVersion", agent_version.as_ref(), String::clone, agent);
        let protocol = tunnel.protocol_version.map_or_else(|| NONE.to_owned(), |version| version.to_string());
        self.member(path, "protocolVersion", protocol_version.as_ref(), i32::to_string, protocol);
    }

    fn certificate(&mut self, path: &str, expected: &CertificateMembers, certificate: &CertificateStatus) {
        let CertificateMembers { fingerprint_sha256, names, issuer, not_after, acme_account_uri } = expected;
        let fingerprint = canonical::<Fingerprint>(&certificate.fingerprint_sha256);
        self.member(
            path,
            "fingerprintSha256",
            fingerprint_sha256.as_ref(),
            |text| canonical::<Fingerprint>(text),
            fingerprint,
        );
        self.member(path, "names", names.as_ref(), |list| sorted(list), sorted(&certificate.names));
        let came = or_none(certificate.issuer.as_deref());
        self.member(path, "issuer", issuer.as_ref(), String::clone, came);
        self.time(path, "notAfter", *not_after, certificate.not_after);
        let account = or_none(certificate.acme_account_uri.as_deref());
        self.member(path, "acmeAccountUri", acme_account_uri.as_ref(), String::clone, account);
    }

    pub(super) fn block(&mut self, path: &str, expected: &BlockMembers, status: &VersionBlockStatus) {
        let BlockMembers { observed_generation, matched, blocked, accepted, conditions } = expected;
        self.generation(path, *observed_generation, status.observed_generation);
        self.member(path, "matched", matched.as_ref(), i64::to_string, status.matched);
        self.member(path, "blocked", blocked.as_ref(), i64::to_string, status.blocked);
        self.member(path, "accepted", accepted.as_ref(), i64::to_string, status.accepted);
        self.conditions(path, conditions, &status.conditions);
    }
}
