//! Parts of an update, put together to the next table.

use std::sync::Arc;

use hashbrown::HashMap;
use route_table::{
    HostName, HostNameError, MAX_ROUTES, Relisting, Route, RouteError, RouteTable, TableError,
};

use crate::limits::{MAX_BLOCK_LISTS, MAX_REMOVED};
use crate::read_route::{BlockList, Shared};
use crate::{Position, wire};

/// Why an update is not taken. Whoever gets one keeps the table they have, and asks for everything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A member every update has is missing.
    #[error("an update without {0}")]
    Missing(&'static str),
    /// It starts from a table that is not in force here.
    #[error("an update from {from}, but the table here is {}", shown(*present))]
    OtherStart {
        /// Where it starts.
        from: Position,
        /// What is in force.
        present: Option<Position>,
    },
    /// It leads back.
    #[error("an update to {to}, but {present} is in force already")]
    Backwards {
        /// Where it leads.
        to: Position,
        /// What is in force.
        present: Position,
    },
    /// Its parts do not belong together.
    #[error("parts of two updates, to {first} and to {second}, are mixed")]
    Mixed {
        /// The one that had begun.
        first: Position,
        /// The other.
        second: Position,
    },
    /// There is too much of something.
    #[error("an update with more than {most} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The most.
        most: usize,
    },
    /// A list of blocks that takes the place of another is not known, or would not mean here what it should.
    #[error("list {to} of blocks cannot take the place of {from} here")]
    Relisted {
        /// The number of the list that routes have.
        from: u32,
        /// The number of the other one.
        to: u32,
    },
    /// The routes whose lists of blocks change are not those that the operator counted.
    #[error("other routes have the lists of blocks that change than the operator says")]
    Miscounted,
    /// The domain is no name.
    #[error("the domain: {0}")]
    Domain(#[from] HostNameError),
    /// A route makes no sense.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The routes do not fit together.
    #[error(transparent)]
    Table(#[from] TableError),
}

fn shown(position: Option<Position>) -> String {
    position.map_or_else(|| "none".to_owned(), |position| position.to_string())
}

/// What a part led to.
#[derive(Debug)]
pub enum Read {
    /// More parts follow.
    Partly,
    /// The next table: put it in force and say so.
    Table(Position, RouteTable),
}

/// What one stream has told.
#[derive(Debug, Default)]
pub struct UpdateReader {
    lists: HashMap<u32, BlockList>,
    shared: Shared,
    begun: Option<Begun>,
}

/// An update of which not every part has come.
#[derive(Debug)]
struct Begun {
    to: Position,
    from: Option<Position>,
    domain: HostName,
    relisted: Vec<Relisting>,
    routes: Vec<Route>,
    removed: Vec<String>,
}

impl UpdateReader {
    /// Takes the next part. `present` is the table in force, and which one that is. After an error the update that had
    /// begun is forgotten.
    pub fn take(
        &mut self,
        part: wire::Update,
        present: Option<(Position, &RouteTable)>,
    ) -> Result<Read, ReadError> {
        let begun = self.begun.take();
        let wire::Update { to, from, domain, block_lists, routes, removed, last, relisted } = part;
        let to: Position = to.ok_or(ReadError::Missing("`to`"))?.into();
        let from: Option<Position> = from.map(Into::into);
        let mut begun = match begun {
            Some(begun) if begun.to == to && begun.from == from => begun,
            Some(begun) => return Err(ReadError::Mixed { first: begun.to, second: to }),
            None => self.begin(to, from, &domain, present.map(|(position, _)| position))?,
        };
        for list in block_lists {
            if self.lists.len() >= MAX_BLOCK_LISTS {
                return Err(ReadError::TooMuch { what: "block lists", most: MAX_BLOCK_LISTS });
            }
            self.lists.insert(list.number, self.shared.block_list(list)?);
        }
        if begun.relisted.len().saturating_add(relisted.len()) > MAX_BLOCK_LISTS {
            return Err(ReadError::TooMuch { what: "lists in place of others", most: MAX_BLOCK_LISTS });
        }
        for relisted in relisted {
            begun.relisted.push(self.relisting(relisted)?);
        }
        if begun.routes.len().saturating_add(routes.len()) > MAX_ROUTES {
            return Err(ReadError::TooMuch { what: "routes", most: MAX_ROUTES });
        }
        for route in routes {
            begun.routes.push(self.shared.route(route, &self.lists)?);
        }
        if begun.removed.len().saturating_add(removed.len()) > MAX_REMOVED {
            return Err(ReadError::TooMuch { what: "routes removed", most: MAX_REMOVED });
        }
        begun.removed.extend(removed);
        if !last {
            self.begun = Some(begun);
            return Ok(Read::Partly);
        }
        let Begun { to, from, domain, relisted, routes, removed } = begun;
        let table = match (from, present) {
            (Some(_), Some((_, table))) if relisted.is_empty() => {
                table.changed(to.revision, Some(domain), routes, &removed)?
            }
            (Some(_), Some((_, table))) => {
                let table = table.relisted(to.revision, &relisted).ok_or(ReadError::Miscounted)?;
                let nothing_else =
                    routes.is_empty() && removed.is_empty() && table.domain.as_ref() == Some(&domain);
                if nothing_else {
                    table
                } else {
                    table.changed(to.revision, Some(domain), routes, &removed)?
                }
            }
            _ if relisted.is_empty() => RouteTable::from_routes(to.revision, Some(domain), routes)?,
            // There is nothing yet that could have a list.
            _ => return Err(ReadError::Miscounted),
        };
        Ok(Read::Table(to, table))
    }

    fn relisting(&self, wire::Relisted { from, to, routes }: wire::Relisted) -> Result<Relisting, ReadError> {
        let unusable = ReadError::Relisted { from, to };
        // What a list says that is not understood here stands in the routes, one by one.
        let list = |number| self.lists.get(&number).filter(|list| list.is_understood());
        let relisting = match (from, list(from), to, list(to)) {
            (_, Some(one), _, Some(other)) if one.product == other.product => {
                Some((&one.product, Arc::clone(&one.blocks), Arc::clone(&other.blocks)))
            }
            (0, _, _, Some(other)) => Some((&other.product, Arc::default(), Arc::clone(&other.blocks))),
            (_, Some(one), 0, _) => Some((&one.product, Arc::clone(&one.blocks), Arc::default())),
            _ => None,
        };
        let (product, from, to) = relisting.ok_or(unusable)?;
        let routes = usize::try_from(routes).unwrap_or(usize::MAX);
        Ok(Relisting { product: product.clone(), from, to, routes })
    }

    fn begin(
        &mut self,
        to: Position,
        from: Option<Position>,
        domain: &str,
        present: Option<Position>,
    ) -> Result<Begun, ReadError> {
        match (from, present) {
            (Some(from), present) if present != Some(from) => {
                return Err(ReadError::OtherStart { from, present });
            }
            // The same again is no harm: everything was asked for.
            (_, Some(present)) if to < present => return Err(ReadError::Backwards { to, present }),
            (None, _) => {
                self.lists.clear();
                self.shared = Shared::default();
            }
            (Some(_), _) => {}
        }
        Ok(Begun {
            to,
            from,
            domain: domain.parse()?,
            relisted: Vec::new(),
            routes: Vec::new(),
            removed: Vec::new(),
        })
    }
}
