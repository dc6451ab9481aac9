//! The custom resource definitions, as they are applied to a cluster.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;

use crate::{RemoteInstance, VersionBlock};

/// Every definition.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [RemoteInstance::crd(), VersionBlock::crd()].map(|mut definition| {
        for version in &mut definition.spec.versions {
            if let Some(schema) =
                version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut())
            {
                join_lines(schema);
            }
        }
        definition
    })
}

/// Lines end where the source's lines end; `kubectl explain` makes lines of its own.
fn join_lines(schema: &mut JSONSchemaProps) {
    if let Some(description) = &mut schema.description {
        *description = description.replace('\n', " ");
    }
    schema.properties.iter_mut().flatten().for_each(|(_, member)| join_lines(member));
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items {
        join_lines(item);
    }
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
