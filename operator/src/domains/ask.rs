//! Asks name servers.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RecordType};
use planner::ProofAnswer;

use super::agenda::Task;
use super::answer::{self, Told};
use super::schedule::Look;
use super::{DomainsError, Settings};

/// Room beyond the resolver's own limits, which should always come first.
const GRACE: Duration = Duration::from_secs(1);

/// Asks about one domain at a time; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    resolver: TokioResolver,
    /// For one question, whatever the resolver does.
    limit: Duration,
}

impl Asker {
    pub(super) fn new(settings: &Settings) -> Result<Self, DomainsError> {
        let mut builder = if settings.name_servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| DomainsError::System(error.to_string()))?
        } else {
            let servers = settings.name_servers.iter().copied().map(name_server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        set_options(builder.options_mut(), settings);
        let resolver = builder.build().map_err(|error| DomainsError::Resolver(error.to_string()))?;
        let tries = u32::try_from(settings.tries).unwrap_or(u32::MAX);
        Ok(Self { resolver, limit: settings.time_out.saturating_mul(tries) + GRACE })
    }

    /// Asks for one record and, if that does not show the domain, for the other.
    pub(super) async fn look(&self, task: &Task) -> Look {
        let kinds = [ProofAnswer::Txt, ProofAnswer::Cname];
        let kinds = if task.cname_first { [kinds[1], kinds[0]] } else { kinds };
        let (mut remembered, mut trouble) = (Duration::ZERO, None);
        for kind in kinds {
            match self.told(kind, task).await {
                Told::Shown(remembered) => return Look::Answer(kind, remembered),
                Told::NotShown(so_long) => remembered = remembered.max(so_long),
                Told::Trouble(why) => trouble = trouble.or(Some(why)),
            }
        }
        // Only two denials are a denial.
        trouble.map_or(Look::Answer(ProofAnswer::Missing, remembered), Look::Trouble)
    }

    async fn told(&self, kind: ProofAnswer, task: &Task) -> Told {
        let wanted = &*task.wanted;
        if kind == ProofAnswer::Cname {
            let names = (name(wanted.domain.as_str()), name(wanted.cname_target.as_str()));
            let (Some(domain), Some(target)) = names else { return Told::NotShown(Duration::ZERO) };
            answer::cname(self.ask(domain.clone(), RecordType::CNAME).await, &domain, &target)
        } else {
            // A domain of 250 characters has no room for one more label: there can be no such record.
            let Some(at) = name(&wanted.txt_name) else { return Told::NotShown(Duration::ZERO) };
            answer::txt(self.ask(at, RecordType::TXT).await, &wanted.txt_value)
        }
    }

    async fn ask(&self, name: Name, kind: RecordType) -> Result<hickory_resolver::lookup::Lookup, NetError> {
        let asked = tokio::time::timeout(self.limit, self.resolver.lookup(name, kind)).await;
        asked.unwrap_or(Err(NetError::Timeout))
    }
}

/// The name as it is, below no search domain.
fn name(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

fn set_options(options: &mut ResolverOpts, settings: &Settings) {
    options.timeout = settings.time_out;
    // What the resolver counts is how often it tries again.
    options.attempts = settings.tries.saturating_sub(1);
    // The schedule knows when to ask, and then wants to know.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
}
