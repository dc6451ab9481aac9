//! One pod, from its volumes to its end.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use latchkey_cluster_tests::{Process, TestError};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::container::{Command, Place, command};
use super::probe::{Prober, Verdict};
use super::{Ended, Machine, Running, Shared, volumes};

/// How often it looks at its process and the clock.
const EVERY: Duration = Duration::from_millis(50);
/// How long a container that ended waits before it is started again: nothing the first time, then twice as long each time.
/// A kubelet's own pause begins with ten seconds and ends with five minutes.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(20));
/// Tries for an address whose ports are free.
const TRIES: usize = 100;

/// A process and who asks it.
struct Live {
    process: Process,
    startup: Option<Prober>,
    liveness: Option<Prober>,
    readiness: Option<Prober>,
    is_started: bool,
    is_ready: bool,
    /// When it is killed, once it was told to end.
    killed_at: Option<Instant>,
}

struct Worker {
    pods: Api<Pod>,
    machine: Arc<Machine>,
    shared: Arc<Mutex<Shared>>,
    name: String,
    uid: String,
    image: String,
    container: Container,
    address: IpAddr,
    folder: PathBuf,
    live: Option<Live>,
    starts: u32,
    again_at: Option<Instant>,
    is_ending: bool,
    said: Value,
}

/// Looks after it until it is gone.
pub(super) async fn run(
    pods: Api<Pod>,
    client: Client,
    machine: Arc<Machine>,
    shared: Arc<Mutex<Shared>>,
    mut told: watch::Receiver<Pod>,
) -> Result<(), TestError> {
    let pod = told.borrow_and_update().clone();
    let spec = pod.spec.clone().unwrap_or_default();
    let [container] = spec.containers.as_slice() else { return Err("not one container".into()) };
    if spec.init_containers.is_some() {
        return Err("init containers".into());
    }
    let uid = pod.uid().unwrap_or_default();
    let mut worker = Worker {
        pods,
        address: free_address(container)?,
        folder: machine.folder.join(format!("{}.{}", pod.name_any(), uid.get(..8).unwrap_or_default())),
        machine,
        shared,
        name: pod.name_any(),
        uid,
        image: container.image.clone().unwrap_or_default(),
        container: container.clone(),
        live: None,
        starts: 0,
        again_at: None,
        is_ending: false,
        said: Value::Null,
    };
    std::fs::create_dir_all(&worker.folder)?;
    let mut mounted = None;
    // Without its sender nobody knows the pod any more.
    while told.has_changed().is_ok() {
        let pod = told.borrow_and_update().clone();
        if mounted.is_none() {
            mounted = volumes::make(&client, &pod, &worker.folder).await?;
        }
        if pod.metadata.deletion_timestamp.is_some() {
            worker.end(&pod)?;
            if worker.live.is_none() {
                return worker.leave().await;
            }
        } else if let (None, Some(volumes)) = (&worker.live, &mounted) {
            let operators = &worker.machine.operators;
            let place = Place { address: worker.address, volumes, operators };
            let command = match worker.machine.images.get(&worker.image) {
                Some(image) => Some(command(&pod, &worker.container, image, &place)?),
                None => None,
            };
            worker.begin(command)?;
        }
        worker.watch().await?;
        worker.tell().await?;
        tokio::time::sleep(EVERY).await;
    }
    Ok(())
}

/// A loopback address on which nobody has the container's ports.
fn free_address(container: &Container) -> Result<IpAddr, TestError> {
    for _ in 0..TRIES {
        let [second, third, fourth] = rand::random::<[u8; 3]>();
        let address = IpAddr::from(Ipv4Addr::new(127, second.max(1), third, fourth.clamp(1, 254)));
        let is_free =
            |port: i32| u16::try_from(port).is_ok_and(|port| TcpListener::bind((address, port)).is_ok());
        if container.ports.iter().flatten().all(|port| is_free(port.container_port)) {
            return Ok(address);
        }
    }
    Err("somebody has the ports of the container on every address of this machine".into())
}

impl Worker {
    /// Starts the process, when it is time. Without a command there is no such image.
    fn begin(&mut self, command: Option<Command>) -> Result<(), TestError> {
        let Some(command) = command else { return Ok(()) };
        if self.again_at.is_some_and(|time| Instant::now() < time) {
            return Ok(());
        }
        self.starts += 1;
        let environment: Vec<(&str, PathBuf)> =
            command.environment.iter().map(|(name, value)| (name.as_str(), value.into())).collect();
        let log = self.folder.join(format!("{}.log", self.starts));
        let process = Process::start_with("a pod", &command.program, &command.arguments, &environment, log)?;
        let prober = |probe: &Option<_>| {
            probe.as_ref().map(|probe| Prober::new(&self.container, probe, self.address)).transpose()
        };
        let startup = prober(&self.container.startup_probe)?;
        self.live = Some(Live {
            is_started: startup.is_none(),
            startup,
            liveness: prober(&self.container.liveness_probe)?,
            readiness: prober(&self.container.readiness_probe)?,
            process,
            is_ready: false,
            killed_at: None,
        });
        Ok(())
    }

    /// Looks whether it still runs, and asks it.
    async fn watch(&mut self) -> Result<(), TestError> {
        let Some(live) = &mut self.live else { return Ok(()) };
        if live.killed_at.is_some_and(|time| Instant::now() >= time) {
            live.process.kill()?;
        }
        if live.process.ended()?.is_some() {
            self.ended();
            return Ok(());
        }
        if !live.is_started {
            match probed(live.startup.as_mut()).await {
                Some(Verdict::Good) => live.is_started = true,
                Some(Verdict::Bad) => return self.restart(),
                None => {}
            }
            return Ok(());
        }
        if !self.is_ending && probed(live.liveness.as_mut()).await == Some(Verdict::Bad) {
            return self.restart();
        }
        match &mut live.readiness {
            None => live.is_ready = true,
            Some(prober) => {
                if let Some(verdict) = prober.look().await {
                    live.is_ready = verdict == Verdict::Good;
                }
            }
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), TestError> {
        if let Some(live) = &mut self.live {
            live.process.kill()?;
            self.ended();
        }
        Ok(())
    }

    fn ended(&mut self) {
        self.live = None;
        let (first, longest) = BACK_OFF;
        let pause = first.saturating_mul(2_u32.saturating_pow(self.starts.saturating_sub(2))).min(longest);
        self.again_at = (self.starts > 1).then(|| Instant::now() + pause);
    }

    /// Tells it to end, once.
    fn end(&mut self, pod: &Pod) -> Result<(), TestError> {
        if self.is_ending {
            return Ok(());
        }
        self.is_ending = true;
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
        if let Some(live) = &mut self.live {
            live.process.signal("TERM")?;
            live.killed_at = Some(Instant::now() + Duration::from_secs(u64::try_from(grace)?));
        }
        let mut shared = self.shared.lock().unwrap();
        let others = shared.pods.iter().filter(|(name, other)| **name != self.name && other.is_ready);
        let others = others.map(|(name, _)| name.clone()).collect();
        shared.ended.push(Ended { pod: self.name.clone(), image: self.image.clone(), others });
        Ok(())
    }

    /// Its last process has ended: the API server may forget it.
    async fn leave(&self) -> Result<(), TestError> {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        self.shared.lock().unwrap().pods.retain(|_, running| running.uid != self.uid);
        gone_is_well(self.pods.delete(&self.name, &params).await.map(drop))
    }

    /// Says what it is, unless it was said before.
    async fn tell(&mut self) -> Result<(), TestError> {
        let is_ready = self.live.as_ref().is_some_and(|live| live.is_ready);
        let running = Running {
            uid: self.uid.clone(),
            image: self.image.clone(),
            address: self.address,
            is_ready,
            is_ending: self.is_ending,
            process: self.live.as_ref().map(|live| live.process.id()),
            restarts: self.starts.saturating_sub(1),
        };
        self.shared.lock().unwrap().pods.insert(self.name.clone(), running);
        let status = self.status(is_ready);
        if status == self.said {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": self.uid}, "status": status});
        let patched =
            self.pods.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        gone_is_well(patched.map(drop))?;
        self.said = status;
        Ok(())
    }

    fn status(&self, is_ready: bool) -> Value {
        let word = if is_ready { "True" } else { "False" };
        let conditions: Vec<Value> = ["Ready", "ContainersReady"]
            .map(|kind| json!({"type": kind, "status": word}))
            .into_iter()
            .chain(["Initialized", "PodScheduled"].map(|kind| json!({"type": kind, "status": "True"})))
            .collect();
        let state = match (&self.live, self.machine.images.get(&self.image)) {
            (Some(_), _) => json!({"running": {}}),
            (None, None) => {
                let message = format!("Back-off pulling image \"{}\"", self.image);
                json!({"waiting": {"reason": "ImagePullBackOff", "message": message}})
            }
            (None, Some(_)) if self.again_at.is_some() => {
                let message = format!("back-off restarting failed container {}", self.container.name);
                json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}})
            }
            (None, Some(_)) => json!({"waiting": {"reason": "ContainerCreating"}}),
        };
        let phase = if self.starts > 0 { "Running" } else { "Pending" };
        json!({
            "phase": phase,
            "hostIP": "127.0.0.1",
            "podIP": self.address.to_string(),
            "podIPs": [{"ip": self.address.to_string()}],
            "conditions": conditions,
            "containerStatuses": [{
                "name": self.container.name,
                "image": self.image,
                "imageID": "",
                "ready": is_ready,
                "started": self.live.as_ref().is_some_and(|live| live.is_started),
                "restartCount": self.starts.saturating_sub(1),
                "state": state,
            }],
        })
    }
}

async fn probed(prober: Option<&mut Prober>) -> Option<Verdict> {
    prober?.look().await
}

/// Somebody else took it meanwhile, or another one has its name.
fn gone_is_well(answer: Result<(), kube::Error>) -> Result<(), TestError> {
    match answer {
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
        other => Ok(other?),
    }
}
