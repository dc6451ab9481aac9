//! A way to the API server that can be cut, and mended.

use std::net::SocketAddr;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use latchkey_cluster_tests::{ControlPlane, TestError};

use crate::cable::Cable;

/// A way to the API server that can be cut, and mended.
pub(crate) struct Line {
    /// Whatever it asks goes this way, and is not tried again by itself: that would hide what is tested.
    pub(crate) client: Client,
    pub(crate) here: SocketAddr,
    cable: Cable,
}

impl Line {
    pub(crate) async fn open(control_plane: &ControlPlane) -> Result<Self, TestError> {
        let kubeconfig = Kubeconfig::read_from(control_plane.kubeconfig())?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        let host = config.cluster_url.host().unwrap_or_default().to_owned();
        let cable = Cable::to(&format!("{host}:{}", config.cluster_url.port_u16().unwrap_or(443))).await?;
        config.tls_server_name.get_or_insert(host);
        config.cluster_url = format!("https://{}", cable.here).parse()?;
        Ok(Self { client: Client::try_from(config)?, here: cable.here, cable })
    }

    /// Ends every connection and takes no more.
    pub(crate) async fn cut(&self) {
        self.cable.cut().await;
    }

    /// Takes connections again.
    pub(crate) async fn mend(&self) -> Result<(), TestError> {
        self.cable.mend().await
    }
}
