//! What the CA allows for this domain. Numbers are those of Let's Encrypt, which others resemble.

use super::check::Check;

/// New certificates a week for one registered domain.
const A_WEEK: usize = 50;
/// New accounts from one address (IPv4, or IPv6 /48) in three hours.
const ACCOUNTS: usize = 10;

/// The checks. `instances`: how many the folder has, where there is a folder.
pub fn certificate_limits(domain: &str, instances: Option<usize>) -> Vec<Check> {
    const NAME: &str = "CA a week";
    let mut checks = vec![match registered(domain) {
        Registered::NotPublic => {
            Check::skipped(NAME, format!("no public CA issues for names below {domain}"))
        }
        Registered::EachInstance => {
            Check::ok(NAME, format!("{domain} is on the Public Suffix List: each instance counts for itself"))
        }
        Registered::Domain(registered) => shared(&registered, instances),
    }];
    checks.push(match instances {
        Some(count) if count > ACCOUNTS => Check::warn(
            "CA accounts",
            format!("{count} instances make an account each, and {ACCOUNTS} may be made from one address in 3 h"),
            "Where many of them share an address (one house, one data centre), start them in groups, or configure an \
             account that they share.",
        ),
        _ => Check::ok("CA accounts", format!("{ACCOUNTS} may be made from one address in 3 h")),
    });
    checks.push(Check::ok(
        "CA duplicates",
        "5 certificates a week for the same names: keep the state folder of every agent, it holds the certificate",
    ));
    checks
}

fn shared(registered: &str, instances: Option<usize>) -> Check {
    const NAME: &str = "CA a week";
    let found =
        format!("all names below {registered} share {A_WEEK} new certificates a week (renewals are free)");
    match instances {
        Some(count) if count > A_WEEK => Check::warn(
            NAME,
            format!("{found}; {count} instances take {} weeks", count.div_ceil(A_WEEK)),
            format!(
                "Ask the CA for an exemption, use one with external account binding, or have {registered} put on the \
                 Public Suffix List (then each instance counts for itself)."
            ),
        ),
        Some(count) => Check::ok(NAME, format!("{found}; there are {count} instances")),
        None => Check::ok(NAME, found),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Registered {
    NotPublic,
    EachInstance,
    Domain(String),
}

/// By what the CA counts the certificates of names below a domain.
fn registered(domain: &str) -> Registered {
    let Some(suffix) = psl::suffix(domain.as_bytes()).filter(psl::Suffix::is_known) else {
        return Registered::NotPublic;
    };
    if suffix == domain {
        return Registered::EachInstance;
    }
    psl::domain_str(domain).map_or(Registered::NotPublic, |found| Registered::Domain(found.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    #[test]
    fn certificates_are_counted_by_the_registered_domain() {
        let domain = |name: &str| Registered::Domain(name.to_owned());
        for (name, expected) in [
            ("ui.example.com", domain("example.com")),
            ("example.com", domain("example.com")),
            ("a.b.example.co.uk", domain("example.co.uk")),
            ("github.io", Registered::EachInstance),
            ("lab.github.io", domain("lab.github.io")),
            ("localhost", Registered::NotPublic),
            ("house.internal", Registered::NotPublic),
        ] {
            assert_eq!(registered(name), expected, "{name}");
        }
    }

    #[test]
    fn a_fleet_larger_than_a_week_is_told_how_long_it_takes() {
        let verdicts = |count| {
            let checks = certificate_limits("ui.example.com", count);
            checks.iter().map(|check| check.verdict).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(None), [Verdict::Ok; 3]);
        assert_eq!(verdicts(Some(10)), [Verdict::Ok; 3]);
        assert_eq!(verdicts(Some(50)), [Verdict::Ok, Verdict::Warn, Verdict::Ok]);
        let fleet = certificate_limits("ui.example.com", Some(120));
        assert!(fleet[0].found.contains("120 instances take 3 weeks"), "{fleet:?}");
    }
}
