//! Routes ahead of the rest of a plan: version blocks are in force before anybody works out what to tell of them.

use std::sync::Arc;

use imbl::OrdMap;
use resources::{Observed, VersionBlock};
use route_table::{InstanceId, Route};

use crate::blocks::Blocks;
use crate::inventory::Settings;
use crate::ordered::Ordered;
use crate::previous::{Entry, Previous};

/// The routes of the plan before with the version blocks of now.
#[derive(Debug, Clone)]
pub struct BlocksFirst {
    /// One more than that plan's.
    pub revision: u64,
    /// To be published.
    pub routes: Ordered<InstanceId, Route>,
    /// What the plan that follows goes on from. It comes to what it would have come to anyway; where nothing but blocks has
    /// changed, to these routes and this revision.
    pub previous: Previous,
}

impl Previous {
    /// What a change of version blocks makes of the routes; `None` where it makes nothing of them, or all has to be worked
    /// out anew. Of a plan over a large fleet this is a small part, and the part that is waited for.
    pub fn blocks_first(
        &self,
        settings: &Settings,
        blocks: &OrdMap<String, Arc<Observed<VersionBlock>>>,
    ) -> Option<BlocksFirst> {
        let known = &self.worked_out.as_ref()?.inventory;
        if known.blocks.ptr_eq(blocks) || *known.settings != *settings {
            return None;
        }
        let blocks = Blocks::read(blocks, &self.blocks);
        let revision = self.revision.saturating_add(1);
        let (mut entries, mut routes) = (Vec::new(), Vec::new());
        for (id, entry) in &self.entries {
            let Some(route) = &entry.route else { continue };
            let list = blocks.list(&route.product);
            if Arc::ptr_eq(list, &route.blocks) {
                continue;
            }
            let route = route.with_blocks(list);
            routes.push((id.clone(), Some(route.clone())));
            let entry = Entry { route: Some(route), route_revision: revision, ..(**entry).clone() };
            entries.push((id.clone(), Some(Arc::new(entry))));
        }
        if routes.is_empty() {
            return None;
        }
        let routes = self.routes.clone().changed(routes);
        let previous = Self {
            revision,
            entries: self.entries.clone().changed(entries),
            routes: routes.clone(),
            blocks: Arc::new(blocks),
            // The plan that follows still sees that blocks have changed.
            ..self.clone()
        };
        Some(BlocksFirst { revision, routes, previous })
    }
}
