//! One write of a status, and what the answer means.
//!
//! A status is written by server-side apply to the status subresource. That fails (500, "failed to create typed live
//! object") for an object whose *spec* was stored under another definition and has a member of another type now. What is
//! wrong with an object does not forbid to change the rest of it, however, so that such an object gets its status by a
//! JSON patch that puts the whole of it in place, and only into the object that is meant.
//!
//! Of what is written into such an object nobody is the owner (managed fields are not kept up there), so that apply does
//! not take it away later. So where the answer to an apply says more than was applied, and nobody but installations owns any
//! of the status, the patch follows: the one that serves an object alone knows. What somebody else added to a status stays.
//!
//! A status is taken back by applying none: what only this installation owns goes, what another one has told meanwhile
//! stays. Where something is left that nobody else owns, it is removed, unless the object has changed since.

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
use crate::names::STATUS_MANAGERS;
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

/// Who owns something of a status, besides the one who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owners {
    Nobody,
    /// Other installations.
    Installations,
    Somebody,
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
    let whole = || status.as_ref().map_or_else(nothing, whole);
    if let Some(uid) = &letter.nonsense {
        return Ok(put(way, &place, json!([test("uid", uid), whole()])).await?.0);
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
    if let (Some(status), Some(object)) = (&status, object.as_object_mut()) {
        object.insert("status".to_owned(), status.clone());
    }
    let (outcome, owners) = put(way, &place, object).await?;
    let Landing::Written(told) = outcome.landing else { return Ok(outcome) };
    if told.digest == letter.status.digest() {
        return Ok(outcome);
    }
    let rest = match (&status, owners) {
        (Some(_), Owners::Nobody | Owners::Installations) => json!([whole()]),
        (None, Owners::Nobody) => json!([test("resourceVersion", &told.revision.to_string()), whole()]),
        _ => return Ok(outcome),
    };
    Ok(put(way, &place, rest).await?.0)
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

/// Sends a patch: an object to be applied, or a list of steps. Says, too, who else owns any of the status.
async fn put(way: Way<'_>, place: &Place<'_>, patch: Value) -> Result<(Outcome, Owners), kube::Error> {
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
    let (outcome, owners) = match place.namespace {
        Some(_) => judge::<RemoteInstanceStatus>(code, &bytes, way.manager),
        None => judge::<VersionBlockStatus>(code, &bytes, way.manager),
    };
    Ok((Outcome { retry_after, ..outcome }, owners))
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
fn judge<S>(code: StatusCode, body: &[u8], manager: &str) -> (Outcome, Owners)
where
    S: Said + DeserializeOwned + Default + PartialEq,
{
    let failed = |landing| {
        let told: String = match serde_json::from_slice::<Refusal>(body) {
            Ok(Refusal { message }) => message.chars().take(MAX_TOLD).collect(),
            Err(_) => String::from_utf8_lossy(body).chars().take(MAX_TOLD).collect(),
        };
        (Outcome::failed(landing, code.as_str(), format!("{code}: {told}")), Owners::Somebody)
    };
    match code {
        StatusCode::OK | StatusCode::CREATED => match serde_json::from_slice::<Stored>(body) {
            Ok(Stored { metadata, status }) => {
                let status = S::deserialize(status.0).ok().filter(|status| *status != S::default());
                let digest = status.map(|status| status.digest());
                let revision = metadata.resource_version.parse().unwrap_or_default();
                let owners = metadata.managed_fields.iter().map(|entry| entry.owner(manager)).max();
                let landing = Landing::Written(Told { digest, revision });
                (Outcome::of(landing), owners.unwrap_or(Owners::Nobody))
            }
            Err(error) => (Outcome::failed(Landing::Refused, "answer", error.to_string()), Owners::Somebody),
        },
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => (Outcome::of(Landing::Gone), Owners::Somebody),
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
    /// Who it is to one who writes.
    fn owner(&self, writes: &str) -> Owners {
        let name = self.manager.as_str();
        if [writes, BEFORE_FIRST_APPLY].contains(&name) || !self.fields_v1.contains_key("f:status") {
            Owners::Nobody
        } else if name.starts_with(STATUS_MANAGERS) {
            Owners::Installations
        } else {
            Owners::Somebody
        }
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
    fn somebody_else_in_a_status_is_seen() {
        let owners = |manager: &str, fields: &str| {
            let entry = json!({"manager": manager, "fieldsV1": {fields: {}}});
            let object = json!({"metadata": {"resourceVersion": "1", "managedFields": [entry]}});
            judge::<RemoteInstanceStatus>(StatusCode::OK, object.to_string().as_bytes(), HERE).1
        };
        for (manager, fields) in [("kubectl", "f:spec"), (HERE, "f:status"), (BEFORE_FIRST_APPLY, "f:status")]
        {
            assert_eq!(owners(manager, fields), Owners::Nobody, "{manager}");
        }
        assert_eq!(owners("latchkey-operator-status/there", "f:status"), Owners::Installations);
        assert_eq!(owners("kubectl", "f:status"), Owners::Somebody);
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
