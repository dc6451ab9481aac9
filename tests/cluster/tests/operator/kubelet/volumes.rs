//! A pod's volumes, as folders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{Api, Client, ResourceExt};
use latchkey_cluster_tests::TestError;

/// Makes them, by name; none while something that is mounted does not exist yet.
pub(super) async fn make(
    client: &Client,
    pod: &Pod,
    folder: &Path,
) -> Result<Option<BTreeMap<String, PathBuf>>, TestError> {
    let mut made = BTreeMap::new();
    let namespace = pod.namespace().unwrap_or_default();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let place = folder.join(&volume.name);
        std::fs::create_dir_all(&place)?;
        if let Some(secret) = volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref()) {
            let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
            let Some(secret) = secrets.get_opt(secret).await? else { return Ok(None) };
            for (name, value) in secret.data.into_iter().flatten() {
                std::fs::write(place.join(name), value.0)?;
            }
        } else if let Some(map) = &volume.config_map {
            let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
            let Some(map) = maps.get_opt(&map.name).await? else { return Ok(None) };
            for (name, value) in map.data.into_iter().flatten() {
                std::fs::write(place.join(name), value)?;
            }
        } else if volume.empty_dir.is_none() {
            return Err(format!("volume {}: its kind is not known here", volume.name).into());
        }
        made.insert(volume.name.clone(), place);
    }
    Ok(Some(made))
}
