//! Who is in the fleet.

use http::Method;
use latchkey_cluster_tests::TestError;
use serde_json::{Value, json};

use crate::support::{Installation, accepted};

/// What all of them run.
pub(super) const PRODUCT: &str = "fleet-device";
/// The versions that blocks name.
pub(super) const NAMED: &str = "<=2021.1.4";
/// One that is named as well.
pub(super) const AS_OLD: &str = "2021.1.2";
/// Requests to the API server at once.
const AT_ONCE: usize = 16;
/// Of so many, one accepts the first block and one runs another version.
const OF: usize = 20;

/// What sets instances apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// A version that blocks name.
    Named,
    /// The same, and the first block is accepted.
    Accepts,
    /// A version that no block names.
    Other,
}

impl Group {
    pub(super) fn version(self) -> &'static str {
        match self {
            Self::Named | Self::Accepts => "2021.1.3",
            Self::Other => "2026.11.1",
        }
    }
}

/// An instance.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Its name, and its label.
    pub(super) name: String,
    pub(super) group: Group,
    /// Its agent is the real program.
    pub(super) is_real: bool,
    number: usize,
}

impl Member {
    /// The SHA-256 of the simulated agent's key, or what stands for one.
    pub(super) fn key(&self) -> String {
        format!("{:064x}", self.number)
    }

    fn object(&self, installation: &str, accepts: &str) -> Value {
        let accepted = (self.group == Group::Accepts)
            .then(|| json!({"name": accepts, "reason": "isolated network", "by": "tests"}));
        // What a real agent runs, it reports; its key, it brings.
        let (version, keys) =
            if self.is_real { (None, vec![]) } else { (Some(self.group.version()), vec![self.key()]) };
        json!({
            "apiVersion": resources::API_VERSION,
            "kind": "RemoteInstance",
            "metadata": {"name": self.name},
            "spec": {
                "installation": installation,
                "enabled": true,
                "hostname": self.name,
                "product": PRODUCT,
                "version": version,
                "agentKeys": keys,
                "acceptedBlocks": Vec::from_iter(accepted),
            },
        })
    }
}

/// So many instances, of which so many have real agents.
pub(super) fn members(size: usize, real: usize) -> Vec<Member> {
    let member = |number: usize| {
        let is_real = number < real;
        // Of the real ones, the first two are the special ones.
        let group = match number % OF {
            0 => Group::Accepts,
            1 => Group::Other,
            _ => Group::Named,
        };
        let kind = if is_real { "real" } else { "lake" };
        Member { name: format!("{kind}-{number}"), group, is_real, number }
    };
    (0..size).map(member).collect()
}

/// Creates their objects.
pub(super) async fn create(here: &Installation<'_, '_>, members: &[Member]) -> Result<(), TestError> {
    let accepts = here.namespace.cluster_wide("first");
    let path = format!(
        "/apis/{}/namespaces/{}/remoteinstances?fieldValidation=Strict",
        resources::API_VERSION,
        here.namespace.name()
    );
    let making = members.chunks(members.len().div_ceil(AT_ONCE)).map(async |members| {
        for member in members {
            let object = member.object(&here.names.installation, &accepts);
            accepted(here.control_plane().exchange(Method::POST, &path, &object).await?)?;
        }
        Ok::<(), TestError>(())
    });
    futures_util::future::try_join_all(making).await.map(drop)
}
