//! Small tasks that carry news from one part to another.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use route_table::{HostName, SESSION_LABEL};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::joining::{self, Way};
use crate::keys::Keys;
use crate::names::Names;
use crate::observe::Observer;
use crate::overview::Overview;
use crate::publish::Publisher;
use crate::reconcile::now;
use crate::workload::pods::ProxyPods;
use crate::workload::settings::InstallationSettings;
use crate::workload::settings_source::SettingsSource;

/// How often a follower looks at the Secrets: well within the time for which a next authority is announced.
const LOOK_AT_KEYS: Duration = Duration::from_mins(5);
/// After the Secrets could not be read or written.
const KEYS_PAUSE: Duration = Duration::from_secs(30);

/// The name of the session API, as far as the settings are known.
pub(crate) fn session_host(source: &SettingsSource) -> Option<HostName> {
    source.settings()?.spec.domain.with_label(SESSION_LABEL).ok()
}

/// Waits for the first settings; until then it tells why there are none.
pub(crate) async fn first_settings(
    source: &SettingsSource,
    overview: &watch::Sender<Arc<Overview>>,
) -> Arc<InstallationSettings> {
    let mut changes = source.subscribe();
    source.synced().await;
    let mut told = None;
    loop {
        if let Some(settings) = source.settings() {
            set_problem(overview, None);
            return settings;
        }
        let problem = source.problem().map(|problem| problem.error.to_string());
        if problem != told {
            if let Some(problem) = &problem {
                tracing::error!(%problem, "there are no settings to begin with");
            }
            set_problem(overview, problem.clone());
            told = problem;
        }
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn set_problem(overview: &watch::Sender<Arc<Overview>>, problem: Option<String>) {
    overview.send_modify(|overview| *overview = Arc::new(Overview { problem, ..(**overview).clone() }));
}

/// What the planner has to know of settings and secrets, and the task that keeps it up.
pub(crate) fn planner_settings(
    names: &Names,
    first: &InstallationSettings,
    source: Arc<SettingsSource>,
    keys: Arc<Keys>,
) -> (watch::Receiver<Arc<planner::Settings>>, impl Future<Output = ()> + use<>) {
    let name = names.installation.clone();
    let complete = move |of: &InstallationSettings, seed| {
        Arc::new(planner::Settings { name: name.clone(), spec: of.spec.clone(), seed })
    };
    let (tell, told) = watch::channel(complete(first, keys.seed()));
    let follow = async move {
        let (mut settings, mut secrets) = (source.subscribe(), keys.subscribe());
        loop {
            if let Some(now) = source.settings() {
                let next = complete(&now, keys.seed());
                tell.send_if_modified(|known| {
                    let news = **known != *next;
                    if news {
                        *known = next;
                    }
                    news
                });
            }
            let gone = tokio::select! {
                told = settings.changed() => told.is_err(),
                told = secrets.changed() => told.is_err(),
            };
            if gone {
                return;
            }
        }
    };
    (told, follow)
}

/// How bundles lead to the installation, and the task that keeps that up.
pub(crate) fn joining_settings(
    first: &InstallationSettings,
    source: Arc<SettingsSource>,
    keys: Arc<Keys>,
) -> (joining::Settings, impl Future<Output = ()> + use<>) {
    let (tell_way, way) = watch::channel(Arc::new(way(first)));
    let (tell_ca, ca) = watch::channel(Arc::from(keys.authority()));
    let settings = joining::Settings { way, ca, token_life: joining::Settings::TOKEN_LIFE };
    let follow = async move {
        let (mut settings, mut secrets) = (source.subscribe(), keys.subscribe());
        loop {
            let gone = tokio::select! {
                told = settings.changed() => told.is_err(),
                told = secrets.changed() => told.is_err(),
            };
            if gone {
                return;
            }
            if let Some(settings) = source.settings() {
                tell_way.send_replace(Arc::new(self::way(&settings)));
            }
            tell_ca.send_replace(Arc::from(keys.authority()));
        }
    };
    (settings, follow)
}

/// Where agents find the session API.
fn way(settings: &InstallationSettings) -> Way {
    let spec = &settings.spec;
    let server_name = format!("{SESSION_LABEL}.{}", spec.domain);
    let server = spec.tunnel_address.clone().unwrap_or_else(|| format!("{server_name}:{}", spec.public_port));
    Way { server, server_name }
}

/// Tells proxies of token keys, now and whenever there are others.
pub(crate) async fn tell_token_keys(keys: Arc<Keys>, publisher: Arc<Publisher>) {
    let mut changes = keys.subscribe();
    loop {
        publisher.set_token_keys(keys.token_keys());
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Tells which proxies there should be. In a cluster that is what pods say; where there is none of them (a proxy
/// outside of the cluster), whoever is attached counts.
pub(crate) async fn tell_pods(pods: Arc<ProxyPods>, publisher: Arc<Publisher>) {
    let mut changes = pods.subscribe();
    pods.synced().await;
    loop {
        let ready = pods.ready();
        if !ready.is_empty() {
            publisher.expect_pods(ready);
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Tells once every watch has told everything.
pub(crate) async fn tell_sync(observer: Arc<Observer>, overview: Arc<watch::Sender<Arc<Overview>>>) {
    observer.synced().await;
    overview.send_modify(|overview| *overview = Arc::new(Overview { synced: true, ..(**overview).clone() }));
}

/// A follower keeps up with what the leader makes of the secrets.
pub(crate) async fn follow_keys(keys: &Keys) -> Infallible {
    loop {
        sleep(LOOK_AT_KEYS).await;
        if let Err(error) = keys.look_again(now()).await {
            tracing::warn!(target: "latchkey::keys", %error, "the installation's secrets cannot be looked at");
        }
    }
}

/// The leader changes what is due, and sets right what somebody else changed.
pub(crate) async fn rotate_keys(keys: &Keys, source: &SettingsSource) -> Infallible {
    let mut settings = source.subscribe();
    loop {
        let pause = match keys.rotate(session_host(source).as_ref(), now()).await {
            Ok(next) => {
                let left = u64::try_from(next.0.saturating_sub(now().0)).unwrap_or(0);
                Duration::from_secs(left).clamp(Duration::from_secs(1), LOOK_AT_KEYS)
            }
            Err(error) => {
                tracing::error!(target: "latchkey::keys", %error, "the installation's secrets are not kept up");
                KEYS_PAUSE
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            // Another domain: the session API gets another certificate.
            Ok(()) = settings.changed() => {}
        }
    }
}
