//! The installation's secrets on a real API server, by an operator that may do no more with Secrets than it has to.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use latchkey_cluster_tests::{Suite, TestError, TestNamespace};
use latchkey_operator::keys::{Keys, Lives};
use latchkey_operator::names::Names;
use libtest_mimic::Trial;
use planner::Timestamp;
use route_table::HostName;
use serde_json::json;

use crate::support::Account;

/// 2026-11-21T10:00:00Z.
const NOW: Timestamp = Timestamp(1_795_255_200);
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("keys::made_once_and_read_by_the_next", made_once),
        suite.test("keys::operators_that_race_end_with_the_same", race),
        suite.test("keys::a_year_of_rotation", a_year),
        suite.test("keys::what_vanishes_is_put_back_and_what_is_broken_is_left_alone", vanished),
    ]
}

/// An installation in a namespace, and what its operator may do there.
struct Place {
    names: Names,
    operator: Client,
    admin: Api<Secret>,
    host: HostName,
}

impl Place {
    async fn new(namespace: &TestNamespace<'_>) -> Result<Self, TestError> {
        let names = Names { namespace: namespace.name().to_owned(), installation: "default".to_owned() };
        let admin = namespace.control_plane().client();
        let operator = Account::make(namespace, &names).await?.client().await?;
        let admin = Api::namespaced(admin, &names.namespace);
        let place = Self { names, operator, admin, host: "connect.ui.example.com".parse()? };
        // The rights are what is said above, and no more.
        let listed = place.secrets().list(&ListParams::default()).await;
        assert!(matches!(listed, Err(kube::Error::Api(status)) if status.code == 403), "it may list Secrets");
        Ok(place)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.operator.clone(), &self.names.namespace)
    }

    async fn ensure(&self, now: Timestamp) -> Result<std::sync::Arc<Keys>, TestError> {
        let (client, names) = (self.operator.clone(), self.names.clone());
        Ok(Keys::ensure(client, names, Lives::default(), Some(&self.host), now).await?)
    }

    async fn read(&self, name: &str, key: &str) -> Option<String> {
        let data = self.admin.get(name).await.ok()?.data?;
        Some(String::from_utf8_lossy(&data.get(key)?.0).into_owned())
    }

    async fn file(&self, key: &str) -> Option<String> {
        self.read(&self.names.proxy_certificates(), key).await
    }

    async fn version(&self, name: &str) -> Result<Option<String>, TestError> {
        Ok(self.admin.get(name).await?.metadata.resource_version)
    }
}

async fn made_once(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("keys", async |namespace| {
            let place = Place::new(namespace).await?;
            let first = place.ensure(NOW).await?;
            let files = ["ca.crt", "link.crt", "link.key", "tls.crt", "tls.key", "trust.crt"];
            let proxies = place.admin.get(&place.names.proxy_certificates()).await?;
            let found: Vec<String> = proxies.data.unwrap_or_default().into_keys().collect();
            assert_eq!(found, files, "no key of an authority among them");
            let labels = proxies.metadata.labels.unwrap_or_default();
            assert_eq!(labels["latchkey.dev/installation"], "default");

            let second = place.ensure(NOW.plus_seconds(HOUR)).await?;
            assert!(first.seed() == second.seed());
            // The older one still seals in the first minutes, the newest one after them.
            let (mut before, after) = (first.token_keys(), second.token_keys());
            before.reverse();
            assert!(before == after && before.len() == 2 && before[0] != before[1]);
            assert!(first.next_run() > NOW && second.next_run() > NOW.plus_seconds(HOUR));

            // Quiet: nothing is due, nothing is written.
            let version = place.version(&place.names.proxy_certificates()).await?;
            second.rotate(Some(&place.host), NOW.plus_seconds(2 * HOUR)).await?;
            assert_eq!(place.version(&place.names.proxy_certificates()).await?, version);
            Ok(())
        })
        .await
}

async fn race(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("keys", async |namespace| {
            let place = Place::new(namespace).await?;
            let all = [(); 6].map(|()| place.ensure(NOW));
            let all = futures_util::future::try_join_all(all).await?;
            let same = |keys: &Keys| keys.seed() == all[0].seed() && keys.token_keys() == all[0].token_keys();
            assert!(all.iter().all(|keys| same(keys)));
            // All of them rotate at once, as if each led: one change comes of it.
            let later = NOW.plus_seconds(DAY);
            let turns = all.iter().map(|keys| keys.rotate(Some(&place.host), later));
            futures_util::future::try_join_all(turns).await?;
            assert!(all.iter().all(|keys| same(keys)), "none has what another wrote over");
            let mut rotated = all[0].token_keys();
            let link = place.file("link.crt").await;
            all[1].rotate(Some(&place.host), later).await?;
            assert_eq!(place.file("link.crt").await, link);
            // The key that was the newest is the older one now, and seals for a few minutes more.
            let fresh = place.ensure(later.plus_seconds(HOUR)).await?.token_keys();
            rotated.reverse();
            assert!(fresh == rotated);
            Ok(())
        })
        .await
}

async fn a_year(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("keys", async |namespace| {
            let place = Place::new(namespace).await?;
            let keys = place.ensure(NOW).await?;
            let follower = place.ensure(NOW).await?;
            let tls = follower.server_tls();
            let mut now = NOW;
            let (mut authorities, mut links, mut tokens) =
                (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
            let mut announced: Option<(String, Timestamp)> = None;
            let mut switches = 0;
            let mut config = tls.config();
            // A week and some days around the change of the authority, step by step, as the time of the next run says.
            now = keys.rotate(Some(&place.host), now.plus_seconds(330 * DAY)).await?;
            while now < NOW.plus_seconds(375 * DAY) {
                let next = keys.rotate(Some(&place.host), now).await?;
                assert!(next > now && next <= now.plus_seconds(DAY), "{next} after {now}");
                let trust = place.file("trust.crt").await.unwrap();
                let authority = place.file("ca.crt").await.unwrap();
                let link = place.file("link.crt").await.unwrap();
                tokens.insert(place.read(&place.names.token_keys(), "made").await.unwrap());
                assert!(trust.contains(&authority), "who signs is trusted");
                if authorities.insert(authority.clone()) && authorities.len() > 1 {
                    let (next, since) = announced.take().unwrap();
                    assert!(next == authority && now >= since.plus_seconds(7 * DAY), "announced {since}");
                    assert!(links.insert(link.clone()), "the new authority has signed");
                    follower.look_again(now).await?;
                    let before = std::mem::replace(&mut config, tls.config());
                    assert!(!std::sync::Arc::ptr_eq(&before, &config), "new handshakes are other ones");
                    switches += 1;
                }
                links.insert(link);
                if let Some(coming) = place.file("next-ca.crt").await {
                    assert!(trust.contains(&coming), "the next one is trusted before it signs");
                    announced.get_or_insert((coming, now));
                }
                now = next;
            }
            assert_eq!((switches, authorities.len()), (1, 2));
            assert!(links.len() > 45 && tokens.len() > 40, "{} {}", links.len(), tokens.len());
            let trust = place.file("trust.crt").await.unwrap();
            assert_eq!(trust.matches("BEGIN CERTIFICATE").count(), 1, "the one before is forgotten");
            Ok(())
        })
        .await
}

async fn vanished(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("keys", async |namespace| {
            let place = Place::new(namespace).await?;
            let keys = place.ensure(NOW).await?;
            let (seed, authority) = (keys.seed(), place.read(&place.names.authority(), "ca.crt").await);
            for name in [place.names.seed(), place.names.authority(), place.names.proxy_certificates()] {
                place.admin.delete(&name, &DeleteParams::default()).await?;
            }
            keys.rotate(Some(&place.host), NOW.plus_seconds(60)).await?;
            assert_eq!(place.read(&place.names.authority(), "ca.crt").await, authority);
            assert!(place.ensure(NOW).await?.seed() == seed);

            // A seed that is no seed ends nothing that runs, and is not written over.
            let broken = json!({"data": null, "stringData": {"seed": "a poem"}});
            let params = PatchParams::default();
            place.admin.patch(&place.names.seed(), &params, &Patch::Merge(broken)).await?;
            let error = keys.rotate(Some(&place.host), NOW.plus_seconds(60)).await.unwrap_err().to_string();
            assert!(error.contains("seed is not 32 bytes") && !error.contains("poem"), "{error}");
            assert!(keys.seed() == seed && place.ensure(NOW).await.is_err());
            assert_eq!(place.read(&place.names.seed(), "seed").await.as_deref(), Some("a poem"));
            Ok(())
        })
        .await
}
