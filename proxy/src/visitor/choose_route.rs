//! Whose visitor is it, and may they come in? Decided from the route table and nothing else.

use std::net::IpAddr;

use policy::{Admission, ReportedVersion};
use route_table::{HostName, Route, RouteRefusal, RouteTable, SESSION_LABEL};

use super::{client_hello::ClientHello, refuse::Refusal};

/// Where a visitor goes.
#[derive(Debug)]
pub enum Choice {
    /// To the session API.
    SessionApi,
    /// To an instance.
    Instance {
        /// Its route; none where the proxy has no table and serves whatever tunnels name.
        route: Option<Route>,
        /// The host asked for, lower case.
        host: String,
        /// It is a certificate authority that validates the name.
        validation: bool,
    },
    /// Nowhere.
    Refused {
        /// Why.
        why: Refusal,
        /// The host asked for, as far as one could be read.
        host: String,
    },
}

/// | host                          | route                     | visitor's network | choice               |
/// |-------------------------------|---------------------------|-------------------|----------------------|
/// | none, or not a hostname       | -                         | -                 | refused, no name     |
/// | `connect.` + domain           | -                         | -                 | session API          |
/// | any                           | no table: drop-in server  | -                 | instance             |
/// | not in the table              | -                         | -                 | refused, unknown     |
/// | in the table                  | not understood            | -                 | refused              |
/// | in the table                  | disabled                  | -                 | refused, disabled    |
/// | in the table                  | version blocked           | -                 | refused, blocked     |
/// | in the table                  | serves                    | not let in        | refused, network     |
/// | in the table, `acme-tls/1`    | serves                    | not let in        | instance             |
/// | in the table                  | serves                    | let in            | instance             |
///
/// A blocked version is looked at before the network, so that whom a block concerns does not depend on
/// who asks. Authorities that validate a name come from addresses nobody knows beforehand.
pub fn choose_route(
    table: Option<&RouteTable>,
    domain: Option<&str>,
    hello: &ClientHello<'_>,
    visitor: IpAddr,
    reported: impl FnOnce(&Route) -> Option<ReportedVersion>,
) -> Choice {
    let host = match hello.server_name() {
        Ok(name) => name.to_ascii_lowercase(),
        Err(problem) => return Choice::Refused { why: Refusal::NoName(problem), host: String::new() },
    };
    let domain = domain.or_else(|| table.and_then(|table| table.domain.as_ref()).map(HostName::as_str));
    if let Some(domain) = domain
        && let Some((label, rest)) = host.split_once('.')
        && label == SESSION_LABEL
        && rest == domain
    {
        return Choice::SessionApi;
    }
    let validation = hello.only_acme_tls_1;
    let Some(table) = table else { return Choice::Instance { route: None, host, validation } };
    let Some(route) = table.by_host(&host) else {
        return Choice::Refused { why: Refusal::UnknownHost, host };
    };
    let refused = route_refusal(route, reported(route).as_ref())
        .or_else(|| (!validation && !route.admits_network(visitor)).then_some(Refusal::Network));
    match refused {
        Some(why) => Choice::Refused { why, host },
        None => Choice::Instance { route: Some(route.clone()), host, validation },
    }
}

/// Why a route serves nobody, if so.
pub fn route_refusal(route: &Route, reported: Option<&ReportedVersion>) -> Option<Refusal> {
    match route.refusal() {
        Some(RouteRefusal::NotUnderstood(_)) => return Some(Refusal::NotUnderstood),
        Some(RouteRefusal::Disabled) => return Some(Refusal::Disabled),
        None => {}
    }
    match route.admit(reported) {
        Admission::Admitted { .. } => None,
        Admission::Refused { .. } | Admission::RefusedUnknown { .. } => Some(Refusal::Blocked),
    }
}
