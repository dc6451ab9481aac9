//! One write of a status, and what the answer means.
//!
//! A status is written by server-side apply to the status subresource. That fails (500, "failed to create typed live
//! object") for an object whose *spec* was stored under another definition and has a member of another type now. What is
//! wrong with an object does not forbid to change the rest of it, however, so that such an object gets its status by a
//! JSON patch that puts the whole of it in place, and only into the object that is meant.
//!
//! A status belongs to one writer as a whole (it is `atomic`), and who writes last is that. It is taken back by applying none:
//! what this installation owns goes, what another one has told meanwhile stays. Of what was written into an object as
//! above nobody is the owner, since managed fields are not kept up there: what is left and is nobody else's is removed,
//! unless the object has changed since.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use kube::Client;
use kube::api::ObjectMeta;
use kube::client::Body;
use planner::Subject;
use resources::{API_VERSION, RemoteInstanceStatus, VersionBlockStatus};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::outbox::{Landing, Letter, Status};
use crate::observe::{Said, Told};
use crate::shallow::Shallow;
use crate::trouble::kind;

/// Whom the API server writes down as the owner of everything that had none when the first apply came.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Most of an error's text that is told.
const MAX_TOLD: usize = 512;

/// What became of a write.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) landing: Landing,
    /// What went wrong, by kind and in words.
    pub(super) trouble: Option<(String, String)>,
    /// How long the API server asks to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl Outcome {
    fn of(landing: Landing) -> Self {
        Self { landing, trouble: None, retry_after: None }
    }

    fn failed(landing: Landing, kind: impl Into<String>, told: impl Into<String>) -> Self {
        Self { landing, trouble: Some((kind.into(), told.into())), retry_after: None }
    }
}

/// Where an object is: below which path, in which namespace, under which name.
pub(super) struct Place<'a> {
    pub(super) kind: &'static str,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
}

impl<'a> Place<'a> {
    pub(super) fn of(subject: &'a Subject) -> Self {
        match subject {
            Subject::Instance(id) => {
                let (namespace, name) = id.as_str().split_once('/').unwrap_or_default();
                Self { kind: "RemoteInstance", namespace: Some(namespace), name }
            }
            Subject::Block(name) => Self { kind: "VersionBlock", namespace: None, name },
        }
    }

    /// Names are of a few harmless characters, so nothing needs an escape.
    fn path(&self) -> String {
        match self.namespace {
            Some(namespace) => {
                format!("/apis/{API_VERSION}/namespaces/{namespace}/remoteinstances/{}/status", self.name)
            }
            None => format!("/apis/{API_VERSION}/versionblocks/{}/status", self.name),
        }
    }
}

/// The API server, and who writes.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) client: &'a Client,
    pub(super) manager: &'a str,
}

/// Writes a status. Whatever somebody else claims of it is taken over: the planner alone knows.
pub(super) async fn write(way: Way<'_>, letter: &Letter, within: Duration) -> Outcome {
    match timeout(within, exchange(way, letter)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::failed(Landing::Later, kind(&error), error.to_string()),
        Err(_) => Outcome::failed(Landing::Later, "time-out", "no answer from the API server in time"),
    }
}

async fn exchange(way: Way<'_>, letter: &Letter) -> Result<Outcome, kube::Error> {
    let place = Place::of(&letter.subject);
    let status = match &letter.status {
        Status::Instance(status) => Some(serde_json::to_value(&**status)),
        Status::Block(status) => Some(serde_json::to_value(&**status)),
        Status::Nothing => None,
    };
    let status = status.transpose().map_err(kube::Error::SerdeError)?;
    if let Some(uid) = &letter.nonsense {
        let step = status.as_ref().map_or_else(nothing, whole);
        return Ok(put(way, &place, json!([test("uid", uid), step])).await?.0);
    }
    let mut object = json!({
        "apiVersion": API_VERSION,
        "kind": place.kind,
        "metadata": ObjectMeta {
            name: Some(place.name.to_owned()),
            namespace: place.namespace.map(str::to_owned),
            ..ObjectMeta::default()
        },
    });
    let is_taken_back = status.is_none();
    if let (Some(status), Some(object)) = (status, object.as_object_mut()) {
        object.insert("status".to_owned(), status);
    }
    let (outcome, is_anothers) = put(way, &place, object).await?;
    match outcome.landing {
        Landing::Written(Told { digest: Some(_), revision }) if is_taken_back && !is_anothers => {
            let rest = json!([test("resourceVersion", &revision.to_string()), nothing()]);
            Ok(put(way, &place, rest).await?.0)
        }
        _ => Ok(outcome),
    }
}

/// The step of a JSON patch that puts the whole status in place.
fn whole(status: &Value) -> Value {
    json!({"op": "add", "path": "/status", "value": status})
}

/// The step that takes it away.
fn nothing() -> Value {
    json!({"op": "remove", "path": "/status"})
}

/// The step that lets the next ones be taken only where the object's metadata say this.
fn test(member: &str, value: &str) -> Value {
    json!({"op": "test", "path": format!("/metadata/{member}"), "value": value})
}

/// Sends a patch: an object to be applied, or a list of steps. Says, too, whether the status is somebody else's.
async fn put(way: Way<'_>, place: &Place<'_>, patch: Value) -> Result<(Outcome, bool), kube::Error> {
    let (content, query) = if patch.is_array() {
        ("application/json-patch+json", "")
    } else {
        ("application/apply-patch+yaml", "&force=true")
    };
    let request = Request::builder()
        .method(Method::PATCH)
        .uri(format!("{}?fieldManager={}{query}", place.path(), way.manager))
        .header(header::CONTENT_TYPE, content)
        .header(header::ACCEPT, "application/json")
        .body(Body::from(patch.to_string().into_bytes()))
        .map_err(kube::Error::HttpError)?;
    let response = way.client.send(request).await?;
    let (code, retry_after) = (response.status(), retry_after(&response));
    let bytes = response.into_body().collect().await?.to_bytes();
    let (outcome, is_anothers) = match place.namespace {
        Some(_) => judge::<RemoteInstanceStatus>(code, &bytes, way.manager),
        None => judge::<VersionBlockStatus>(code, &bytes, way.manager),
    };
    Ok((Outcome { retry_after, ..outcome }, is_anothers))
}

fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// | answer | means |
/// |---|---|
/// | 200, 201 | written; what the object is now says how far the watch must come |
/// | 404, 409 | the object is gone, or another has its name |
/// | 401, 403 | nothing may be written at present: rights are missing |
/// | 429, 502, 503, 504 | the API server asks for patience |
/// | anything else | this status is not taken, e.g. by an older definition of the resource |
fn judge<S>(code: StatusCode, body: &[u8], manager: &str) -> (Outcome, bool)
where
    S: Said + DeserializeOwned + Default + PartialEq,
{
    let failed = |landing| {
        let told: String = match serde_json::from_slice::<Refusal>(body) {
            Ok(Refusal { message }) => message.chars().take(MAX_TOLD).collect(),
            Err(_) => String::from_utf8_lossy(body).chars().take(MAX_TOLD).collect(),
        };
        (Outcome::failed(landing, code.as_str(), format!("{code}: {told}")), true)
    };
    match code {
        StatusCode::OK | StatusCode::CREATED => match serde_json::from_slice::<Stored>(body) {
            Ok(Stored { metadata, status }) => {
                let status = S::deserialize(status.0).ok().filter(|status| *status != S::default());
                let digest = status.map(|status| status.digest());
                let revision = metadata.resource_version.parse().unwrap_or_default();
                let is_anothers = metadata.managed_fields.iter().any(|entry| entry.is_anothers(manager));
                (Outcome::of(Landing::Written(Told { digest, revision })), is_anothers)
            }
            Err(error) => (Outcome::failed(Landing::Refused, "answer", error.to_string()), true),
        },
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => (Outcome::of(Landing::Gone), true),
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => failed(Landing::Later),
        _ => failed(Landing::Refused),
    }
}

/// An object, as far as it is of interest.
#[derive(Deserialize)]
struct Stored {
    metadata: StoredMetadata,
    #[serde(default)]
    status: Shallow,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct StoredMetadata {
    resource_version: String,
    managed_fields: Vec<Manager>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Manager {
    manager: String,
    /// What it owns, of which only the uppermost names count.
    fields_v1: BTreeMap<String, Shallow>,
}

impl Manager {
    /// Does it own a status, and is somebody else than the one who writes?
    fn is_anothers(&self, writes: &str) -> bool {
        ![writes, BEFORE_FIRST_APPLY].contains(&self.manager.as_str())
            && self.fields_v1.contains_key("f:status")
    }
}

/// Why not.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "latchkey-operator-status/here";

    fn landing(code: u16, body: &str) -> Landing {
        judge::<RemoteInstanceStatus>(StatusCode::from_u16(code).unwrap(), body.as_bytes(), HERE).0.landing
    }

    #[test]
    fn answers_mean_what_they_should() {
        let written = r#"{"metadata": {"resourceVersion": "17"}, "status": {"url": "https://a"}}"#;
        let status = RemoteInstanceStatus { url: Some("https://a".to_owned()), ..Default::default() };
        let told = Told { digest: Some(status.digest()), revision: 17 };
        assert_eq!(landing(200, written), Landing::Written(told));
        let nothing = Landing::Written(Told { digest: None, revision: 17 });
        for status in ["{}", "null"] {
            let object = format!(r#"{{"metadata": {{"resourceVersion": "17"}}, "status": {status}}}"#);
            assert_eq!(landing(200, &object), nothing);
        }
        for code in [404, 409] {
            assert_eq!(landing(code, "{}"), Landing::Gone);
        }
        for code in [401, 403, 429, 502, 503, 504] {
            assert_eq!(landing(code, "slow down"), Landing::Later);
        }
        for code in [400, 413, 422, 500] {
            assert_eq!(landing(code, "{}"), Landing::Refused);
        }
        let refused =
            judge::<RemoteInstanceStatus>(StatusCode::UNPROCESSABLE_ENTITY, br#"{"message": "no"}"#, HERE);
        assert_eq!(refused.0.trouble.unwrap().1, "422 Unprocessable Entity: no");
    }

    #[test]
    fn a_status_of_somebody_else_is_known() {
        let is_anothers = |manager: &str, fields: &str| {
            let entry = json!({"manager": manager, "fieldsV1": {fields: {}}});
            let object = json!({"metadata": {"resourceVersion": "1", "managedFields": [entry]}});
            judge::<RemoteInstanceStatus>(StatusCode::OK, object.to_string().as_bytes(), HERE).1
        };
        for (manager, fields) in [("kubectl", "f:spec"), (HERE, "f:status"), (BEFORE_FIRST_APPLY, "f:status")]
        {
            assert!(!is_anothers(manager, fields), "{manager}");
        }
        for manager in ["latchkey-operator-status/there", "kubectl"] {
            assert!(is_anothers(manager, "f:status"), "{manager}");
        }
    }

    #[test]
    fn an_answer_about_what_is_nested_without_end_is_read() {
        let nested = |open: &str, close: &str| format!("{}1{}", open.repeat(1_000), close.repeat(1_000));
        let object = format!(
            r#"{{"metadata": {{"resourceVersion": "5", "managedFields": [{{"manager": "kubectl", "fieldsV1": {{"f:spec": {}}}}}]}},
                "spec": {}, "status": {{"url": {}}}}}"#,
            nested(r#"{"f:a":"#, "}"),
            nested("[", "]"),
            nested("[", "]"),
        );
        assert_eq!(landing(200, &object), Landing::Written(Told { digest: None, revision: 5 }));
    }

    #[test]
    fn seconds_of_patience_are_read() {
        let response = |value: &str| Response::builder().header("retry-after", value).body(()).unwrap();
        assert_eq!(retry_after(&response("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&response("soon")), None);
    }
}
