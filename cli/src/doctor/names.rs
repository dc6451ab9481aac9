//! Do the names of an installation lead to it?

use std::net::IpAddr;

use super::check::Check;
use super::resolver::{Addresses, Answer, Resolver};

/// A label nobody has: what it resolves to, every name below the domain does.
const PROBE: &str = "latchkey-doctor-probe";

/// Is it a name that means this machine, and that no public DNS knows?
pub fn is_loopback(domain: &str) -> bool {
    domain == "localhost" || domain.ends_with(".localhost")
}

/// The checks, and the addresses at which agents find the proxy.
pub async fn names(domain: &str, resolver: &Resolver, ca: &str) -> (Vec<Check>, Vec<IpAddr>) {
    let (probe, connect) = (format!("{PROBE}.{domain}"), format!("connect.{domain}"));
    let (at_domain, at_probe, at_connect, issuers) = tokio::join!(
        resolver.addresses(domain),
        resolver.addresses(&probe),
        resolver.addresses(&connect),
        resolver.issuers(domain),
    );
    let mut checks = vec![
        apex(domain, &at_domain),
        wildcard(domain, &at_probe, &at_connect),
        session_api(&connect, &at_connect),
    ];
    checks.push(caa(domain, ca, &issuers));
    let reached = match at_connect {
        Answer::Found(found) => found.addresses.into_iter().collect(),
        Answer::Nothing | Answer::Unknown(_) => Vec::new(),
    };
    (checks, reached)
}

fn nobody_answers(name: &str, why: &str) -> Check {
    Check::fail(
        name,
        format!("no answer from DNS: {why}"),
        "Look at the resolver of this machine, then at the name servers of the domain.",
    )
}

/// The domain itself needs no address: visitors come to names below it.
fn apex(domain: &str, answer: &Answer<Addresses>) -> Check {
    const NAME: &str = "dns domain";
    match answer {
        Answer::Found(found) => Check::ok(NAME, format!("{domain} is at {}", found.shown())),
        Answer::Nothing => Check::ok(NAME, format!("{domain} has no address of its own, and needs none")),
        Answer::Unknown(why) => nobody_answers(NAME, why),
    }
}

fn wildcard(domain: &str, probe: &Answer<Addresses>, connect: &Answer<Addresses>) -> Check {
    const NAME: &str = "dns wildcard";
    match (probe, connect) {
        (Answer::Unknown(why), _) => nobody_answers(NAME, why),
        (Answer::Nothing, _) => Check::fail(
            NAME,
            format!("*.{domain} leads nowhere, so no instance can be visited"),
            format!(
                "Make a record *.{domain}: A and AAAA with the proxy's addresses, or a CNAME to its name."
            ),
        ),
        (Answer::Found(probe), Answer::Found(connect)) if probe.addresses != connect.addresses => {
            Check::warn(
                NAME,
                format!("*.{domain} is at {}, connect.{domain} at {}", probe.shown(), connect.shown()),
                "Fine if both lead to proxies of this installation; else one of the records is out of date.",
            )
        }
        (Answer::Found(probe), _) => Check::ok(NAME, format!("*.{domain} is at {}", probe.shown())),
    }
}

fn session_api(connect: &str, answer: &Answer<Addresses>) -> Check {
    const NAME: &str = "dns connect";
    match answer {
        Answer::Found(found) => Check::ok(NAME, format!("{connect} is at {}", found.shown())),
        Answer::Nothing => Check::fail(
            NAME,
            format!("{connect} has no address, so no agent finds the proxy"),
            format!("Make a record {connect}, or one for the wildcard."),
        ),
        Answer::Unknown(why) => nobody_answers(NAME, why),
    }
}

fn caa(domain: &str, ca: &str, answer: &Answer<super::resolver::Issuers>) -> Check {
    const NAME: &str = "dns CAA";
    match answer {
        Answer::Unknown(why) => Check::fail(
            NAME,
            format!("no answer from DNS: {why}"),
            "A CA that gets no answer either issues nothing: mend the name servers.",
        ),
        Answer::Nothing => Check::warn(
            NAME,
            format!("{domain} has no CAA record: every CA of the world may issue for the names below it"),
            format!("A record such as `{domain}. CAA 0 issue \"{ca}\"` leaves it to one."),
        ),
        Answer::Found(issuers) if !issuers.allow(ca) => Check::fail(
            NAME,
            format!("the records at {} let {} issue, not {ca}", issuers.at, issuers.issue.join(" and ")),
            format!("Add `CAA 0 issue \"{ca}\"`, or name the CA you use with --ca."),
        ),
        Answer::Found(issuers) if issuers.bound_to_an_account() => {
            Check::ok(NAME, format!("the records at {} bind it to an account of {ca}", issuers.at))
        }
        Answer::Found(issuers) => Check::ok(NAME, format!("the records at {} allow {ca}", issuers.at)),
    }
}

/// Do programs of this machine find names below `localhost`?
pub async fn loopback_names() -> Check {
    const NAME: &str = "*.localhost";
    let probe = format!("{PROBE}.localhost");
    let found: Vec<_> = match tokio::net::lookup_host((probe.as_str(), 443)).await {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(_) => Vec::new(),
    };
    if found.is_empty() {
        return Check::warn(
            NAME,
            "the system's resolver does not know names below localhost; browsers and curl do without it",
            "For other programs: a line `127.0.0.1 home.localhost` in /etc/hosts, or the package libnss-myhostname.",
        );
    }
    match found.iter().find(|ip| !ip.is_loopback()) {
        Some(elsewhere) => Check::fail(
            NAME,
            format!("names below localhost lead to {elsewhere}, which is not this machine"),
            "Look for a wildcard in the search domains of /etc/resolv.conf.",
        ),
        None => Check::ok(NAME, "names below localhost lead to this machine"),
    }
}
