//! Trouble that lasts is told when it begins, when it becomes another, and when it is over: not at every try.

use std::fmt::Display;

use tokio::time::Instant;

/// What goes wrong at present with one thing that is tried again and again.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// What is tried, as the end of "cannot ...".
    what: &'static str,
    present: Option<Present>,
}

#[derive(Debug)]
struct Present {
    kind: String,
    since: Instant,
    times: u64,
}

impl Trouble {
    /// None yet. `what` is the end of "cannot ...".
    pub(crate) const fn with(what: &'static str) -> Self {
        Self { what, present: None }
    }

    /// A try failed. Told if that is news.
    pub(crate) fn tell(&mut self, kind: &str, error: &dyn Display) {
        if let Some(present) = &mut self.present {
            present.times += 1;
            if present.kind == kind {
                return;
            }
            kind.clone_into(&mut present.kind);
        } else {
            self.present = Some(Present { kind: kind.to_owned(), since: Instant::now(), times: 1 });
        }
        tracing::warn!("cannot {}: {error}; tried again until it works", self.what);
    }

    /// A try worked. Told if it did not before.
    pub(crate) fn over(&mut self) {
        if let Some(Present { since, times, .. }) = self.present.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!("can {} again, after {seconds} s and {times} failures", self.what);
        }
    }
}

/// Of which kind an error of the API's client is: errors of a kind differ in numbers and names alone.
pub(crate) fn kind(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.reason),
        kube::Error::Service(_) | kube::Error::HyperError(_) => "connection".to_owned(),
        kube::Error::SerdeError(_) => "answer".to_owned(),
        kube::Error::Auth(_) => "credential".to_owned(),
        _ => "other".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_counts_and_begins_once() {
        let mut trouble = Trouble::with("do it");
        for kind in ["connection", "connection", "500 "] {
            trouble.tell(kind, &"no");
        }
        let present = trouble.present.as_ref().map(|present| (present.kind.as_str(), present.times));
        assert_eq!(present, Some(("500 ", 3)));
        trouble.over();
        assert!(trouble.present.is_none());
    }
}
