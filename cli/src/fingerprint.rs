//! `latchkey fingerprint`: which certificate a visitor is shown, from wherever this runs.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use route_table::Fingerprint;

use crate::output::{self, harmless};
use crate::visit::{Place, Seen, visit};

/// Somebody else answered.
const DIFFERS: u8 = 4;

const EXAMPLES: &str = "\
Examples:
  What visitors of an instance are shown:
    latchkey fingerprint https://home.example.com/

  Of an installation on this machine, before there is any DNS:
    latchkey fingerprint https://home.localhost:8443/ --connect 127.0.0.1:8443

  In a script: exit code 4 says that somebody else answered. `latchkey-agent fingerprint` prints what to expect:
    latchkey fingerprint https://home.example.com/ --expect 9C:6B:2F:0D:51:E3:A7:84:C0:1B:5E:F2:39:7D:A8:46:1F:E0:B3:6C:92:D5:08:4A:7E:C1:33:F6:59:8B:20:ED";

/// Whom to visit.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct FingerprintArgs {
    /// URL of the instance; https and port 443 unless it says otherwise
    pub url: Place,
    /// Go to this address, whatever DNS says of the URL's host
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: Option<String>,
    /// SHA-256 fingerprint that must be seen; exit code 4 where it is another
    #[arg(long, value_name = "FINGERPRINT")]
    pub expect: Option<Fingerprint>,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout: u64,
}

/// The command.
pub fn run(args: &FingerprintArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&error.to_string()),
    };
    let limit = Duration::from_secs(args.timeout);
    let seen = match runtime.block_on(visit(&args.url, args.connect.as_deref(), limit)) {
        Ok((seen, _)) => seen,
        Err(error) => return output::fail(&format!("{}: {error}", args.url)),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let code = output::print(&told(&seen, i64::try_from(now).unwrap_or(i64::MAX)));
    match args.expect {
        Some(expected) if expected.to_string() != seen.facts.fingerprint_sha256 => {
            output::complain(&format!(
                "somebody else answered: expected {expected}, seen {}. Unless the certificate was renewed (ask the \
                 instance: latchkey-agent fingerprint), do not type a password there",
                seen.facts.fingerprint_sha256
            ));
            ExitCode::from(DIFFERS)
        }
        _ => code,
    }
}

/// In the words and columns of `latchkey-agent fingerprint`, so that the two can be held against each other.
fn told(seen: &Seen, now: i64) -> String {
    let facts = &seen.facts;
    let mut text = String::new();
    let _ = writeln!(text, "SHA-256 fingerprint  {}", facts.fingerprint_as_browsers_show_it());
    let _ = writeln!(text, "public key SHA-256   {}", facts.public_key_sha256);
    let _ = writeln!(text, "names                {}", harmless(&facts.names.join(", ")));
    let _ = writeln!(text, "issuer               {}", harmless(&facts.issuer));
    let _ = writeln!(text, "expires              {} ({})", facts.not_after, left(facts.not_after_unix - now));
    let trusted = seen.trusted.as_ref().map_or_else(|why| format!("no: {why}"), |()| "yes".to_owned());
    let _ = writeln!(text, "trusted here         {trusted}");
    let _ = writeln!(text, "connection           {} with {}", seen.protocol, seen.address);
    text
}

fn left(seconds: i64) -> String {
    match (seconds / 86_400, seconds) {
        (_, ..=0) => "expired".to_owned(),
        (0, _) => "today".to_owned(),
        (1, _) => "in 1 day".to_owned(),
        (days, _) => format!("in {days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_told_in_days() {
        let shown = [-5, 0, 1, 86_399, 86_400, 172_800].map(left);
        assert_eq!(shown, ["expired", "expired", "today", "today", "in 1 day", "in 2 days"]);
    }
}
