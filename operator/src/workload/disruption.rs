//! The `PodDisruptionBudget`: at most one proxy less at a time, whoever takes it, and a proxy that is broken anyway may
//! always be taken.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::{PROXY_APP, metadata, selector};
use crate::names::Names;

/// The `PodDisruptionBudget`.
pub(crate) fn disruption_budget(names: &Names) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(names, names.proxies()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(names, PROXY_APP)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
