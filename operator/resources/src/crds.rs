//! The custom resource definitions, as they are applied to a cluster.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{RemoteInstance, VersionBlock};

/// Every definition.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [RemoteInstance::crd(), VersionBlock::crd()]
}

/// Every definition as a file: its name and its text.
pub fn files() -> Result<Vec<(String, String)>, serde_yaml::ser::Error> {
    definitions()
        .into_iter()
        .map(|definition| {
            // Patterns and rules on one line each: folded they are hard to search for.
            let options = serde_yaml::ser_options! { folded_wrap_chars: 4096 };
            let yaml = serde_yaml::to_string_with_options(&definition, options)?;
            let name = definition.metadata.name.unwrap_or_default();
            let head = "# Generated from operator/resources: cargo run -p resources --example generate-crds";
            Ok((format!("{name}.yaml"), format!("{head}\n{yaml}")))
        })
        .collect()
}
