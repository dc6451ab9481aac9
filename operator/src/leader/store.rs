//! The `Lease` in the API server: read, created, replaced. Every replacement names the version that it replaces.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, timeout_at};

use crate::names::{FIELD_MANAGER, INSTALLATION_LABEL, Names};
use crate::trouble::kind;

/// Where the record is.
#[derive(Debug, Clone)]
pub(super) struct Store {
    api: Api<Lease>,
    metadata: ObjectMeta,
}

/// Why the record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// Somebody else wrote in between.
    #[error("somebody else wrote the Lease")]
    Conflict,
    /// It is not there.
    #[error("the Lease is gone")]
    Gone,
    /// The API server did not answer in time. The request may have worked.
    #[error("no answer from the API server in time")]
    TimedOut,
    /// It said no, or nothing.
    #[error(transparent)]
    Failed(kube::Error),
}

impl StoreError {
    /// For telling each kind once.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Conflict => "conflict".to_owned(),
            Self::Gone => "gone".to_owned(),
            Self::TimedOut => "time-out".to_owned(),
            Self::Failed(error) => kind(error),
        }
    }
}

impl From<kube::Error> for StoreError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            kube::Error::Api(status) if status.is_not_found() => Self::Gone,
            _ => Self::Failed(error),
        }
    }
}

impl Store {
    pub(super) fn new(client: Client, names: &Names) -> Self {
        let metadata = ObjectMeta {
            name: Some(names.lease()),
            namespace: Some(names.namespace.clone()),
            labels: Some([(INSTALLATION_LABEL.to_owned(), names.installation.clone())].into()),
            ..ObjectMeta::default()
        };
        Self { api: Api::namespaced(client, &names.namespace), metadata }
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) async fn read(&self, until: Instant) -> Result<Option<Lease>, StoreError> {
        timed(until, self.api.get_opt(self.name())).await
    }

    pub(super) async fn create(&self, spec: LeaseSpec, until: Instant) -> Result<Lease, StoreError> {
        let lease = Lease { metadata: self.metadata.clone(), spec: Some(spec) };
        timed(until, self.api.create(&parameters(), &lease)).await
    }

    /// Writes over the record that `known` is. Its resourceVersion goes with it, so that nothing else is written over.
    pub(super) async fn replace(
        &self,
        known: &Lease,
        spec: LeaseSpec,
        until: Instant,
    ) -> Result<Lease, StoreError> {
        let mut metadata = known.metadata.clone();
        metadata.managed_fields = None;
        let lease = Lease { metadata, spec: Some(spec) };
        timed(until, self.api.replace(self.name(), &parameters(), &lease)).await
    }
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

async fn timed<T>(
    until: Instant,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, StoreError> {
    match timeout_at(until, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(StoreError::TimedOut),
    }
}
