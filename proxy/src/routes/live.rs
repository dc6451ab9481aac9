//! The table in force.

use std::sync::Arc;

use arc_swap::ArcSwap;
use route_table::RouteTable;
use tokio::sync::watch;

use super::RouteSource;

/// Holds the table in force: sources publish to it, everybody else reads or subscribes.
#[derive(Debug)]
pub struct Live {
    table: ArcSwap<RouteTable>,
    /// Counts publications.
    changed: watch::Sender<u64>,
    /// The publication that open tunnels were last held against.
    enforced: watch::Sender<u64>,
}

impl Live {
    /// Begins with this table.
    pub fn new(table: RouteTable) -> Arc<Self> {
        Arc::new(Self {
            table: ArcSwap::from_pointee(table),
            changed: watch::Sender::new(0),
            enforced: watch::Sender::new(0),
        })
    }

    /// The table in force.
    pub fn current(&self) -> Arc<RouteTable> {
        self.table.load_full()
    }

    /// Looks at the table in force without touching its reference count: for a visitor's one lookup.
    pub fn look<T>(&self, look: impl FnOnce(&RouteTable) -> T) -> T {
        look(&self.table.load())
    }

    /// Puts a table in force and tells every subscriber. Gives the number of this publication, for
    /// [`Live::enforced`].
    pub fn publish(&self, table: RouteTable) -> u64 {
        self.table.store(Arc::new(table));
        let mut number = 0;
        self.changed.send_modify(|count| {
            *count = count.saturating_add(1);
            number = *count;
        });
        number
    }

    /// Waits until every tunnel that this publication, or a later one, does not allow was cut. A new visitor
    /// and a new tunnel meet the table from the moment it was published.
    pub async fn enforced(&self, publication: u64) {
        // The sender is ours: there is no error to wait for.
        let _ = self.enforced.subscribe().wait_for(|done| *done >= publication).await;
    }

    /// Every open tunnel was held against a table that was read after this publication.
    pub(crate) fn set_enforced(&self, publication: u64) {
        self.enforced.send_modify(|done| *done = publication.max(*done));
    }

    /// How often a table was published.
    pub fn publications(&self) -> u64 {
        *self.changed.borrow()
    }

    /// A subscription that is told of every table from now on.
    pub fn subscribe(self: &Arc<Self>) -> LiveRoutes {
        LiveRoutes { changed: self.changed.subscribe(), live: Arc::clone(self) }
    }
}

/// A subscription to [`Live`].
#[derive(Debug, Clone)]
pub struct LiveRoutes {
    live: Arc<Live>,
    changed: watch::Receiver<u64>,
}

impl LiveRoutes {
    /// What it is subscribed to.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }
}

impl RouteSource for LiveRoutes {
    fn current(&self) -> Arc<RouteTable> {
        self.live.current()
    }

    async fn changed(&mut self) {
        // The sender lives as long as `self.live`; without it nothing could change any more.
        if self.changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn table(revision: u64) -> RouteTable {
        RouteTable::from_routes(revision, None, []).unwrap()
    }

    #[tokio::test]
    async fn every_subscriber_is_told_and_sees_the_new_table() {
        let live = Live::new(table(1));
        let (mut first, mut second) = (live.subscribe(), live.subscribe());
        assert_eq!(first.current().revision, 1);
        live.publish(table(2));
        for subscriber in [&mut first, &mut second] {
            timeout(Duration::from_secs(5), subscriber.changed()).await.unwrap();
            assert_eq!(subscriber.current().revision, 2);
        }
        assert_eq!(live.look(|table| table.revision), 2);
        assert_eq!(live.publications(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn several_changes_are_told_once_and_nothing_is_told_twice() {
        let live = Live::new(table(1));
        let mut subscriber = live.subscribe();
        live.publish(table(2));
        live.publish(table(3));
        subscriber.changed().await;
        assert_eq!(subscriber.current().revision, 3);
        assert!(timeout(Duration::from_mins(1), subscriber.changed()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_publication_is_enforced_once_tunnels_were_held_against_it_or_a_later_one() {
        let live = Live::new(table(1));
        let (first, second) = (live.publish(table(2)), live.publish(table(3)));
        let waits = |number| timeout(Duration::from_mins(1), live.enforced(number));
        assert!(waits(first).await.is_err());
        live.set_enforced(second);
        live.set_enforced(first);
        assert!(waits(first).await.is_ok() && waits(second).await.is_ok());
        assert!(waits(live.publish(table(4))).await.is_err());
    }

    #[tokio::test]
    async fn a_reader_keeps_the_table_it_took() {
        let live = Live::new(table(1));
        let taken = live.current();
        live.publish(table(2));
        assert_eq!((taken.revision, live.current().revision), (1, 2));
    }
}
