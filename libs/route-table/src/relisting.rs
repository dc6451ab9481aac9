//! Another list of version blocks for all routes that share one: what a new block is to a fleet.

use std::sync::Arc;

use policy::{Product, VersionBlock};

use crate::route::Route;
use crate::table::RouteTable;

/// Every route of a product that has one list of blocks has another one instead.
#[derive(Clone, Debug)]
pub struct Relisting {
    /// Which product.
    pub product: Product,
    /// The list that they have: this very one, not one that says the same.
    pub from: Arc<[VersionBlock]>,
    /// The list that they have then.
    pub to: Arc<[VersionBlock]>,
    /// How many routes that is.
    pub routes: usize,
}

impl Relisting {
    /// Is it about this route?
    pub fn concerns(&self, route: &Route) -> bool {
        is_same(&self.from, &route.blocks) && self.product == route.product
    }

    /// Is this what a route has then?
    pub fn gives(&self, route: &Route) -> bool {
        is_same(&self.to, &route.blocks) && self.product == route.product
    }
}

/// Is it the very same list? Lists without blocks are all the same.
fn is_same(one: &Arc<[VersionBlock]>, other: &Arc<[VersionBlock]>) -> bool {
    Arc::ptr_eq(one, other) || one.is_empty() && other.is_empty()
}

impl RouteTable {
    /// This table with other lists of blocks; `None` where one concerns another number of routes than it says.
    pub fn relisted(&self, revision: u64, relistings: &[Relisting]) -> Option<Self> {
        let mut found = vec![0; relistings.len()];
        let relisted = |route: &Route| {
            let mut concerning = relistings.iter().zip(&mut found);
            let Some((relisting, found)) = concerning.find(|(relisting, _)| relisting.concerns(route)) else {
                return route.clone();
            };
            *found += 1;
            route.with_blocks(&relisting.to)
        };
        let routes = self.routes.iter().map(relisted).collect();
        let all_found = relistings.iter().zip(found).all(|(relisting, found)| relisting.routes == found);
        all_found.then(|| self.with_routes(revision, routes))
    }
}

#[cfg(test)]
mod tests {
    use policy::{BlockAction, VersionRange, VersionScheme};

    use super::*;
    use crate::agent_key::{AgentKey, Fingerprint};

    fn list(name: &str) -> Arc<[VersionBlock]> {
        [VersionBlock {
            name: name.into(),
            ranges: vec![VersionRange::parse("<=2021.1.4", VersionScheme::Calendar).unwrap()],
            reason: "old".to_owned(),
            more_info: None,
            action: BlockAction::Block,
        }]
        .into()
    }

    fn route(name: &str, key: u8, blocks: &Arc<[VersionBlock]>) -> Route {
        let route = Route::new(format!("homes/{name}").parse().unwrap()).with(|terms| {
            terms.hostnames = vec![format!("{name}.ui.example.com").parse().unwrap()];
            terms.agent_keys =
                vec![AgentKey { fingerprint: Fingerprint::from_bytes([key; 32]), generation: 1 }];
        });
        route.with_blocks(blocks)
    }

    #[test]
    fn those_of_one_list_have_another_wherever_they_are_found() {
        let (first, second, third) = (list("first"), list("second"), list("third"));
        let other: Product = "fleet-device".parse().unwrap();
        let routes = [
            route("lake", 1, &first),
            route("hill", 2, &second),
            route("mill", 3, &Arc::default()),
            // The same words are not the same list, and another product has lists of its own.
            route("farm", 4, &list("first")),
            route("barn", 5, &first).with(|terms| terms.product = other),
        ];
        let table = RouteTable::from_routes(7, None, routes).unwrap();
        let relisting = |from: &Arc<[VersionBlock]>, to: &Arc<[VersionBlock]>, routes| Relisting {
            product: Product::default(),
            from: Arc::clone(from),
            to: Arc::clone(to),
            routes,
        };
        let changes = [
            relisting(&first, &second, 1),
            relisting(&second, &Arc::default(), 1),
            relisting(&Arc::default(), &third, 1),
        ];
        let next = table.relisted(8, &changes).unwrap();
        assert_eq!((next.revision, table.revision), (8, 7));
        let names = |route: &Route| route.blocks.iter().map(|block| block.name.to_string()).collect();
        let found: Vec<Vec<String>> = next.routes().map(names).collect();
        assert_eq!(found, [vec!["second"], vec![], vec!["third"], vec!["first"], vec!["first"]]);
        for (at, name) in ["lake", "hill", "mill", "farm", "barn"].iter().enumerate() {
            let route = next.by_id(&format!("homes/{name}")).unwrap();
            assert!(route.is_same(next.by_host(&format!("{name}.ui.example.com")).unwrap()));
            let key = Fingerprint::from_bytes([u8::try_from(at).unwrap() + 1; 32]);
            assert!(route.is_same(next.by_agent_key(&key).unwrap()));
            assert!(route.is_same(next.routes().nth(at).unwrap()));
        }
        assert!(table.relisted(8, &[relisting(&first, &second, 2)]).is_none(), "there is one only");
    }
}
