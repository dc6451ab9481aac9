//! Single requests whose whole answer is looked at: code, warnings, text.

use http::{Method, Request};
use http_body_util::BodyExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::client::Body;
use kube::{Api, ResourceExt};
use serde_json::Value;
use std::time::{Duration, Instant};

use crate::{ClusterError, ControlPlane};

/// How long a definition may take to be served.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(30);

/// What the API server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP's code.
    pub code: u16,
    /// What it warned of.
    pub warnings: Vec<String>,
    /// The object, or the status that says why not.
    pub body: Value,
}

impl Answer {
    /// Was it done?
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Why it was not done, in the API server's words.
    pub fn message(&self) -> &str {
        self.body.get("message").and_then(Value::as_str).unwrap_or_default()
    }
}

impl ControlPlane {
    /// Sends a request as it is. `path` begins with a slash and may have a query.
    pub async fn exchange(&self, method: Method, path: &str, body: &Value) -> Result<Answer, ClusterError> {
        let content_type = match method {
            Method::PATCH if path.contains("fieldManager=") => "application/apply-patch+yaml",
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .header("accept", "application/json")
            .body(Body::from(body))
            .map_err(|error| ClusterError::Answer(error.to_string()))?;
        let response = self.client().send(request).await?;
        let code = response.status().as_u16();
        let warnings = response
            .headers()
            .get_all("warning")
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        let bytes = response.into_body().collect().await?.to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer { code, warnings, body })
    }

    /// Applies the custom resource definitions and waits until they are served. Returns what the API server said of
    /// each.
    pub async fn install_definitions(&self) -> Result<Vec<Answer>, ClusterError> {
        let mut answers = Vec::new();
        for definition in resources::crds::definitions() {
            let name = definition.name_any();
            let body =
                serde_json::to_value(&definition).map_err(|error| ClusterError::Answer(error.to_string()))?;
            let path = format!(
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}?fieldManager=latchkey-tests&force=true"
            );
            let answer = self.exchange(Method::PATCH, &path, &body).await?;
            if !answer.is_success() {
                return Err(ClusterError::Answer(answer.message().to_owned()));
            }
            answers.push(answer);
        }
        for definition in resources::crds::definitions() {
            self.wait_until_established(&definition.name_any()).await?;
        }
        Ok(answers)
    }

    async fn wait_until_established(&self, name: &str) -> Result<(), ClusterError> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client());
        let began = Instant::now();
        loop {
            let conditions =
                api.get(name).await?.status.and_then(|status| status.conditions).unwrap_or_default();
            let established = conditions
                .iter()
                .any(|condition| condition.type_ == "Established" && condition.status == "True");
            // Established comes a moment before the paths are served and the schema is published.
            if established && self.serves(name).await? {
                return Ok(());
            }
            if began.elapsed() > ESTABLISHED_WITHIN {
                let seen = serde_json::to_string(&conditions).unwrap_or_default();
                let what = format!("the definition {name}");
                return Err(ClusterError::TimedOut { what, seconds: ESTABLISHED_WITHIN.as_secs(), seen });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Are the objects of a definition served, and does the published schema (what `kubectl explain` reads) know them?
    async fn serves(&self, name: &str) -> Result<bool, ClusterError> {
        let plural = name.split('.').next().unwrap_or_default();
        let base = format!("apis/{}", resources::API_VERSION);
        if !self.exchange(Method::GET, &format!("/{base}/{plural}?limit=1"), &Value::Null).await?.is_success()
        {
            return Ok(false);
        }
        let schema = self.exchange(Method::GET, &format!("/openapi/v3/{base}"), &Value::Null).await?;
        let paths = schema.body.get("paths").and_then(Value::as_object);
        Ok(paths.is_some_and(|paths| paths.keys().any(|path| path.ends_with(plural))))
    }
}
