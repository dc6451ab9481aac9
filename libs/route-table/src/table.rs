//! All routes, found by what a visitor or an agent shows.

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::MAX_ROUTES;
use crate::agent_key::Fingerprint;
use crate::error::TableError;
use crate::host_name::{HostName, with_lookup_form};
use crate::route::{InstanceId, Route};

/// The label in front of a table's domain where agents get their sessions.
pub const SESSION_LABEL: &str = "connect";

/// Keys come from the operator's own table, never from visitors, so a fast hash is safe.
type Index<K> = HashMap<K, Place, foldhash::fast::RandomState>;

/// Which of a table's routes.
type Place = u32;

/// All routes of one revision. Never changes; a new revision is a new table.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    /// Which revision.
    pub revision: u64,
    /// The installation's domain; agents get sessions at `connect.` in front of it.
    pub domain: Option<HostName>,
    pub(crate) routes: Vec<Route>,
    /// Shared with the table before where that has the same names in the same places.
    places: Arc<Places>,
}

/// Where the routes are that something leads to.
#[derive(Debug, Clone, Default)]
struct Places {
    hosts: Index<HostName>,
    ids: Index<InstanceId>,
    keys: Index<Fingerprint>,
}

/// A table that is being made.
struct Making {
    session_host: Option<HostName>,
    routes: Vec<Route>,
    places: Places,
    /// Places whose routes are gone.
    free: Vec<Place>,
}

impl RouteTable {
    /// Builds the table, or says which two routes are in each other's way.
    pub fn from_routes(
        revision: u64,
        domain: Option<HostName>,
        routes: impl IntoIterator<Item = Route>,
    ) -> Result<Self, TableError> {
        let mut making = Making::of(domain.as_ref(), Vec::new(), Places::default());
        for route in routes {
            making.add(route)?;
        }
        making.routes.shrink_to_fit();
        Ok(making.done(revision, domain))
    }

    /// This table with some routes new or different, and some gone. Costs a copy of the indexes; the routes themselves are
    /// shared. Ids in `removed` that are not there are passed over.
    pub fn changed(
        &self,
        revision: u64,
        domain: Option<HostName>,
        changed: impl IntoIterator<Item = Route>,
        removed: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, TableError> {
        let changed: Vec<_> = changed.into_iter().collect();
        if domain != self.domain {
            // Every name has to be held against the new session host.
            let mut routes: HashMap<_, _> =
                self.routes.iter().map(|route| (route.id.clone(), route.clone())).collect();
            removed.into_iter().for_each(|id| drop(routes.remove(id.as_ref())));
            routes.extend(changed.into_iter().map(|route| (route.id.clone(), route)));
            return Self::from_routes(revision, domain, routes.into_values());
        }
        let mut making = Making::of(domain.as_ref(), self.routes.clone(), Places::clone(&self.places));
        // Everything old goes first: a name may move from one route to another.
        for id in removed {
            making.forget(id.as_ref());
        }
        for route in &changed {
            making.forget(route.id.as_str());
        }
        for route in changed {
            making.add(route)?;
        }
        making.fill_gaps();
        Ok(making.done(revision, domain))
    }

    /// This table with other routes of the same ids, names and keys in the same places.
    pub(crate) fn with_routes(&self, revision: u64, routes: Vec<Route>) -> Self {
        Self { revision, domain: self.domain.clone(), routes, places: Arc::clone(&self.places) }
    }

    fn at(&self, place: Option<&Place>) -> Option<&Route> {
        self.routes.get(index(*place?))
    }

    /// The route a host name leads to, asked in any case, with or without a trailing dot. Allocates nothing.
    pub fn by_host(&self, host: &str) -> Option<&Route> {
        self.at(with_lookup_form(host, |name| self.places.hosts.get(name)))
    }

    /// The route of an instance.
    pub fn by_id(&self, id: &str) -> Option<&Route> {
        self.at(self.places.ids.get(id))
    }

    /// The route whose agents hold this key.
    pub fn by_agent_key(&self, fingerprint: &Fingerprint) -> Option<&Route> {
        self.at(self.places.keys.get(fingerprint))
    }

    /// All routes, in the order given as long as none was taken away.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = &Route> {
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

impl Making {
    fn of(domain: Option<&HostName>, routes: Vec<Route>, places: Places) -> Self {
        let session_host = domain.and_then(|domain| domain.with_label(SESSION_LABEL).ok());
        Self { session_host, routes, places, free: Vec::new() }
    }

    /// Takes a route out of the indexes; its place is free.
    fn forget(&mut self, id: &str) {
        let Some(place) = self.places.ids.remove(id) else { return };
        let Some(route) = self.routes.get(index(place)) else { return };
        for hostname in &route.hostnames {
            self.places.hosts.remove(hostname);
        }
        for key in &route.agent_keys {
            self.places.keys.remove(&key.fingerprint);
        }
        self.free.push(place);
    }

    fn add(&mut self, route: Route) -> Result<(), TableError> {
        let Self { session_host, routes, places, free } = self;
        let place = match free.pop() {
            Some(place) => place,
            None if routes.len() >= MAX_ROUTES => return Err(TableError::TooManyRoutes),
            None => Place::try_from(routes.len()).map_err(|_| TableError::TooManyRoutes)?,
        };
        let holder = |at: &Place| match routes.get(index(*at)) {
            Some(holder) if *at != place => holder.id.clone(),
            _ => route.id.clone(),
        };
        match places.ids.entry(route.id.clone()) {
            Entry::Vacant(free) => free.insert(place),
            Entry::Occupied(taken) => return Err(TableError::DuplicateId { id: taken.key().clone() }),
        };
        for hostname in &route.hostnames {
            if Some(hostname) == session_host.as_ref() {
                return Err(TableError::ReservedHostName {
                    id: route.id.clone(),
                    hostname: hostname.clone(),
                });
            }
            match places.hosts.entry(hostname.clone()) {
                Entry::Vacant(free) => free.insert(place),
                Entry::Occupied(taken) => {
                    return Err(TableError::DuplicateHostName {
                        hostname: hostname.clone(),
                        first: holder(taken.get()),
                        second: route.id.clone(),
                    });
                }
            };
        }
        for key in &route.agent_keys {
            match places.keys.entry(key.fingerprint) {
                Entry::Vacant(free) => free.insert(place),
                Entry::Occupied(taken) => {
                    return Err(TableError::DuplicateAgentKey {
                        fingerprint: key.fingerprint,
                        first: holder(taken.get()),
                        second: route.id.clone(),
                    });
                }
            };
        }
        match routes.get_mut(index(place)) {
            Some(gone) => *gone = route,
            None => routes.push(route),
        }
        Ok(())
    }

    /// Puts the last routes into places that are still free.
    fn fill_gaps(&mut self) {
        let mut gaps = std::mem::take(&mut self.free);
        // From the back, so that what is last is never a gap itself.
        gaps.sort_unstable();
        while let Some(gap) = gaps.pop() {
            self.routes.swap_remove(index(gap));
            let Some(moved) = self.routes.get(index(gap)) else { continue };
            let put = |place: Option<&mut Place>| place.into_iter().for_each(|place| *place = gap);
            put(self.places.ids.get_mut(&moved.id));
            moved.hostnames.iter().for_each(|name| put(self.places.hosts.get_mut(name)));
            moved.agent_keys.iter().for_each(|key| put(self.places.keys.get_mut(&key.fingerprint)));
        }
    }

    fn done(self, revision: u64, domain: Option<HostName>) -> RouteTable {
        RouteTable { revision, domain, routes: self.routes, places: Arc::new(self.places) }
    }
}

/// There are never more places than a `usize` can count.
fn index(place: Place) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_key::AgentKey;

    fn route(id: &str, hostnames: &[&str], keys: &[u8]) -> Route {
        let key = |byte: &u8| AgentKey { fingerprint: Fingerprint::from_bytes([*byte; 32]), generation: 1 };
        Route::new(id.parse().unwrap()).with(|terms| {
            terms.hostnames = hostnames.iter().map(|name| name.parse().unwrap()).collect();
            terms.agent_keys = keys.iter().map(key).collect();
        })
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
        let lake = route("homes/lake", &["hill.ui.example.com"], &[2]);
        let hill = route("homes/hill", &["new.ui.example.com"], &[4]);
        let farm = route("farms/one", &["farm.ui.example.com"], &[]);
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
        let taken = route("homes/x", &["farm.ui.example.com"], &[]);
        assert!(next.changed(9, next.domain.clone(), [taken], [""; 0]).is_err());
        let reserved = route("homes/x", &["connect.ui.example.com"], &[]);
        assert!(next.changed(9, next.domain.clone(), [reserved], [""; 0]).is_err());
    }

    #[test]
    fn what_is_left_is_found_wherever_it_was() {
        let name = |number: u8| format!("house-{number}");
        let house = |number| {
            let (id, host) = (format!("homes/{}", name(number)), format!("{}.ui.example.com", name(number)));
            route(&id, &[&host], &[number])
        };
        let all = table((0..7).map(house)).unwrap();
        for gone in [vec![0], vec![6], vec![0, 3, 6], vec![5, 6], vec![1, 2, 3, 4, 5, 6], (0..7).collect()] {
            let ids: Vec<String> = gone.iter().map(|number| format!("homes/{}", name(*number))).collect();
            let next = all.changed(8, all.domain.clone(), [], &ids).unwrap();
            for number in 0..7 {
                let found = [
                    next.by_id(&format!("homes/{}", name(number))),
                    next.by_host(&format!("{}.ui.example.com", name(number))),
                    next.by_agent_key(&Fingerprint::from_bytes([number; 32])),
                ];
                let expected = (!gone.contains(&number)).then(|| house(number));
                assert_eq!(found, [expected.as_ref(); 3]);
            }
            assert_eq!(next.len(), 7 - gone.len());
        }
        // One that takes a place is in nobody's way but its own.
        let twice = route("homes/x", &["x.example", "x.example"], &[]);
        let error = all.changed(8, all.domain.clone(), [twice], ["homes/house-3"]).unwrap_err().to_string();
        assert!(error.contains("by route homes/x and by route homes/x"), "{error}");
    }

    #[test]
    fn an_empty_table_finds_nothing() {
        let table = RouteTable::default();
        assert!(table.is_empty() && table.by_host("a.example").is_none());
    }
}
