//! The table in force: what the leader sends goes through here, one update at a time.

use std::sync::Arc;

use operator_link::{Position, Read, ReadError, UpdateReader, wire};
use route_table::RouteTable;
use tokio::sync::{Mutex, watch};

use crate::routes::Live;

/// What came of a part.
#[derive(Debug)]
pub(super) enum Taken {
    /// More parts follow.
    Partly,
    /// The table is in force, and tunnels that it revokes were cut.
    InForce(Position),
    /// It is not taken.
    Refused(ReadError),
    /// Another stream leads by now: what this one says counts no more.
    Deposed,
}

/// A table of an operator, and which one it is.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    pub(super) position: Position,
    pub(super) table: Arc<RouteTable>,
}

/// Where the leader's tables go.
#[derive(Debug)]
pub(super) struct Table {
    live: Arc<Live>,
    in_force: watch::Sender<Option<InForce>>,
    one_at_a_time: Mutex<()>,
}

impl Table {
    /// Begins with the table of the cache, if there was one.
    pub(super) fn new(cached: Option<(Position, RouteTable)>) -> Self {
        let (position, table) =
            cached.map_or_else(Default::default, |(position, table)| (Some(position), table));
        let live = Live::new(table);
        let in_force = position.map(|position| InForce { position, table: live.current() });
        Self { live, in_force: watch::Sender::new(in_force), one_at_a_time: Mutex::default() }
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Which table is in force.
    pub(super) fn position(&self) -> Option<Position> {
        self.in_force.borrow().as_ref().map(|present| present.position)
    }

    /// The table in force, and every one after it.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<InForce>> {
        self.in_force.subscribe()
    }

    /// Takes the next part of an update. With the last one, the new table is published, and this returns only once open
    /// tunnels were held against it.
    pub(super) async fn take(
        &self,
        reader: &mut UpdateReader,
        part: wire::Update,
        leads: impl Fn() -> bool,
    ) -> Taken {
        let _one_at_a_time = self.one_at_a_time.lock().await;
        let (position, table) = (self.position(), self.live.current());
        let mut taken = std::mem::take(reader);
        // The last part of a large update costs tenths of a second.
        let work = tokio::task::spawn_blocking(move || {
            let read = taken.take(part, position.map(|position| (position, &*table)));
            (taken, read)
        });
        let Ok((back, read)) = work.await else { return Taken::Refused(ReadError::Missing("an end")) };
        *reader = back;
        match read {
            Ok(Read::Partly) => Taken::Partly,
            Ok(Read::Table(..)) if !leads() => Taken::Deposed,
            Ok(Read::Table(position, table)) => {
                let publication = self.live.publish(table);
                self.live.enforced(publication).await;
                // Nobody else publishes: it is the one above.
                self.in_force.send_replace(Some(InForce { position, table: self.live.current() }));
                Taken::InForce(position)
            }
            Err(error) => Taken::Refused(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use operator_link::UpdateWriter;
    use route_table::{HostName, Route};
    use tokio::time::timeout;

    use super::*;

    const FIRST: Position = Position { term: 2, revision: 1 };

    fn part(to: Position) -> wire::Update {
        let domain: HostName = "ui.example.com".parse().unwrap();
        let route = Route::new("homes/lake".parse().unwrap());
        UpdateWriter::default().everything(to, &domain, std::iter::once(route)).next().unwrap()
    }

    #[tokio::test]
    async fn a_table_counts_as_applied_only_once_tunnels_were_held_against_it() {
        let table = Table::new(None);
        let mut reader = UpdateReader::default();
        let mut routes = table.live().subscribe();
        {
            let mut taking = std::pin::pin!(table.take(&mut reader, part(FIRST), || true));
            let published = async { crate::routes::RouteSource::changed(&mut routes).await };
            tokio::select! {
                taken = &mut taking => panic!("{taken:?} before anybody looked at tunnels"),
                () = published => {}
            }
            assert_eq!(table.live().current().len(), 1, "visitors meet it already");
            assert!(timeout(Duration::from_millis(50), &mut taking).await.is_err());
            assert_eq!(table.position(), None, "nor does a new stream say that it is there");
            table.live().set_enforced(table.live().publications());
            let taken = timeout(Duration::from_secs(10), taking).await.unwrap();
            assert!(matches!(taken, Taken::InForce(FIRST)), "{taken:?}");
        }
        assert_eq!(table.position(), Some(FIRST));
    }

    #[tokio::test]
    async fn what_a_stream_sent_that_leads_no_more_is_not_put_in_force() {
        let table = Table::new(None);
        let taken = table.take(&mut UpdateReader::default(), part(FIRST), || false).await;
        assert!(matches!(taken, Taken::Deposed), "{taken:?}");
        assert_eq!((table.live().publications(), table.position()), (0, None));
    }
}
