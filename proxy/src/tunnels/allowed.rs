//! What the table allows a tunnel: asked when one opens, and again of every open one whenever the table changes.

use std::sync::Arc;

use policy::ReportedVersion;
use route_table::{Fingerprint, Route, RouteRefusal, RouteTable};
use snitun::token::LatchkeyClaims;

use super::registry::Session;
use crate::metrics::TunnelOpenResult;

/// What a token gives a right to, if the table agrees.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    /// The instances, or hostnames, and how many tunnels each may have.
    pub holds: Vec<(Arc<str>, u32)>,
    /// The key the agent proved when it got its session.
    pub proven: Option<Fingerprint>,
    /// The version the agent reported with its session.
    pub reported: Option<ReportedVersion>,
}

/// | table | claims of ours  | route                               | grant                            |
/// |-------|-----------------|-------------------------------------|----------------------------------|
/// | none  | -               | -                                   | every hostname of the token      |
/// | any   | yes             | no route of that id                 | unknown instance                 |
/// | any   | yes             | another generation, or key removed  | old key                          |
/// | any   | none            | no route of that hostname           | unknown instance                 |
/// | any   | any             | not understood, disabled or blocked | refused as such                  |
/// | any   | any             | serves                              | the instance                     |
///
/// Asked when a tunnel opens, and again for every open tunnel whenever the table changes.
pub fn decide(
    table: Option<&RouteTable>,
    names: &[&str],
    claims: Option<&LatchkeyClaims>,
) -> Result<Grant, TunnelOpenResult> {
    let Some(table) = table else {
        // As in the reference, every name is held by one session at a time.
        let holds = names.iter().map(|name| (Arc::from(*name), 1)).collect();
        return Ok(Grant { holds, proven: None, reported: None });
    };
    let route = route_of(table, names.first().copied(), claims)?;
    let proven = claims.and_then(|claims| claims.key.parse::<Fingerprint>().ok());
    let reported = claims.map(|claims| ReportedVersion::read(&claims.version, route.product.scheme()));
    admit(route, claims, proven.as_ref(), reported.as_ref())?;
    Ok(Grant { holds: vec![(Arc::from(route.id.as_str()), route.tunnels)], proven, reported })
}

fn route_of<'a>(
    table: &'a RouteTable,
    first_name: Option<&str>,
    claims: Option<&LatchkeyClaims>,
) -> Result<&'a Route, TunnelOpenResult> {
    let route = match claims {
        Some(claims) => table.by_id(&claims.instance),
        None => first_name.and_then(|name| table.by_host(name)),
    };
    route.ok_or(TunnelOpenResult::UnknownInstance)
}

fn admit(
    route: &Route,
    claims: Option<&LatchkeyClaims>,
    proven: Option<&Fingerprint>,
    reported: Option<&ReportedVersion>,
) -> Result<(), TunnelOpenResult> {
    let key_is_listed =
        proven.is_none_or(|key| route.agent_keys.iter().any(|known| known.fingerprint == *key));
    if claims.is_some_and(|claims| claims.generation != route.generation || !key_is_listed) {
        return Err(TunnelOpenResult::OldKey);
    }
    match route.refusal() {
        Some(RouteRefusal::Disabled) => return Err(TunnelOpenResult::Disabled),
        Some(RouteRefusal::NotUnderstood(_)) => return Err(TunnelOpenResult::NotUnderstood),
        None => {}
    }
    if route.admit(reported).is_admitted() { Ok(()) } else { Err(TunnelOpenResult::Blocked) }
}

/// Why the table does not allow an open tunnel any more, if so: what [`decide`] says, for many tunnels at once. A change of
/// one route costs the tunnels of all others no more than a look at theirs.
pub fn refusal_now(table: Option<&RouteTable>, session: &Session) -> Option<TunnelOpenResult> {
    // Where there is no table, there never was one.
    still_allowed(table?, session).err()
}

fn still_allowed(table: &RouteTable, session: &Session) -> Result<(), TunnelOpenResult> {
    let claims = session.claims.as_ref();
    let route = route_of(table, session.names.first().map(String::as_str), claims)?;
    if is_allowed_by(session, route) {
        return Ok(());
    }
    let scheme = route.product.scheme();
    let as_read = session.reported.as_ref();
    let read_anew = match as_read {
        Some(ReportedVersion::Known(version)) if version.scheme() == scheme => None,
        // Its product may be another one by now.
        _ => claims.map(|claims| ReportedVersion::read(&claims.version, scheme)),
    };
    admit(route, claims, session.proven.as_ref(), read_anew.as_ref().or(as_read))?;
    // The route of a hostname may have become another instance's.
    if session.holds.iter().any(|held| **held != *route.id.as_str()) {
        return Err(TunnelOpenResult::UnknownInstance);
    }
    session.allowed_by.store(Some(Arc::new(route.clone())));
    Ok(())
}

fn is_allowed_by(session: &Session, route: &Route) -> bool {
    session.allowed_by.load().as_ref().is_some_and(|allowed_by| allowed_by.is_same(route))
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwapOption;
    use snitun::{cipher::CipherKind, version::ProtocolVersion};

    use super::*;
    use crate::clock;

    #[test]
    fn a_session_is_looked_at_again_only_when_its_own_route_is_another() {
        let route = |id: &str| Route::new(id.parse().unwrap());
        let table = RouteTable::from_routes(1, None, [route("homes/lake"), route("homes/hill")]).unwrap();
        let session = Session {
            thread: 0,
            holds: vec!["homes/lake".into()],
            names: Vec::new(),
            address: ([127, 0, 0, 1], 1).into(),
            revoked: std::sync::OnceLock::new(),
            allowed_by: ArcSwapOption::empty(),
            ours: Arc::default(),
            claims: None,
            proven: None,
            reported: None,
            protocol: ProtocolVersion::V2,
            cipher: CipherKind::AesGcmSiv,
            opened: clock::now(),
        };
        let lake = |table: &RouteTable| table.by_id("homes/lake").unwrap().clone();
        assert!(!is_allowed_by(&session, &lake(&table)), "nobody has looked yet");
        session.allowed_by.store(Some(Arc::new(lake(&table))));
        let next = table.changed(2, None, [route("homes/hill")], [""; 0]).unwrap();
        assert!(is_allowed_by(&session, &lake(&next)));
        let next = next.changed(3, None, [route("homes/lake")], [""; 0]).unwrap();
        assert!(!is_allowed_by(&session, &lake(&next)), "another one, however much alike");
    }
}
