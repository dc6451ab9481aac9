//! etcd and kube-apiserver, from nothing to ready.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::folder::Folder;
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
    servers: Option<Servers>,
    folder: Folder,
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ControlPlane").field("kubeconfig", &self.kubeconfig).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Servers {
    api_server: Process,
    etcd: Process,
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
) -> Result<(Servers, Client), ClusterError> {
    let [clients, peers, https] = free_ports()?;
    let state = tempfile::Builder::new()
        .prefix("etcd-")
        .tempdir_in(folder)
        .map_err(ClusterError::io("etcd's folder"))?;
    // The folder around it goes in the end; a server that failed and is tried again must not find this one.
    let etcd = Process::start(
        "etcd",
        &tools.join("etcd"),
        &etcd_arguments(&state.keep(), clients, peers),
        folder.join("etcd.log"),
    )?;
    let api_server = Process::start(
        "kube-apiserver",
        &tools.join("kube-apiserver"),
        &[&api_server_arguments(folder, clients, https), more].concat(),
        folder.join("kube-apiserver.log"),
    )?;
    let mut servers = Servers { api_server, etcd };
    write_kubeconfig(folder, kubeconfig, https)?;
    let client = connect(kubeconfig).await?;
    wait_until_ready(&client, &mut servers).await?;
    Ok((servers, client))
}

fn etcd_arguments(state: &Path, clients: u16, peers: u16) -> Vec<String> {
    let (clients, peers) = (format!("http://127.0.0.1:{clients}"), format!("http://127.0.0.1:{peers}"));
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

/// Ports that were free a moment ago.
fn free_ports() -> Result<[u16; 3], ClusterError> {
    // All held at once, so that they differ.
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(ClusterError::io("a free port"));
    let held = [listen()?, listen()?, listen()?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr().map_err(ClusterError::io("a free port"))?.port();
    }
    Ok(ports)
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

async fn wait_until_ready(client: &Client, servers: &mut Servers) -> Result<(), ClusterError> {
    let began = Instant::now();
    loop {
        let request = http::Request::get("/readyz").body(Vec::new());
        let request = request.map_err(|error| ClusterError::Answer(error.to_string()))?;
        let Err(seen) = client.request_text(request).await else { return Ok(()) };
        servers.etcd.check()?;
        servers.api_server.check()?;
        if began.elapsed() > READY_WITHIN {
            return Err(servers.api_server.error(format!("was not ready in time: {seen}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
