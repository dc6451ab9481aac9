//! From a container's spec to a command line.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use latchkey_cluster_tests::TestError;

use super::Image;

/// Every address of a pod.
const ANY_ADDRESS: &str = "[::]:";
/// The argument with the name of the operators' Service.
const OPERATOR: &str = "--operator=";
/// Nobody listens there.
const NOBODY: &str = "127.0.0.1:9";

/// A program to be started.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
}

/// What a pod has here.
pub(super) struct Place<'a> {
    pub(super) address: IpAddr,
    /// Folders, by the names of volumes.
    pub(super) volumes: &'a BTreeMap<String, PathBuf>,
    pub(super) operators: &'a [SocketAddr],
}

/// What is started for a container.
pub(super) fn command(
    pod: &Pod,
    container: &Container,
    image: &Image,
    place: &Place<'_>,
) -> Result<Command, TestError> {
    if container.command.is_some() || container.lifecycle.is_some() || container.env_from.is_some() {
        return Err(format!("{}: a command of its own, hooks or envFrom", container.name).into());
    }
    let environment = environment(pod, container)?;
    let program = match image {
        Image::Program(program) | Image::Lost(program) => program.clone(),
        Image::Broken => {
            let said = "echo 'this image is broken' >&2; exit 1".to_owned();
            return Ok(Command {
                program: "/bin/sh".into(),
                arguments: vec!["-c".to_owned(), said],
                environment,
            });
        }
    };
    let mut arguments = Vec::new();
    for argument in container.args.iter().flatten() {
        let mut argument = expanded(argument, &environment);
        for mount in container.volume_mounts.iter().flatten() {
            let folder = place.volumes.get(&mount.name).ok_or_else(|| format!("no volume {}", mount.name))?;
            argument = argument.replace(&mount.mount_path, &folder.display().to_string());
        }
        argument = argument.replace(ANY_ADDRESS, &format!("{}:", place.address));
        if let Some(service) = argument.strip_prefix(OPERATOR) {
            // The name that was to be dialled stays the one that the operator's certificate must have.
            let name = service.rsplit_once(':').map_or(service, |(name, _)| name);
            arguments.push(format!("--operator-name={name}"));
            let addresses: Vec<String> = match image {
                Image::Lost(_) => vec![NOBODY.to_owned()],
                _ => place.operators.iter().map(ToString::to_string).collect(),
            };
            argument = format!("{OPERATOR}{}", addresses.join(","));
        }
        arguments.push(argument);
    }
    Ok(Command { program, arguments, environment })
}

fn environment(pod: &Pod, container: &Container) -> Result<BTreeMap<String, String>, TestError> {
    let value = |variable: &EnvVar| {
        let Some(from) = &variable.value_from else {
            return Ok(variable.value.clone().unwrap_or_default());
        };
        match from.field_ref.as_ref().map(|field| field.field_path.as_str()) {
            Some("metadata.name") => Ok(pod.name_any()),
            Some("metadata.namespace") => Ok(pod.namespace().unwrap_or_default()),
            _ => Err(format!("{}: where its value comes from is not known here", variable.name)),
        }
    };
    let variables = container.env.iter().flatten();
    Ok(variables
        .map(|variable| Ok((variable.name.clone(), value(variable)?)))
        .collect::<Result<_, String>>()?)
}

/// `$(NAME)` is the variable, where there is one.
fn expanded(text: &str, environment: &BTreeMap<String, String>) -> String {
    let put = |text: String, (name, value): (&String, &String)| text.replace(&format!("$({name})"), value);
    environment.iter().fold(text.to_owned(), put)
}

/// The number of a port, which may have a name.
pub(super) fn port(container: &Container, port: &IntOrString) -> Result<u16, TestError> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_deref() == Some(name));
            named.ok_or_else(|| format!("no port {name}"))?.container_port
        }
    };
    Ok(number.try_into()?)
}
