//! Whose tunnels came or went, noted as it happens: whoever tells others of it never looks over all of them.

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use hashbrown::HashSet;
use tokio::sync::Notify;

/// Names of instances whose tunnels changed since they were taken last. No larger than what is held here; empty
/// while nobody follows.
#[derive(Debug, Default)]
pub struct Changes {
    followed: AtomicBool,
    names: Mutex<HashSet<Arc<str>>>,
    told: Notify,
}

impl Changes {
    /// Somebody follows from now on. To be called before the first tunnel.
    pub fn follow(&self) {
        self.followed.store(true, Ordering::Release);
    }

    /// A tunnel of this instance came or went.
    pub fn note(&self, name: &Arc<str>) {
        if self.followed.load(Ordering::Acquire) {
            self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
            self.told.notify_one();
        }
    }

    /// How many were noted.
    pub fn count(&self) -> usize {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Takes what was noted.
    pub fn take(&self) -> HashSet<Arc<str>> {
        mem::take(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until there may be something to take. For one follower.
    pub async fn noted(&self) {
        self.told.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn names_are_kept_once_and_only_for_a_follower() {
        let changes = Changes::default();
        let name: Arc<str> = "homes/lake".into();
        changes.note(&name);
        assert!(changes.take().is_empty(), "nobody asked");
        changes.follow();
        changes.note(&name);
        changes.note(&name);
        timeout(Duration::from_secs(1), changes.noted()).await.unwrap();
        assert_eq!(changes.count(), 1);
        assert_eq!(changes.take().into_iter().collect::<Vec<_>>(), [name]);
        assert!(timeout(Duration::from_secs(1), changes.noted()).await.is_err());
    }
}
