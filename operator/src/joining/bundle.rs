//! The bundle: what `latchkey-agent --join` reads.

use route_table::InstanceId;
use serde::Serialize;
use zeroize::Zeroizing;

/// How agents reach the installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// `HOST:PORT` of the proxies.
    pub server: String,
    /// The name their session API answers on.
    pub server_name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bundle<'a> {
    server: &'a str,
    server_name: &'a str,
    ca: &'a str,
    join_token: &'a str,
    instance: &'a str,
}

/// The bundle as text.
pub(super) fn text(
    way: &Way,
    ca: &str,
    token: &Zeroizing<String>,
    id: &InstanceId,
) -> Result<Zeroizing<String>, serde_json::Error> {
    let Way { server, server_name } = way;
    let bundle = Bundle { server, server_name, ca, join_token: token, instance: id.as_str() };
    serde_json::to_string_pretty(&bundle).map(|text| Zeroizing::new(text + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_reads_it() {
        let way = Way {
            server: "tunnel.example.com:443".to_owned(),
            server_name: "connect.example.com".to_owned(),
        };
        let token = Zeroizing::new("lkjoin_x".to_owned());
        let text = text(&way, "PEM\n", &token, &"homes/lake".parse().unwrap()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &*text).unwrap();
        let bundle = latchkey_agent::session::join::Bundle::read(file.path()).unwrap();
        assert_eq!((&bundle.server, &bundle.server_name), (&way.server, &way.server_name));
        assert_eq!((bundle.ca.as_str(), bundle.instance.as_deref()), ("PEM\n", Some("homes/lake")));
        assert_eq!(bundle.join_token, Some(token));
    }
}
