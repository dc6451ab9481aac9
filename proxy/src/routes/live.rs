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
}

impl Live {
    /// Begins with this table.
    pub fn new(table: RouteTable) -> Arc<Self> {
        Arc::new(Self { table: ArcSwap::from_pointee(table), changed: watch::Sender::new(0) })
    }

    /// The table in force.
    pub fn current(&self) -> Arc<RouteTable> {
        self.table.load_full()
    }

    /// Looks at the table in force without touching its reference count: for a visitor's one lookup.
    pub fn look<T>(&self, look: impl FnOnce(&RouteTable) -> T) -> T {
        look(&self.table.load())
    }

    /// Puts a table in force and tells every subscriber.
    pub fn publish(&self, table: RouteTable) {
        self.table.store(Arc::new(table));
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
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

    #[tokio::test]
    async fn a_reader_keeps_the_table_it_took() {
        let live = Live::new(table(1));
        let taken = live.current();
        live.publish(table(2));
        assert_eq!((taken.revision, live.current().revision), (1, 2));
    }
}
