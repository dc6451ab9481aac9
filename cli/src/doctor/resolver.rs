//! DNS, with the difference between "there is none" and "nobody answers", which the system's resolver hides.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

const ASK_AGAIN: usize = 2;
const PER_QUERY: Duration = Duration::from_secs(2);

/// Answers questions.
#[derive(Clone)]
pub struct Resolver(TokioResolver);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// What DNS says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// These records.
    Found(T),
    /// For certain none.
    Nothing,
    /// Nobody answers, or with an error: that says nothing about the name.
    Unknown(String),
}

/// Addresses of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4 and IPv6.
    pub addresses: BTreeSet<IpAddr>,
    /// The names that the name stands for.
    pub aliases: Vec<String>,
}

/// What a CAA record set allows: the closest one up the tree holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Issuers {
    /// Where the records are.
    pub at: String,
    /// Values of `issue`.
    pub issue: Vec<String>,
    /// Other tags, each with its value.
    pub others: Vec<String>,
}

impl Resolver {
    /// The system's name servers, or this one.
    pub fn new(server: Option<SocketAddr>) -> Result<Self, String> {
        let mut builder = match server {
            None => TokioResolver::builder_tokio()
                .map_err(|error| format!("the system's DNS settings cannot be read: {error}"))?,
            Some(address) => {
                let mut server = NameServerConfig::udp_and_tcp(address.ip());
                for connection in &mut server.connections {
                    connection.port = address.port();
                }
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options: &mut ResolverOpts = builder.options_mut();
        options.timeout = PER_QUERY;
        options.attempts = ASK_AGAIN;
        options.cache_size = 64;
        builder.build().map(Self).map_err(|error| error.to_string())
    }

    /// A and AAAA records, through any CNAME.
    pub async fn addresses(&self, name: &str) -> Answer<Addresses> {
        let (v4, v6) = tokio::join!(self.ask(name, RecordType::A), self.ask(name, RecordType::AAAA));
        let mut found = Addresses::default();
        let mut unknown = None;
        for answer in [v4, v6] {
            match answer {
                Answer::Found(records) => {
                    for record in &records {
                        found.add(record);
                    }
                }
                Answer::Nothing => {}
                Answer::Unknown(why) => unknown = Some(why),
            }
        }
        match unknown {
            _ if !found.addresses.is_empty() => Answer::Found(found),
            Some(why) => Answer::Unknown(why),
            None => Answer::Nothing,
        }
    }

    /// The CAA records that hold for a name: its own, else of the closest name above it.
    pub async fn issuers(&self, name: &str) -> Answer<Issuers> {
        let mut at = name;
        loop {
            match self.ask(at, RecordType::CAA).await {
                Answer::Found(records) => {
                    let mut issuers = Issuers { at: at.to_owned(), ..Issuers::default() };
                    for record in &records {
                        issuers.add(record);
                    }
                    // A CNAME without records behind it is an answer, too.
                    if !issuers.issue.is_empty() || !issuers.others.is_empty() {
                        return Answer::Found(issuers);
                    }
                }
                Answer::Nothing => {}
                Answer::Unknown(why) => return Answer::Unknown(why),
            }
            match at.split_once('.') {
                Some((_, above)) => at = above,
                None => return Answer::Nothing,
            }
        }
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Answer<Vec<Record>> {
        // The dot at the end keeps the search list of this machine out of it.
        let name = match Name::from_ascii(format!("{name}.")) {
            Ok(name) => name,
            Err(error) => return Answer::Unknown(error.to_string()),
        };
        match self.0.lookup(name, kind).await {
            Ok(lookup) => Answer::Found(lookup.answers().to_vec()),
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Answer::Nothing,
            Err(error) => Answer::Unknown(error.to_string()),
        }
    }
}

impl Addresses {
    fn add(&mut self, record: &Record) {
        match &record.data {
            RData::A(address) => drop(self.addresses.insert(IpAddr::V4(address.0))),
            RData::AAAA(address) => drop(self.addresses.insert(IpAddr::V6(address.0))),
            RData::CNAME(target) => {
                let alias = target.0.to_ascii().trim_end_matches('.').to_owned();
                if !self.aliases.contains(&alias) {
                    self.aliases.push(alias);
                }
            }
            _ => {}
        }
    }

    /// For a message.
    pub fn shown(&self) -> String {
        let list: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        let by = if self.aliases.is_empty() {
            String::new()
        } else {
            format!(" (CNAME {})", self.aliases.join(", "))
        };
        list.join(", ") + &by
    }
}

impl Issuers {
    fn add(&mut self, record: &Record) {
        if let RData::CAA(caa) = &record.data {
            let value = String::from_utf8_lossy(&caa.value).into_owned();
            if caa.tag.eq_ignore_ascii_case("issue") {
                self.issue.push(value);
            } else {
                self.others.push(format!("{} {value}", caa.tag));
            }
        }
    }

    /// May this CA issue? Without any `issue` everybody may.
    pub fn allow(&self, ca: &str) -> bool {
        let named = |value: &String| {
            value.split(';').next().is_some_and(|domain| domain.trim().eq_ignore_ascii_case(ca))
        };
        self.issue.is_empty() || self.issue.iter().any(named)
    }

    /// Is it bound to one account, so that others with the domain in their hands get nothing?
    pub fn bound_to_an_account(&self) -> bool {
        !self.issue.is_empty()
            && self.issue.iter().all(|value| value.contains("accounturi") || value.trim() == ";")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuers(issue: &[&str]) -> Issuers {
        Issuers { issue: issue.iter().map(ToString::to_string).collect(), ..Issuers::default() }
    }

    #[test]
    fn who_may_issue() {
        assert!(issuers(&[]).allow("letsencrypt.org"));
        assert!(issuers(&["LetsEncrypt.org; validationmethods=tls-alpn-01"]).allow("letsencrypt.org"));
        assert!(!issuers(&[";"]).allow("letsencrypt.org"));
        assert!(!issuers(&["other.example"]).allow("letsencrypt.org"));
        assert!(!issuers(&["letsencrypt.org.evil.example"]).allow("letsencrypt.org"));
        assert!(issuers(&["other.example", "letsencrypt.org"]).allow("letsencrypt.org"));
    }

    #[test]
    fn bound_to_an_account() {
        assert!(!issuers(&[]).bound_to_an_account());
        assert!(!issuers(&["letsencrypt.org"]).bound_to_an_account());
        assert!(issuers(&["letsencrypt.org; accounturi=https://ca.example/acct/1"]).bound_to_an_account());
    }
}
