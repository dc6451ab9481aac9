//! Why a control plane could not be had, or did not answer.

use std::path::PathBuf;

/// Why a control plane could not be had, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No programs.
    #[error("etcd, kube-apiserver and kubectl are not there: {0}; run tests/cluster/tools/build")]
    Tools(String),
    /// Certificates.
    #[error("could not make certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    /// A file or a process.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A server ended before it was ready, or never was.
    #[error("{name} {why}; the end of {}:\n{tail}", log.display())]
    Server {
        /// Which.
        name: &'static str,
        /// What it did.
        why: String,
        /// Its log.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// The kubeconfig cannot be used.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The API server said no, or nothing.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// A server is to be killed that the tests did not start.
    #[error("the control plane is not ours: it was given by its kubeconfig")]
    NotOurs,
    /// Something else than was waited for.
    #[error("{what} did not come within {seconds} s; last seen: {seen}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// What there was instead.
        seen: String,
    },
    /// An answer nobody can read.
    #[error("the API server's answer: {0}")]
    Answer(String),
}

impl ClusterError {
    /// For `map_err`: what was tried when a file or a process failed.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        |source| Self::Io { what: what.into(), source }
    }
}
