//! Which installation is looked at: a folder's, or one that was named.

use std::path::PathBuf;

use latchkey_agent::state_folder::StateFolder;
use manifest_folder::{
    Cache, DEFAULT_DOMAIN, InstallationChoice, LastGood, Reading, Settled, Subject, settle,
};

use super::DoctorArgs;
use super::check::Check;
use super::names::is_loopback;
use crate::state_place::{Record, state_folder};

/// Where `latchkey up` listens unless it is told otherwise.
const UP_PORT: u16 = 8443;
const HTTPS: u16 = 443;

/// What is looked at.
#[derive(Debug)]
pub struct Installation {
    /// Its domain.
    pub domain: String,
    /// The port of its URLs.
    pub port: u16,
    /// Where its proxy is, if not where DNS says.
    pub connect: Option<String>,
    /// How many instances its folder has.
    pub instances: Option<usize>,
    /// Where `latchkey up` keeps its state.
    pub state: Option<PathBuf>,
    /// Whether the folder could be read.
    pub manifests: Option<Check>,
}

impl Installation {
    /// What the arguments name.
    pub fn of(args: &DoctorArgs) -> Result<Self, String> {
        let asked = args.domain.as_ref().map(ToString::to_string);
        let Some(folder) = &args.folder else {
            let domain = asked.ok_or("name a folder of manifests, or --domain NAME")?;
            let port = if is_loopback(&domain) { UP_PORT } else { HTTPS };
            let connect = args.connect.clone();
            let state = args.state.clone();
            return Ok(Self { domain, port, connect, instances: None, state, manifests: None });
        };
        let settled = settle(&Reading::of_path(folder, &mut Cache::default()), &LastGood::new());
        let (domain, stated_port) = stated(&settled);
        let state = state_folder(folder, args.state.as_deref())?;
        // What `latchkey up` left there: where it listens.
        let server =
            Record::read(&StateFolder::existing(&state)).ok().flatten().and_then(|record| record.server);
        let at_up = server.as_ref().and_then(|server| server.rsplit_once(':')?.1.parse().ok());
        let domain = asked.unwrap_or(domain);
        let instances =
            settled.objects.keys().filter(|subject| matches!(subject, Subject::Instance(_))).count();
        Ok(Self {
            port: stated_port.or(at_up).unwrap_or(if is_loopback(&domain) { UP_PORT } else { HTTPS }),
            connect: args.connect.clone().or_else(|| server.filter(|_| is_loopback(&domain))),
            domain,
            instances: Some(instances),
            state: Some(state),
            manifests: Some(manifests(&settled, instances)),
        })
    }
}

fn stated(settled: &Settled) -> (String, Option<u16>) {
    match &settled.installation {
        InstallationChoice::Stated(stated) => {
            let port = stated.states_public_port.then_some(stated.spec.public_port);
            (stated.spec.domain.to_string(), port)
        }
        InstallationChoice::Unstated | InstallationChoice::Unknown => (DEFAULT_DOMAIN.to_owned(), None),
    }
}

fn manifests(settled: &Settled, instances: usize) -> Check {
    const NAME: &str = "manifests";
    match settled.faults.len() {
        0 => Check::ok(NAME, format!("sound, with {instances} RemoteInstance objects")),
        count => Check::fail(
            NAME,
            format!("something is wrong in {count} places"),
            "`latchkey plan -f FOLDER` shows each one.",
        ),
    }
}
