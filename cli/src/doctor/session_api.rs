//! The session API that agents ask: does it answer, with which certificate, and what time is it there?

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::check::Check;
use crate::visit::{Place, Seen, VisitError, visit};

const LIMIT: Duration = Duration::from_secs(10);
/// An answer's head.
const LONGEST_HEAD: usize = 16 * 1024;
/// Certificates of the API live for weeks and are renewed long before.
const SOON: i64 = 7 * 86_400;
/// `Date` counts whole seconds, and an answer takes a while.
const FINE: Duration = Duration::from_secs(5);
/// Beyond this, certificates and tokens that were just made are not valid yet.
const BEARABLE: Duration = Duration::from_mins(1);

/// The checks of the certificate and of the clock.
pub async fn session_api(domain: &str, port: u16, connect: &str, ca: Option<&Path>) -> Vec<Check> {
    const NAME: &str = "session API";
    let place = Place { host: format!("connect.{domain}"), port };
    let (seen, stream) = match visit(&place, Some(connect), LIMIT).await {
        Ok(visited) => visited,
        Err(error @ VisitError::Refused(_)) => {
            let found = format!("{place}: {error}");
            let next = "The proxy that answers there serves another domain, or has no session API: compare its settings.";
            return vec![Check::fail(NAME, found, next), Check::skipped("clock", "no session API to ask")];
        }
        Err(error) => {
            let next = "Agents cannot get a session until this works.";
            return vec![
                Check::fail(NAME, format!("{place}: {error}"), next),
                Check::skipped("clock", "no session API to ask"),
            ];
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut checks =
        vec![Check::ok(NAME, format!("{place} answers ({} with {})", seen.protocol, seen.address))];
    checks.push(expiry(&seen, now));
    checks.push(pin(&seen, ca));
    checks.push(clock(&place, stream).await);
    checks
}

fn expiry(seen: &Seen, now: i64) -> Check {
    const NAME: &str = "API certificate";
    let facts = &seen.facts;
    let found = format!("expires {}, fingerprint {}", facts.not_after, facts.fingerprint_sha256);
    match facts.not_after_unix - now {
        ..=0 => Check::fail(NAME, found, "It has expired. The proxy renews it at its start: restart it."),
        1..SOON => {
            Check::warn(NAME, found, "It ends within a week; a proxy that runs should have renewed it.")
        }
        _ => Check::ok(NAME, found),
    }
}

/// Agents trust the installation's own CA and no other.
fn pin(seen: &Seen, ca: Option<&Path>) -> Check {
    const NAME: &str = "API pin";
    let Some(path) = ca else {
        return Check::skipped(NAME, "name the folder of the installation to compare with its CA");
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Check::skipped(NAME, format!("{} is not there: `latchkey up` makes it", path.display()));
        }
        Err(error) => {
            return Check::fail(NAME, format!("{}: {error}", path.display()), "Let it be read by its owner.");
        }
    };
    let place = path.display();
    match seen.signed_by(&text) {
        Ok(()) => Check::ok(NAME, format!("signed by the CA in {place}")),
        Err(why) => Check::fail(
            NAME,
            format!("not signed by the CA in {place}: {why}"),
            "Another installation answers there, or the CA was made anew: agents need new bundles (`latchkey join`).",
        ),
    }
}

async fn clock(place: &Place, mut stream: TlsStream<TcpStream>) -> Check {
    const NAME: &str = "clock";
    let (asked, began) = (SystemTime::now(), Instant::now());
    let told = match timeout(LIMIT, date(place, &mut stream)).await {
        Ok(Ok(told)) => told,
        Ok(Err(why)) => {
            return Check::skipped(NAME, format!("the session API does not tell the time: {why}"));
        }
        Err(_) => return Check::skipped(NAME, "the session API took too long to tell the time"),
    };
    judge(told, asked, SystemTime::now(), began.elapsed())
}

/// The `Date` of an answer, whatever the answer.
async fn date(place: &Place, stream: &mut TlsStream<TcpStream>) -> Result<SystemTime, String> {
    let request = format!("HEAD / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", place.host);
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut head = Vec::new();
    while head.len() < LONGEST_HEAD && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.map_err(|error| error.to_string())? == 0 {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head);
    let date = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date").then(|| value.trim())
    });
    httpdate::parse_http_date(date.ok_or("no Date in its answer")?).map_err(|error| error.to_string())
}

/// What the difference means.
///
/// | our clock, while the API answered | finding |
/// |---|---|
/// | was set meanwhile (wall clock and steady clock differ by more than 1 s) | warn: nothing can be told |
/// | differs by 5 s at most | ok |
/// | by a minute at most | warn |
/// | by more | fail |
fn judge(told: SystemTime, asked: SystemTime, answered: SystemTime, took: Duration) -> Check {
    const NAME: &str = "clock";
    let walked = answered.duration_since(asked).ok();
    if walked.is_none_or(|walked| walked.abs_diff(took) > Duration::from_secs(1)) {
        return Check::warn(NAME, "the clock of this machine was set while it was looked at", "Ask again.");
    }
    // Anything between asking and the answer is no difference at all.
    let ahead = asked.duration_since(told + Duration::from_secs(1)).unwrap_or_default();
    let behind = told.duration_since(answered).unwrap_or_default();
    let (off, word) = if ahead > behind { (ahead, "ahead of") } else { (behind, "behind") };
    let found = format!("this machine is {} s {word} the session API", off.as_secs());
    let next = "Let one of the two take its time from the network (chrony, systemd-timesyncd).";
    if off <= FINE {
        Check::ok(NAME, "this machine and the session API agree about the time")
    } else if off <= BEARABLE {
        Check::warn(NAME, found, next)
    } else {
        Check::fail(NAME, found, format!("Certificates and tokens fail by this. {next}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    #[test]
    fn clocks_are_judged() {
        let base = UNIX_EPOCH + Duration::from_hours(500_000);
        let s = Duration::from_secs;
        for (told, verdict, word) in [
            (base, Verdict::Ok, "agree"),
            (base + s(6), Verdict::Ok, "agree"),
            (base - s(5), Verdict::Ok, "agree"),
            (base + s(30), Verdict::Warn, "29 s behind"),
            (base - s(31), Verdict::Warn, "30 s ahead"),
            (base + s(3600), Verdict::Fail, "behind"),
            (base - s(3600), Verdict::Fail, "ahead"),
        ] {
            let check = judge(told, base, base + s(1), s(1));
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(check.found.contains(word), "{check:?}");
        }
    }

    #[test]
    fn a_clock_that_is_set_meanwhile_is_noticed() {
        let base = UNIX_EPOCH + Duration::from_hours(500_000);
        for answered in [base + Duration::from_secs(100), base - Duration::from_secs(100)] {
            assert_eq!(judge(base, base, answered, Duration::from_secs(1)).verdict, Verdict::Warn);
        }
    }
}
