//! `latchkey doctor`: looks at everything around an installation, and says what to do about it.

pub mod certificate_limits;
pub mod check;
pub mod installation;
pub mod machine;
pub mod names;
pub mod ports;
pub mod resolver;
pub mod session_api;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use route_table::HostName;

use self::check::{Check, Findings, Form, Verdict};
use self::installation::Installation;
use self::resolver::Resolver;
use crate::output;
use crate::state_place::{CA_CERTIFICATE, CA_FOLDER};

const EXAMPLES: &str = "\
Examples:
  Everything around the installation of a folder, while `latchkey up` runs:
    latchkey doctor examples/first-minute

  An installation elsewhere, by its domain:
    latchkey doctor --domain ui.example.com

  Before DNS leads to the proxy, and with the answers of one name server:
    latchkey doctor --domain ui.example.com --connect 192.0.2.10:443 --name-server 192.0.2.53:53

  In a script: exit code 1 when something failed:
    latchkey doctor --domain ui.example.com -o json";

/// What to look at.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// Folder of manifests: its installation, its state, and how many instances there are
    #[arg(value_name = "FOLDER", required_unless_present = "domain")]
    pub folder: Option<PathBuf>,
    /// The installation's domain, where there is no folder, or instead of the folder's
    #[arg(long, value_name = "NAME")]
    pub domain: Option<HostName>,
    /// The proxy's address, whatever DNS says
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: Option<String>,
    /// Ask this DNS server instead of the system's
    #[arg(long, value_name = "IP:PORT")]
    pub name_server: Option<SocketAddr>,
    /// The CA that is to issue certificates, as CAA records name it
    #[arg(long, value_name = "NAME", default_value = "letsencrypt.org")]
    pub ca: String,
    /// The state folder, where `latchkey up` was told another one
    #[arg(long, value_name = "DIR", env = "LATCHKEY_UP_STATE")]
    pub state: Option<PathBuf>,
    /// How the findings are written
    #[arg(long, short, value_enum, value_name = "FORM", default_value = "table")]
    pub output: Form,
}

/// Looks and tells.
pub fn run(args: &DoctorArgs) -> ExitCode {
    let installation = match Installation::of(args) {
        Ok(installation) => installation,
        Err(problem) => return output::fail(&problem),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&error.to_string()),
    };
    let checks = runtime.block_on(look(args, &installation));
    // A lookup by the system's resolver may still be under way; nobody waits for it.
    runtime.shutdown_background();
    let findings = Findings::new(&installation.domain, checks);
    let printed = output::print(&findings.written(args.output));
    if findings.verdict == Verdict::Fail { ExitCode::FAILURE } else { printed }
}

async fn look(args: &DoctorArgs, installation: &Installation) -> Vec<Check> {
    let Installation { domain, port, .. } = installation;
    let mut checks: Vec<Check> = installation.manifests.iter().cloned().collect();
    let mut reached = Vec::new();
    if names::is_loopback(domain) {
        checks.push(Check::skipped("dns", format!("{domain} is this machine's own, no DNS knows it")));
        checks.push(names::loopback_names().await);
        reached.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    } else {
        match Resolver::new(args.name_server) {
            Ok(resolver) => {
                let (found, addresses) = names::names(domain, &resolver, &args.ca).await;
                checks.extend(found);
                reached = addresses;
            }
            Err(why) => checks.push(Check::fail("dns", why, "Name a server with --name-server IP:PORT.")),
        }
    }
    let at: Vec<_> = match &installation.connect {
        Some(connect) => match tokio::net::lookup_host(connect).await {
            Ok(found) => found.collect(),
            Err(error) => {
                let next = "Write it like 192.0.2.10:443.";
                checks.push(Check::fail("--connect", format!("{connect}: {error}"), next));
                Vec::new()
            }
        },
        None => reached.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect(),
    };
    checks.extend(ports::main_port(&at).await);
    if !names::is_loopback(domain) {
        checks.push(ports::plain_port(&at).await);
    }
    // Where we are told an address, or DNS gave one, it is that one: what answers there is what agents find.
    let connect = at.first().map(ToString::to_string);
    if let Some(connect) = connect {
        let ca = installation.state.as_ref().map(|state| state.join(CA_FOLDER).join(CA_CERTIFICATE));
        checks.extend(session_api::session_api(domain, *port, &connect, ca.as_deref()).await);
    } else {
        checks.push(Check::skipped("session API", "there is no address to ask"));
    }
    checks.extend(certificate_limits::certificate_limits(domain, installation.instances));
    checks.push(machine::descriptors());
    checks.push(machine::watches());
    checks.push(machine::state_folder(installation.state.as_deref()));
    checks
}
