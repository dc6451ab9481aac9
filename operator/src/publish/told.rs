//! What a proxy tells of an instance, checked. A member that makes no sense is dropped and counted; the rest counts.

use imbl::OrdSet;
use operator_link::limits::{MAX_CERTIFICATE_NAMES, MAX_TEXT_BYTES};
use operator_link::wire;
use planner::{CertificateFacts, Timestamp};
use route_table::{Fingerprint, InstanceId};

/// What is new of one instance.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) id: InstanceId,
    pub(crate) tunnel: Option<planner::Tunnel>,
    pub(crate) reported: Option<Reported>,
}

/// What its agent said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) version: Option<String>,
    pub(crate) certificate: Option<CertificateFacts>,
}

/// Reads what a proxy tells; `dropped` goes up by one for every member that makes no sense.
pub(crate) fn read(facts: wire::InstanceFacts, dropped: &mut u64) -> Option<Told> {
    let wire::InstanceFacts { id, tunnel, reported } = facts;
    let Ok(id) = id.parse() else {
        *dropped += 1;
        return None;
    };
    let tunnel = tunnel.map(|tunnel| read_tunnel(tunnel, dropped));
    let reported = reported.map(|reported| read_reported(reported, dropped));
    Some(Told { id, tunnel, reported })
}

fn read_tunnel(tunnel: wire::Tunnel, dropped: &mut u64) -> planner::Tunnel {
    let wire::Tunnel { connected, since, agent_version, protocol_version, count: _ } = tunnel;
    planner::Tunnel {
        connected,
        since: Timestamp(since),
        agent_version: text(Some(agent_version), dropped),
        protocol_version: protocol_version.and_then(|version| kept(version.try_into().ok(), dropped)),
    }
}

fn read_reported(reported: wire::Reported, dropped: &mut u64) -> Reported {
    let wire::Reported { version, certificate, at: _ } = reported;
    Reported {
        version: text(version, dropped),
        certificate: certificate
            .and_then(|certificate| kept(read_certificate(certificate, dropped), dropped)),
    }
}

fn read_certificate(certificate: wire::Certificate, dropped: &mut u64) -> Option<CertificateFacts> {
    let wire::Certificate { fingerprint_sha256, names, issuer, not_after, acme_account_uri } = certificate;
    if names.len() > MAX_CERTIFICATE_NAMES || names.iter().any(|name| name.len() > MAX_TEXT_BYTES) {
        return None;
    }
    Some(CertificateFacts {
        fingerprint: Fingerprint::from_bytes(fingerprint_sha256.try_into().ok()?),
        names,
        issuer: text(issuer, dropped),
        not_after: text(not_after, dropped).and_then(|time| kept(time.parse().ok(), dropped)),
        acme_account_uri: text(acme_account_uri, dropped),
        strange: OrdSet::new(),
    })
}

/// A text that says something and is not too long.
fn text(text: Option<String>, dropped: &mut u64) -> Option<String> {
    let text = text.filter(|text| !text.is_empty())?;
    kept((text.len() <= MAX_TEXT_BYTES).then_some(text), dropped)
}

fn kept<T>(read: Option<T>, dropped: &mut u64) -> Option<T> {
    *dropped += u64::from(read.is_none());
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spoil<'a> = &'a dyn Fn(&mut wire::InstanceFacts);

    fn certificate(facts: &mut wire::InstanceFacts) -> &mut wire::Certificate {
        facts.reported.as_mut().unwrap().certificate.as_mut().unwrap()
    }

    fn facts() -> wire::InstanceFacts {
        let certificate = wire::Certificate {
            fingerprint_sha256: vec![7; 32],
            names: vec!["house.ui.example.com".to_owned()],
            issuer: Some("An Authority".to_owned()),
            not_after: Some("2026-11-21T10:00:00Z".to_owned()),
            acme_account_uri: None,
        };
        wire::InstanceFacts {
            id: "homes/house".to_owned(),
            tunnel: Some(wire::Tunnel {
                connected: true,
                since: 100,
                agent_version: "1.2.3".to_owned(),
                protocol_version: Some(2),
                count: 1,
            }),
            reported: Some(wire::Reported {
                version: Some("2026.11.1".to_owned()),
                certificate: Some(certificate),
                at: 90,
            }),
        }
    }

    #[test]
    fn what_makes_sense_is_kept() {
        let mut dropped = 0;
        let told = read(facts(), &mut dropped).unwrap();
        assert_eq!((dropped, told.id.as_str()), (0, "homes/house"));
        let tunnel = told.tunnel.unwrap();
        assert_eq!((tunnel.agent_version.as_deref(), tunnel.protocol_version), (Some("1.2.3"), Some(2)));
        let certificate = told.reported.unwrap().certificate.unwrap();
        assert_eq!(certificate.not_after, Some(Timestamp(1_795_255_200)));
    }

    #[test]
    fn what_makes_none_is_dropped_and_counted_alone() {
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        let cases: [(&str, Spoil<'_>); 7] = [
            ("id", &|facts| facts.id = "house".to_owned()),
            ("agent version", &|facts| facts.tunnel.as_mut().unwrap().agent_version = long.clone()),
            ("protocol version", &|facts| facts.tunnel.as_mut().unwrap().protocol_version = Some(256)),
            ("version", &|facts| facts.reported.as_mut().unwrap().version = Some(long.clone())),
            ("fingerprint", &|facts| certificate(facts).fingerprint_sha256 = vec![7; 31]),
            ("names", &|facts| {
                certificate(facts).names = vec![String::new(); MAX_CERTIFICATE_NAMES + 1];
            }),
            ("not after", &|facts| certificate(facts).not_after = Some("soon".to_owned())),
        ];
        for (what, spoil) in cases {
            let (mut spoiled, mut dropped) = (facts(), 0);
            spoil(&mut spoiled);
            let told = read(spoiled, &mut dropped);
            assert_eq!(dropped, 1, "{what}");
            assert_eq!(told.is_none(), what == "id", "{what}");
            assert!(told.is_none_or(|told| told.tunnel.is_some_and(|tunnel| tunnel.connected)), "{what}");
        }
    }
}
