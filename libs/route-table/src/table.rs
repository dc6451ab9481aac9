//! All routes, found by what a visitor or an agent shows.

use std::sync::Arc;

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};

use crate::MAX_ROUTES;
use crate::agent_key::Fingerprint;
use crate::error::TableError;
use crate::host_name::{HostName, with_lookup_form};
use crate::route::{InstanceId, Route};

/// The label in front of a table's domain where agents get their sessions.
pub const SESSION_LABEL: &str = "connect";

/// Keys come from the operator's own table, never from visitors, so a fast hash is safe.
type Index<K> = HashMap<K, Arc<Route>, foldhash::fast::RandomState>;

/// All routes of one revision. Never changes; a new revision is a new table.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    /// Which revision.
    pub revision: u64,
    /// The installation's domain; agents get sessions at `connect.` in front of it.
    pub domain: Option<HostName>,
    pub(crate) routes: Vec<Arc<Route>>,
    pub(crate) by_host: Index<HostName>,
    pub(crate) by_id: Index<InstanceId>,
    pub(crate) by_agent_key: Index<Fingerprint>,
}

impl RouteTable {
    /// Builds the table, or says which two routes are in each other's way.
    pub fn from_routes(
        revision: u64,
        domain: Option<HostName>,
        routes: impl IntoIterator<Item = Route>,
    ) -> Result<Self, TableError> {
        Self::from_shared(revision, domain, routes.into_iter().map(Arc::new))
    }

    /// The same from routes that somebody else holds, too.
    pub fn from_shared(
        revision: u64,
        domain: Option<HostName>,
        routes: impl IntoIterator<Item = Arc<Route>>,
    ) -> Result<Self, TableError> {
        let session_host = domain.as_ref().and_then(|domain| domain.with_label(SESSION_LABEL).ok());
        let mut table = Self { revision, domain, ..Self::default() };
        for route in routes {
            table.add(route, session_host.as_ref())?;
        }
        table.routes.shrink_to_fit();
        Ok(table)
    }

    /// This table with some routes new or different, and some gone. Costs a copy of the indexes; the routes themselves are
    /// shared. Ids in `removed` that are not there are passed over.
    pub fn changed(
        &self,
        revision: u64,
        domain: Option<HostName>,
        changed: impl IntoIterator<Item = Arc<Route>>,
        removed: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, TableError> {
        let changed: Vec<_> = changed.into_iter().collect();
        if domain != self.domain {
            // Every name has to be held against the new session host.
            let mut routes: HashMap<_, _> =
                self.routes.iter().map(|route| (route.id.clone(), Arc::clone(route))).collect();
            removed.into_iter().for_each(|id| drop(routes.remove(id.as_ref())));
            routes.extend(changed.into_iter().map(|route| (route.id.clone(), route)));
            return Self::from_shared(revision, domain, routes.into_values());
        }
        let session_host = domain.as_ref().and_then(|domain| domain.with_label(SESSION_LABEL).ok());
        let mut next = self.clone();
        next.revision = revision;
        // Everything old goes first: a name may move from one route to another.
        let mut gone: HashSet<InstanceId> = HashSet::new();
        for id in removed {
            gone.extend(next.forget(id.as_ref()));
        }
        for route in &changed {
            gone.extend(next.forget(route.id.as_str()));
        }
        next.routes.retain(|route| !gone.contains(&route.id));
        for route in changed {
            next.add(route, session_host.as_ref())?;
        }
        Ok(next)
    }

    /// Takes a route out of the indexes; it stays in the list.
    fn forget(&mut self, id: &str) -> Option<InstanceId> {
        let route = self.by_id.remove(id)?;
        for hostname in &route.hostnames {
            self.by_host.remove(hostname);
        }
        for key in &route.agent_keys {
            self.by_agent_key.remove(&key.fingerprint);
        }
        Some(route.id.clone())
    }

    fn add(&mut self, route: Arc<Route>, session_host: Option<&HostName>) -> Result<(), TableError> {
        if self.routes.len() >= MAX_ROUTES {
            return Err(TableError::TooManyRoutes);
        }
        match self.by_id.entry(route.id.clone()) {
            Entry::Vacant(free) => free.insert(Arc::clone(&route)),
            Entry::Occupied(taken) => return Err(TableError::DuplicateId { id: taken.key().clone() }),
        };
        for hostname in &route.hostnames {
            if Some(hostname) == session_host {
                return Err(TableError::ReservedHostName {
                    id: route.id.clone(),
                    hostname: hostname.clone(),
                });
            }
            match self.by_host.entry(hostname.clone()) {
                Entry::Vacant(free) => free.insert(Arc::clone(&route)),
                Entry::Occupied(taken) => {
                    return Err(TableError::DuplicateHostName {
                        hostname: hostname.clone(),
                        first: taken.get().id.clone(),
                        second: route.id.clone(),
                    });
                }
            };
        }
        for key in &route.agent_keys {
            match self.by_agent_key.entry(key.fingerprint) {
                Entry::Vacant(free) => free.insert(Arc::clone(&route)),
                Entry::Occupied(taken) => {
                    return Err(TableError::DuplicateAgentKey {
                        fingerprint: key.fingerprint,
                        first: taken.get().id.clone(),
                        second: route.id.clone(),
                    });
                }
            };
        }
        self.routes.push(route);
        Ok(())
    }

    /// The route a host name leads to, asked in any case, with or without a trailing dot. Allocates nothing.
    pub fn by_host(&self, host: &str) -> Option<&Arc<Route>> {
        with_lookup_form(host, |name| self.by_host.get(name))
    }

    /// The route of an instance.
    pub fn by_id(&self, id: &str) -> Option<&Arc<Route>> {
        self.by_id.get(id)
    }

    /// The route whose agents hold this key.
    pub fn by_agent_key(&self, fingerprint: &Fingerprint) -> Option<&Arc<Route>> {
        self.by_agent_key.get(fingerprint)
    }

    /// All routes, in the order given.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = &Arc<Route>> {
        self.routes.iter()
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Is there no route at all?
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_key::AgentKey;

    fn route(id: &str, hostnames: &[&str], keys: &[u8]) -> Route {
        let key = |byte: &u8| AgentKey { fingerprint: Fingerprint::from_bytes([*byte; 32]), generation: 1 };
        Route {
            hostnames: hostnames.iter().map(|name| name.parse().unwrap()).collect(),
            agent_keys: keys.iter().map(key).collect(),
            ..Route::new(id.parse().unwrap())
        }
    }

    fn table(routes: impl IntoIterator<Item = Route>) -> Result<RouteTable, TableError> {
        RouteTable::from_routes(7, Some("ui.example.com".parse().unwrap()), routes)
    }

    #[test]
    fn a_route_is_found_by_every_name_key_and_id() {
        let lake = route("homes/lake", &["lake.ui.example.com", "lake.example"], &[1, 2]);
        let table = table([lake, route("homes/hill", &["hill.ui.example.com"], &[3])]).unwrap();
        for host in ["lake.ui.example.com", "LAKE.ui.example.COM", "lake.example.", "Lake.Example."] {
            assert_eq!(table.by_host(host).unwrap().id.as_str(), "homes/lake", "{host}");
        }
        for host in
            ["", ".", "example", "lake.example..", "x.lake.example", &"A".repeat(300), "lake.exampleß"]
        {
            assert!(table.by_host(host).is_none(), "{host}");
        }
        assert_eq!(table.by_id("homes/hill").unwrap().id.as_str(), "homes/hill");
        assert!(table.by_id("homes/none").is_none());
        let key = |byte| Fingerprint::from_bytes([byte; 32]);
        assert_eq!(table.by_agent_key(&key(2)).unwrap().id.as_str(), "homes/lake");
        assert!(table.by_agent_key(&key(9)).is_none());
        assert_eq!(table.routes().len(), 2);
    }

    #[test]
    fn two_routes_in_each_others_way_are_both_named() {
        let error = |routes: [Route; 2]| table(routes).unwrap_err().to_string();
        let twice = error([route("homes/lake", &[], &[]), route("homes/lake", &[], &[])]);
        assert!(twice.contains("route homes/lake is listed twice"), "{twice}");
        let host =
            error([route("homes/lake", &["a.example"], &[]), route("homes/hill", &["A.example."], &[])]);
        assert!(host.contains("a.example is claimed by route homes/lake and by route homes/hill"), "{host}");
        let key = error([route("homes/lake", &[], &[1]), route("homes/hill", &[], &[1])]);
        assert!(key.contains("by route homes/lake and by route homes/hill"), "{key}");
    }

    #[test]
    fn the_session_api_keeps_its_name() {
        let error = table([route("homes/lake", &["connect.ui.example.com"], &[])]).unwrap_err().to_string();
        assert!(error.contains("homes/lake") && error.contains("get their sessions"), "{error}");
        assert!(table([route("homes/lake", &["connect.example.com"], &[])]).is_ok());
    }

    #[test]
    fn a_changed_table_is_what_its_routes_would_give() {
        let first = table([
            route("homes/lake", &["lake.ui.example.com"], &[1]),
            route("homes/hill", &["hill.ui.example.com"], &[2]),
            route("homes/mill", &["mill.ui.example.com"], &[3]),
        ])
        .unwrap();
        // The hill's name and key move to the lake, the mill goes, a farm comes.
        let lake = Arc::new(route("homes/lake", &["hill.ui.example.com"], &[2]));
        let hill = Arc::new(route("homes/hill", &["new.ui.example.com"], &[4]));
        let farm = Arc::new(route("farms/one", &["farm.ui.example.com"], &[]));
        let next = first
            .changed(8, first.domain.clone(), [lake, hill, farm], ["homes/mill", "homes/never"])
            .unwrap();
        let found = |host: &str| next.by_host(host).map(|route| route.id.to_string());
        assert_eq!(found("hill.ui.example.com").as_deref(), Some("homes/lake"));
        assert_eq!(found("new.ui.example.com").as_deref(), Some("homes/hill"));
        assert_eq!(found("farm.ui.example.com").as_deref(), Some("farms/one"));
        assert_eq!((found("lake.ui.example.com"), found("mill.ui.example.com")), (None, None));
        let key =
            |byte| next.by_agent_key(&Fingerprint::from_bytes([byte; 32])).map(|route| route.id.to_string());
        assert_eq!((key(1), key(3)), (None, None));
        assert_eq!((key(2).as_deref(), key(4).as_deref()), (Some("homes/lake"), Some("homes/hill")));
        assert_eq!((next.revision, next.routes().len(), next.by_id("homes/mill")), (8, 3, None));
        assert_eq!(first.routes().len(), 3, "the table before stays as it was");
        let moved = next.changed(9, Some("farm.ui.example.com".parse().unwrap()), [], [""; 0]).unwrap();
        assert_eq!(moved.routes().len(), 3);
        let taken = Arc::new(route("homes/x", &["farm.ui.example.com"], &[]));
        assert!(next.changed(9, next.domain.clone(), [taken], [""; 0]).is_err());
        let reserved = Arc::new(route("homes/x", &["connect.ui.example.com"], &[]));
        assert!(next.changed(9, next.domain.clone(), [reserved], [""; 0]).is_err());
    }

    #[test]
    fn an_empty_table_finds_nothing() {
        let table = RouteTable::default();
        assert!(table.is_empty() && table.by_host("a.example").is_none());
    }
}
