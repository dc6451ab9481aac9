//! Labels of the workload, and by which of them its pods are found.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::names::{INSTALLATION_LABEL, Names};

/// `app.kubernetes.io/name` of the proxies' pods.
pub const PROXY_APP: &str = "latchkey-proxy";
/// `app.kubernetes.io/name` of the operator's pods: deploy/operator.yaml sets it.
pub const OPERATOR_APP: &str = "latchkey-operator";
const NAME_LABEL: &str = "app.kubernetes.io/name";

/// The labels that select the pods of an application of this installation. They never change: those of a `StatefulSet`
/// cannot.
pub fn selected_by(names: &Names, app: &str) -> BTreeMap<String, String> {
    [(NAME_LABEL.to_owned(), app.to_owned()), (INSTALLATION_LABEL.to_owned(), names.installation.clone())]
        .into()
}

/// The same for the API: `a=b,c=d`.
pub fn selector_text(names: &Names, app: &str) -> String {
    let pairs: Vec<_> =
        selected_by(names, app).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// The same for objects that select pods.
pub(crate) fn selector(names: &Names, app: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(selected_by(names, app)), ..LabelSelector::default() }
}

/// What every object of the workload wears.
fn labels(names: &Names) -> BTreeMap<String, String> {
    let mut labels = selected_by(names, PROXY_APP);
    labels.insert("app.kubernetes.io/component".to_owned(), "proxy".to_owned());
    labels.insert("app.kubernetes.io/part-of".to_owned(), "latchkey".to_owned());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), OPERATOR_APP.to_owned());
    labels
}

/// The head of an object of the workload. It has no owner: the operator's `Deployment` may be deleted and made again, and
/// visitors shall not notice.
pub(crate) fn metadata(names: &Names, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(names.namespace.clone()),
        labels: Some(labels(names)),
        ..ObjectMeta::default()
    }
}
