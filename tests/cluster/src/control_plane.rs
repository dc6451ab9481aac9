//! etcd and kube-apiserver, from nothing to ready.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::folder::Folder;
use crate::ports::free_ports;
use crate::process::Process;
use crate::{ClusterError, KUBECONFIG_VARIABLE, audit, certificates, is_set, tools};

/// A server that is not ready by then never will be: two cores under load need some ten seconds.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// Tries to start, each with ports of its own: somebody else may take one in between.
const TRIES: usize = 3;

/// What [`ControlPlane::start_controllers`] starts: what makes pods of a `StatefulSet`, counts for a budget, and takes away
/// what has no owner any more. No nodes: nothing here runs a pod.
pub const CONTROLLERS: [&str; 5] = [
    "statefulset-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "endpointslice-controller",
    "namespace-controller",
];

/// An API server to test with. Dropping it ends what it started.
pub struct ControlPlane {
    client: Client,
    kubeconfig: PathBuf,
    tools: PathBuf,
    // Dropped in this order: first who asks the servers, then the servers, then what they wrote.
    controllers: OnceCell<Process>,
    servers: Option<Mutex<Servers>>,
    folder: Folder,
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ControlPlane").field("kubeconfig", &self.kubeconfig).finish_non_exhaustive()
    }
}

/// A server of a control plane that can be killed, and started again with what it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Where everything is kept.
    Etcd,
    /// What everybody asks.
    ApiServer,
}

#[derive(Debug)]
struct Servers {
    api_server: Process,
    etcd: Process,
    /// Where etcd keeps what it keeps.
    state: PathBuf,
    ports: Ports,
    /// Further arguments of the API server.
    more: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    /// etcd's, for who asks.
    clients: u16,
    /// etcd's, for others of its kind.
    peers: u16,
    /// The API server's.
    https: u16,
}

impl Servers {
    fn check(&mut self) -> Result<(), ClusterError> {
        self.etcd.check()?;
        self.api_server.check()
    }

    fn process(&mut self, which: Server) -> &mut Process {
        match which {
            Server::Etcd => &mut self.etcd,
            Server::ApiServer => &mut self.api_server,
        }
    }
}

impl ControlPlane {
    /// Starts one and waits until it is ready, or takes the one of [`KUBECONFIG_VARIABLE`].
    pub async fn start() -> Result<Self, ClusterError> {
        if !is_set(KUBECONFIG_VARIABLE) {
            return Self::start_own(&|_| Ok(Vec::new())).await;
        }
        use_the_provider();
        let kubeconfig = PathBuf::from(std::env::var_os(KUBECONFIG_VARIABLE).unwrap_or_default());
        let client = connect(&kubeconfig).await?;
        let (tools, folder, controllers) = (tools::folder().await?, Folder::make()?, OnceCell::new());
        Ok(Self { client, kubeconfig, tools, controllers, servers: None, folder })
    }

    /// Starts one that writes down what accounts of pods ask: [`ControlPlane::asked`].
    pub async fn start_audited() -> Result<Self, ClusterError> {
        Self::start_own(&|folder| Ok(audit::arguments(folder)?.to_vec())).await
    }

    /// Starts one whose API server is told more than others are.
    async fn start_own(
        more: &dyn Fn(&Path) -> Result<Vec<String>, ClusterError>,
    ) -> Result<Self, ClusterError> {
        use_the_provider();
        let tools = tools::folder().await?;
        let folder = Folder::make()?;
        certificates::write(folder.path())?;
        let more = more(folder.path())?;
        let kubeconfig = folder.path().join("kubeconfig");
        let mut tries = 1;
        loop {
            match start_servers(&tools, folder.path(), &kubeconfig, &more).await {
                Ok((servers, client)) => {
                    let (servers, controllers) = (Some(servers), OnceCell::new());
                    return Ok(Self { client, kubeconfig, tools, controllers, servers, folder });
                }
                Err(ClusterError::Server { .. }) if tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// A client with every right.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A client with the rights of somebody else, by impersonation: `system:serviceaccount:<namespace>:<name>`.
    pub async fn client_as(&self, user: &str) -> Result<Client, ClusterError> {
        let mut config = config(&self.kubeconfig).await?;
        config.auth_info.impersonate = Some(user.to_owned());
        Ok(Client::try_from(config)?)
    }

    /// Starts the controllers that [`CONTROLLERS`] names, once. A cluster that was given has its own.
    pub async fn start_controllers(&self) -> Result<(), ClusterError> {
        if self.servers.is_none() {
            return Ok(());
        }
        let start = async || {
            let log = self.folder.path().join("kube-controller-manager.log");
            let arguments = controller_arguments(self.folder.path(), &self.kubeconfig);
            let program = self.tools.join("kube-controller-manager");
            Process::start("kube-controller-manager", &program, &arguments, log)
        };
        self.controllers.get_or_try_init(start).await?;
        Ok(())
    }

    /// Are the servers ours, so that they may be killed?
    pub fn is_ours(&self) -> bool {
        self.servers.is_some()
    }

    /// Ends a server at once, as `kill -9` does.
    pub fn kill(&self, which: Server) -> Result<(), ClusterError> {
        lock(self.ours()?).process(which).kill()
    }

    /// Starts a server that was killed, with the data and the ports it had, and waits until all is ready again.
    pub async fn start_again(&self, which: Server) -> Result<(), ClusterError> {
        let servers = self.ours()?;
        {
            let mut servers = lock(servers);
            let (state, ports, more) = (servers.state.clone(), servers.ports, servers.more.clone());
            *servers.process(which) = match which {
                Server::Etcd => start_etcd(&self.tools, self.folder.path(), &state, ports)?,
                Server::ApiServer => start_api_server(&self.tools, self.folder.path(), ports, &more)?,
            };
        }
        wait_until_ready(&self.client, servers).await
    }

    fn ours(&self) -> Result<&Mutex<Servers>, ClusterError> {
        self.servers.as_ref().ok_or(ClusterError::NotOurs)
    }

    /// What `kubectl --kubeconfig` wants.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A folder that goes with the control plane.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where its programs are.
    pub(crate) fn tools(&self) -> &Path {
        &self.tools
    }

    /// Where a program of the control plane is, e.g. kubectl.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.tools.join(name)
    }
}

fn use_the_provider() {
    // The only one there is. Whoever installed it first did the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

async fn start_servers(
    tools: &Path,
    folder: &Path,
    kubeconfig: &Path,
    more: &[String],
) -> Result<(Mutex<Servers>, Client), ClusterError> {
    let [clients, peers, https] = free_ports()?;
    let ports = Ports { clients, peers, https };
    let state = tempfile::Builder::new()
        .prefix("etcd-")
        .tempdir_in(folder)
        .map_err(ClusterError::io("etcd's folder"))?;
    // The folder around it goes in the end; a server that failed and is tried again must not find this one.
    let state = state.keep();
    let etcd = start_etcd(tools, folder, &state, ports)?;
    let api_server = start_api_server(tools, folder, ports, more)?;
    let servers = Mutex::new(Servers { api_server, etcd, state, ports, more: more.to_vec() });
    write_kubeconfig(folder, kubeconfig, https)?;
    let client = connect(kubeconfig).await?;
    wait_until_ready(&client, &servers).await?;
    Ok((servers, client))
}

fn start_etcd(tools: &Path, folder: &Path, state: &Path, ports: Ports) -> Result<Process, ClusterError> {
    let arguments = etcd_arguments(state, ports);
    Process::start("etcd", &tools.join("etcd"), &arguments, folder.join("etcd.log"))
}

fn start_api_server(
    tools: &Path,
    folder: &Path,
    ports: Ports,
    more: &[String],
) -> Result<Process, ClusterError> {
    let arguments = [&api_server_arguments(folder, ports.clients, ports.https), more].concat();
    let log = folder.join("kube-apiserver.log");
    Process::start("kube-apiserver", &tools.join("kube-apiserver"), &arguments, log)
}

fn lock(servers: &Mutex<Servers>) -> MutexGuard<'_, Servers> {
    servers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn etcd_arguments(state: &Path, ports: Ports) -> Vec<String> {
    let (clients, peers) =
        (format!("http://127.0.0.1:{}", ports.clients), format!("http://127.0.0.1:{}", ports.peers));
    vec![
        format!("--data-dir={}", state.display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        // Its data lives as long as the tests do.
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn api_server_arguments(folder: &Path, etcd: u16, https: u16) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        format!("--secure-port={https}"),
        format!("--cert-dir={}", file("cert-dir")),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("tokens.pub")),
        format!("--service-account-signing-key-file={}", file("tokens.key")),
        // Reserved for measurements, so no packet can be meant for anybody.
        "--service-cluster-ip-range=198.18.0.0/24".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

fn controller_arguments(folder: &Path, kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--controllers={}", CONTROLLERS.join(",")),
        format!("--service-account-private-key-file={}", folder.join("tokens.key").display()),
        "--leader-elect=false".to_owned(),
        // It has no port: it is known by what it does.
        "--secure-port=0".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

fn write_kubeconfig(folder: &Path, path: &Path, https: u16) -> Result<(), ClusterError> {
    let file = |name: &str| folder.join(name).display().to_string();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
        "clusters": [{"name": "tests", "cluster": {
            "server": format!("https://127.0.0.1:{https}"),
            "certificate-authority": file("ca.crt"),
        }}],
        "users": [{"name": "admin", "user": {
            "client-certificate": file("admin.crt"),
            "client-key": file("admin.key"),
        }}],
    });
    std::fs::write(path, config.to_string()).map_err(ClusterError::io("writing the kubeconfig"))
}

async fn connect(kubeconfig: &Path) -> Result<Client, ClusterError> {
    Ok(Client::try_from(config(kubeconfig).await?)?)
}

async fn config(kubeconfig: &Path) -> Result<Config, ClusterError> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    config.read_timeout = Some(Duration::from_mins(1));
    // A test sees what the API server answers, 429 too.
    config.default_retry = false;
    Ok(config)
}

async fn wait_until_ready(client: &Client, servers: &Mutex<Servers>) -> Result<(), ClusterError> {
    let began = Instant::now();
    loop {
        let request = http::Request::get("/readyz").body(Vec::new());
        let request = request.map_err(|error| ClusterError::Answer(error.to_string()))?;
        let Err(seen) = client.request_text(request).await else { return Ok(()) };
        lock(servers).check()?;
        if began.elapsed() > READY_WITHIN {
            return Err(lock(servers).api_server.error(format!("was not ready in time: {seen}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
