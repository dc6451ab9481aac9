//! An installation in the namespace of a test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use http::Method;
use latchkey_cluster_tests::{
    Answer, ControlPlane, LOGS_VARIABLE, Process, TestError, TestNamespace, free_ports,
};
use latchkey_operator::names::Names;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::line::Line;

use super::account::Account;
use super::programs::program;
use super::{Visitor, WebServer, eventually};

/// Names end with it; nobody asks DNS for them.
pub(crate) const DOMAIN: &str = "ui.example.com";

/// What shifts a proxy's clock (`proxy/src/clock.rs`).
const CLOCK_VARIABLE: &str = "LATCHKEY_TEST_CLOCK_OFFSET";

/// A replica of the operator.
pub(crate) struct Operator {
    pub(crate) process: Process,
    pub(crate) admin: SocketAddr,
}

/// A proxy.
pub(crate) struct Proxy {
    pub(crate) process: Process,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// An agent and its instance.
pub(crate) struct Agent {
    _process: Process,
    _server: WebServer,
}

/// Everything of one installation. Processes end when it is dropped.
pub(crate) struct Installation<'a, 'b> {
    pub(crate) namespace: &'a TestNamespace<'b>,
    pub(crate) names: Names,
    folder: TempDir,
    /// Where operators listen; decided once, since proxies know it from their start.
    pub(crate) links: Vec<SocketAddr>,
    pub(crate) operators: BTreeMap<usize, Operator>,
    pub(crate) proxies: BTreeMap<usize, Proxy>,
    pub(crate) agents: BTreeMap<String, Agent>,
    ports: BTreeMap<usize, u16>,
    /// Where proxies look for operators, where that is not where they listen.
    ways: Option<Vec<SocketAddr>>,
    /// By how many seconds the clocks of proxies are off.
    clocks: BTreeMap<usize, i64>,
    /// For how many seconds a leader leads without a word: few, so that tests need not wait for the next one.
    pub(crate) lease: u32,
    /// Who operators are, and what they find the API server by.
    pub(crate) account: Account,
    kubeconfig: PathBuf,
    /// Do operators keep the proxies' workload? Then there are pods, and somebody has to look after them.
    pub(crate) keeps_workload: bool,
    /// What operators are told besides.
    pub(crate) more_arguments: Vec<String>,
    started: usize,
}

impl<'a, 'b> Installation<'a, 'b> {
    /// Writes the settings, and makes the account that operators are. Its name is the namespace's, so that no other installation of the tests minds its objects.
    pub(crate) async fn begin(namespace: &'a TestNamespace<'b>) -> Result<Self, TestError> {
        let names =
            Names { namespace: namespace.name().to_owned(), installation: namespace.name().to_owned() };
        let links = free_ports::<2>()?.map(|port| SocketAddr::from(([127, 0, 0, 1], port))).to_vec();
        let ports = free_ports::<4>()?;
        let account = Account::make(namespace, &names).await?;
        let folder = folder(namespace)?;
        let kubeconfig = folder.path().join("kubeconfig");
        account.write_kubeconfig(&kubeconfig, None)?;
        let whole = Self {
            namespace,
            names,
            folder,
            links,
            operators: BTreeMap::new(),
            proxies: BTreeMap::new(),
            agents: BTreeMap::new(),
            ports: ports.into_iter().enumerate().collect(),
            ways: None,
            clocks: BTreeMap::new(),
            lease: 5,
            account,
            kubeconfig,
            keeps_workload: false,
            more_arguments: Vec::new(),
            started: 0,
        };
        whole.write_settings(&json!({})).await?;
        Ok(whole)
    }

    /// Writes the settings, with some members different.
    pub(crate) async fn write_settings(&self, different: &Value) -> Result<(), TestError> {
        self.write_all_settings(different, &json!({"image": "none.invalid/proxy:1"})).await
    }

    /// The same, with the proxies' own.
    pub(crate) async fn write_all_settings(
        &self,
        different: &Value,
        proxies: &Value,
    ) -> Result<(), TestError> {
        let mut spec = json!({
            "domain": DOMAIN,
            "default": false,
            "namespaces": [self.namespace.name()],
            "tunnelAddress": format!("127.0.0.1:{}", self.ports[&0]),
        });
        for (member, value) in different.as_object().into_iter().flatten() {
            spec[member] = value.clone();
        }
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.names.settings()},
            "data": {"installation.yaml": json!({"spec": spec, "proxies": proxies}).to_string()},
        });
        let path = format!(
            "/api/v1/namespaces/{}/configmaps/{}?fieldManager=tests&force=true",
            self.namespace.name(),
            self.names.settings()
        );
        accepted(self.namespace.control_plane().exchange(Method::PATCH, &path, &map).await?)?;
        Ok(())
    }

    /// Operators that start from now on keep the proxies themselves. They and those that run do it with these settings.
    pub(crate) async fn keep_proxies(&mut self, settings: &Value) -> Result<(), TestError> {
        self.keeps_workload = true;
        self.write_all_settings(&json!({}), settings).await
    }

    /// Where agents find the proxies.
    pub(crate) fn tunnel_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[&0]))
    }

    /// Operators that start from now on reach the API server by this line.
    pub(crate) fn through(&mut self, line: &Line) -> Result<(), TestError> {
        let path = self.path("kubeconfig-of-the-line");
        self.account.write_kubeconfig(&path, Some(&format!("https://{}", line.here)))?;
        self.kubeconfig = path;
        Ok(())
    }

    /// Where an operator listens for proxies.
    pub(crate) fn link(&self, which: usize) -> SocketAddr {
        self.links[which]
    }

    /// Proxies that start from now on look for the operator here alone.
    pub(crate) fn link_through(&mut self, way: SocketAddr) {
        self.ways = Some(vec![way]);
    }

    /// When this proxy starts, its clock is off by so many seconds.
    pub(crate) fn set_clock(&mut self, which: usize, seconds: i64) {
        self.clocks.insert(which, seconds);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&mut self, name: &str) -> PathBuf {
        self.started += 1;
        let number = self.started;
        self.path(&format!("{name}.{number}.log"))
    }

    /// Starts a replica of the operator, or starts it again.
    pub(crate) fn start_operator(&mut self, which: usize) -> Result<(), TestError> {
        let link = self.links[which];
        let admin = SocketAddr::from(([127, 0, 0, 1], free_ports::<1>()?[0]));
        let mut arguments = vec![
            format!("--namespace={}", self.names.namespace),
            format!("--installation={}", self.names.installation),
            format!("--identity=operator-{which}"),
            format!("--link={link}"),
            format!("--admin={admin}"),
            format!("--lease={}", self.lease),
            "--log=info".to_owned(),
        ];
        if !self.keeps_workload {
            arguments.push("--no-workload".to_owned());
        }
        arguments.extend(self.more_arguments.iter().cloned());
        let environment = [("KUBECONFIG", self.kubeconfig.clone())];
        let log = self.log("operator");
        let process =
            Process::start_with("operator", &program("latchkey-operator")?, &arguments, &environment, log)?;
        self.operators.insert(which, Operator { process, admin });
        Ok(())
    }

    /// Waits until an operator says that it is ready.
    pub(crate) async fn operator_ready(&self, which: usize) -> Result<(), TestError> {
        let admin = self.operators[&which].admin;
        eventually("the operator is ready", async || ready(admin).await).await
    }

    /// Writes a Secret into a folder, as a kubelet does for a volume.
    pub(crate) async fn mount(&self, secret: &str, folder: &Path) -> Result<(), TestError> {
        let path = format!("/api/v1/namespaces/{}/secrets/{secret}", self.namespace.name());
        let secret = eventually("the Secret", async || {
            accepted(self.namespace.control_plane().exchange(Method::GET, &path, &Value::Null).await?)
        })
        .await?;
        std::fs::create_dir_all(folder)?;
        for (name, value) in secret["data"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD.decode(value)?;
            std::fs::write(folder.join(name), bytes)?;
        }
        Ok(())
    }

    /// Starts a proxy, or starts it again with what it had.
    pub(crate) async fn start_proxy(&mut self, which: usize) -> Result<(), TestError> {
        let certificates = self.path("certificates");
        self.mount(&self.names.proxy_certificates(), &certificates).await?;
        let public = SocketAddr::from(([127, 0, 0, 1], self.ports[&which]));
        let admin = SocketAddr::from(([127, 0, 0, 1], free_ports::<1>()?[0]));
        let links: Vec<String> =
            self.ways.as_ref().unwrap_or(&self.links).iter().map(ToString::to_string).collect();
        let arguments = [
            format!("--listen={public}"),
            format!("--admin={admin}"),
            format!("--operator={}", links.join(",")),
            format!("--operator-tls={}", certificates.display()),
            format!("--operator-name={}", self.names.operator_service()),
            format!("--replica={}-{which}", self.names.proxies()),
            format!("--table-cache={}", self.path(&format!("table-{which}")).display()),
            format!("--api-tls={}", certificates.display()),
            "--grace=2".to_owned(),
            "--data-threads=1".to_owned(),
        ];
        let log = self.log("proxy");
        let clock =
            self.clocks.get(&which).map(|seconds| (CLOCK_VARIABLE, PathBuf::from(seconds.to_string())));
        let environment: Vec<_> = clock.into_iter().collect();
        let process =
            Process::start_with("proxy", &program("latchkey-proxy")?, &arguments, &environment, log)?;
        self.proxies.insert(which, Proxy { process, public, admin });
        Ok(())
    }

    /// Proxies that start from now on know no table.
    pub(crate) fn forget_tables(&self) -> Result<(), TestError> {
        for which in self.ports.keys() {
            let kept = self.path(&format!("table-{which}"));
            if kept.exists() {
                std::fs::remove_file(kept)?;
            }
        }
        Ok(())
    }

    /// Waits until a proxy says that it is ready.
    pub(crate) async fn proxy_ready(&self, which: usize) -> Result<(), TestError> {
        let admin = self.proxies[&which].admin;
        eventually("the proxy is ready", async || ready(admin).await).await
    }

    /// Applies an object of ours: an instance (namespace and installation are filled in) or a version block.
    pub(crate) async fn apply(&self, object: &Value) -> Result<Value, TestError> {
        let mut object = object.clone();
        object["apiVersion"] = json!(resources::API_VERSION);
        let name = object["metadata"]["name"].as_str().ok_or("an object without a name")?.to_owned();
        let base = format!("/apis/{}", resources::API_VERSION);
        let path = if object["kind"] == "VersionBlock" {
            format!("{base}/versionblocks/{name}")
        } else {
            object["spec"]["installation"] = json!(self.names.installation);
            format!("{base}/namespaces/{}/remoteinstances/{name}", self.namespace.name())
        };
        let path = format!("{path}?fieldManager=tests&force=true&fieldValidation=Strict");
        accepted(self.namespace.control_plane().exchange(Method::PATCH, &path, &object).await?)
    }

    /// The path of an instance at the API server.
    pub(crate) fn instance_path(&self, name: &str) -> String {
        format!(
            "/apis/{}/namespaces/{}/remoteinstances/{name}",
            resources::API_VERSION,
            self.namespace.name()
        )
    }

    /// The id of an instance.
    pub(crate) fn id(&self, name: &str) -> String {
        format!("{}/{name}", self.namespace.name())
    }

    /// Where its objects are.
    pub(crate) fn control_plane(&self) -> &ControlPlane {
        self.namespace.control_plane()
    }

    /// What an operator counts, by name, without what has labels.
    pub(crate) async fn operator_metrics(&self, which: usize) -> Result<BTreeMap<String, f64>, TestError> {
        let (_, text) = get(self.operators[&which].admin, "/metrics").await?;
        let read = |line: &str| {
            let (name, value) = line.strip_prefix("latchkey_operator_")?.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(text.lines().filter_map(read).collect())
    }

    /// An instance as the API server has it.
    pub(crate) async fn instance(&self, name: &str) -> Result<Value, TestError> {
        let path = self.instance_path(name);
        accepted(self.namespace.control_plane().exchange(Method::GET, &path, &Value::Null).await?)
    }

    /// Asks for a join bundle as a person does, and starts an agent with it.
    pub(crate) async fn start_agent(&mut self, name: &str, version: &str) -> Result<(), TestError> {
        let request = json!({"metadata": {"annotations": {"latchkey.dev/join": "once"}}});
        let path = self.instance_path(name);
        accepted(self.namespace.control_plane().exchange(Method::PATCH, &path, &request).await?)?;
        // The Secret is there a moment before its token lets anybody in.
        eventually("the join token counts", async || {
            let object = self.instance(name).await?;
            let tokens = object["metadata"]["annotations"].get("latchkey.dev/join-tokens");
            tokens.map(drop).ok_or_else(|| "no token yet".into())
        })
        .await?;
        let folder = self.path(&format!("join-{name}"));
        self.mount(&format!("{name}-join"), &folder).await?;
        self.run_agent(name, version).await
    }

    /// Starts an agent that has joined before.
    pub(crate) async fn run_agent(&mut self, name: &str, version: &str) -> Result<(), TestError> {
        let server = WebServer::start(&format!("the page of {name}")).await?;
        let arguments = [
            format!("--join={}", self.path(&format!("join-{name}")).join("bundle").display()),
            format!("--state={}", self.path(&format!("agent-{name}")).display()),
            format!("--target={}", server.address),
            format!("--product-version-file={}", self.version_file(name).display()),
            "--product-version-interval=0.2".to_owned(),
        ];
        self.report_version(name, version)?;
        let log = self.log("agent");
        let process = Process::start_with("agent", &program("latchkey-agent")?, &arguments, &[], log)?;
        self.agents.insert(name.to_owned(), Agent { _process: process, _server: server });
        Ok(())
    }

    /// What runs behind an agent is another version from now on.
    pub(crate) fn report_version(&self, name: &str, version: &str) -> Result<(), TestError> {
        // An agent never reads half of it.
        let next = self.path(&format!("version-{name}.next"));
        std::fs::write(&next, version)?;
        Ok(std::fs::rename(next, self.version_file(name))?)
    }

    fn version_file(&self, name: &str) -> PathBuf {
        self.path(&format!("version-{name}"))
    }

    /// The page of an instance, through a proxy.
    pub(crate) async fn page(&self, proxy: usize, host: &str) -> Result<String, TestError> {
        Visitor::page(self.proxies[&proxy].public, host).await
    }

    /// Waits for a condition, as `kubectl wait` does.
    pub(crate) async fn condition(&self, name: &str, kind: &str, expected: &str) -> Result<Value, TestError> {
        eventually(&format!("{name} is {kind}={expected}"), async || {
            let object = self.instance(name).await?;
            let conditions = object.pointer("/status/conditions").and_then(Value::as_array).cloned();
            let found = conditions.unwrap_or_default().into_iter().find(|each| each["type"] == kind);
            match found {
                Some(condition)
                    if condition["status"] == expected
                        && condition["observedGeneration"] == object["metadata"]["generation"] =>
                {
                    Ok(object)
                }
                found => Err(format!("{found:?}").into()),
            }
        })
        .await
    }
}

/// Where programs keep what they keep, and their logs: those stay where somebody wants to read them.
fn folder(namespace: &TestNamespace<'_>) -> Result<TempDir, TestError> {
    let mut folder = tempfile::Builder::new();
    let prefix = format!("{}-", namespace.name());
    folder.prefix(&prefix);
    Ok(match std::env::var_os(LOGS_VARIABLE) {
        Some(logs) => folder.disable_cleanup(true).tempdir_in(logs)?,
        None => folder.tempdir()?,
    })
}

/// The body of an answer, or what the API server said against it.
pub(crate) fn accepted(answer: Answer) -> Result<Value, TestError> {
    if answer.is_success() { Ok(answer.body) } else { Err(answer.message().to_owned().into()) }
}

/// Asks `/readyz`.
async fn ready(admin: SocketAddr) -> Result<(), TestError> {
    let (code, text) = get(admin, "/readyz").await?;
    if code == 200 { Ok(()) } else { Err(format!("{code}: {text}").into()) }
}

/// One plain HTTP request.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<(u16, String), TestError> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no HTTP")?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((code, body))
}
