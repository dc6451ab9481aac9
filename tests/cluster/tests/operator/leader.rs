//! Contenders for a real Lease: one leads, the next takes over when it should, terms rise.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use latchkey_cluster_tests::{Suite, TestError, TestNamespace};
use latchkey_operator::leader::{Leadership, Leading, Loss, Timing};
use latchkey_operator::names::Names;
use libtest_mimic::Trial;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::line::Line;

/// Short, so that tests are; long enough for a machine that is busy.
const TIMING: Timing = Timing {
    duration: Duration::from_secs(3),
    renew_deadline: Duration::from_secs(2),
    retry: Duration::from_millis(300),
};
/// What a busy machine may add to anything.
const SLACK: Duration = Duration::from_secs(8);

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.test("leader::one_of_two_leads_and_the_next_follows_a_release_at_once", release),
        suite.test("leader::the_next_takes_over_when_the_first_is_silent_for_the_duration", expiry),
        suite.test("leader::a_leader_without_an_api_server_gives_up_before_the_next_leads", cut_off),
        suite.test("leader::a_deleted_lease_ends_the_leader_and_terms_rise_still", deleted),
        suite.test("leader::another_name_in_the_lease_ends_the_leader", replaced),
        suite.test("leader::a_label_on_the_lease_does_not_end_the_leader", labelled),
    ]
}

fn names(namespace: &TestNamespace<'_>) -> Names {
    Names { namespace: namespace.name().to_owned(), installation: "default".to_owned() }
}

fn contend(client: Client, names: &Names, identity: &'static str) -> JoinHandle<Leading> {
    let names = names.clone();
    tokio::spawn(async move { Leadership::acquire(client, &names, identity, TIMING).await })
}

/// Waits until it leads, and says how long that took.
async fn leads(contender: &mut JoinHandle<Leading>) -> Result<(Leading, Duration), TestError> {
    let began = Instant::now();
    let leading = timeout(TIMING.duration + SLACK, contender).await??;
    Ok((leading, began.elapsed()))
}

/// Waits until the leader has renewed so many times.
async fn renewed(leading: &Leading, times: u64) -> Result<(), TestError> {
    let until = Instant::now() + TIMING.duration * u32::try_from(times)? + SLACK;
    while leading.stats().renewals < times {
        assert!(Instant::now() < until, "it renewed {:?}", leading.stats());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn leases(client: Client, names: &Names) -> Api<Lease> {
    Api::namespaced(client, &names.namespace)
}

async fn release(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("lease", async |namespace| {
            let (names, client) = (names(namespace), control_plane.client());
            // Whoever is first is first; the other waits through more than two whole durations.
            let (one, other) =
                (contend(client.clone(), &names, "one"), contend(client.clone(), &names, "other"));
            let (one, mut other) = first(one, other).await?;
            let leases = leases(client.clone(), &names);
            let before = leases.get(&names.lease()).await?.spec.unwrap();
            renewed(&one, 7).await?;
            assert!(!other.is_finished());
            let after = leases.get(&names.lease()).await?.spec.unwrap();
            assert_eq!(after.holder_identity, before.holder_identity);
            assert_eq!(after.acquire_time, before.acquire_time);
            assert!(after.renew_time > before.renew_time);
            assert_eq!(u64::try_from(after.lease_transitions.unwrap())?, one.term());
            assert_eq!(after.lease_duration_seconds, Some(3));

            let term = one.term();
            one.release().await;
            let (other, took) = leads(&mut other).await?;
            // Not after the duration: the record was given back.
            assert!(took < TIMING.duration, "{took:?}");
            assert!(other.term() > term);
            // The same process name again is another leader.
            let term = other.term();
            other.release().await;
            let (again, _) = leads(&mut contend(client, &names, "other")).await?;
            assert!(again.term() > term);
            Ok(())
        })
        .await
}

/// The one that leads, and the other, still waiting.
async fn first(
    mut one: JoinHandle<Leading>,
    mut other: JoinHandle<Leading>,
) -> Result<(Leading, JoinHandle<Leading>), TestError> {
    let first = async {
        tokio::select! {
            leading = &mut one => leading.map(|leading| (leading, other)),
            leading = &mut other => leading.map(|leading| (leading, one)),
        }
    };
    Ok(timeout(TIMING.duration + SLACK, first).await??)
}

async fn expiry(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("lease", async |namespace| {
            let (names, client) = (names(namespace), control_plane.client());
            let (one, _) = leads(&mut contend(client.clone(), &names, "one")).await?;
            renewed(&one, 1).await?;
            let (term, last) = (one.term(), one.stats().renewed);
            // As when the process is killed: nothing is given back.
            drop(one);
            let (other, _) = leads(&mut contend(client, &names, "other")).await?;
            let silent = last.elapsed();
            assert!(silent >= TIMING.duration, "taken over after {silent:?}");
            assert!(other.term() > term);
            Ok(())
        })
        .await
}

async fn cut_off(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("lease", async |namespace| {
            let names = names(namespace);
            let line = Line::open(control_plane).await?;
            let (one, _) = leads(&mut contend(line.client.clone(), &names, "one")).await?;
            let mut other = contend(control_plane.client(), &names, "other");
            renewed(&one, 3).await?;
            assert!(one.holds());
            assert!(!other.is_finished());
            let term = one.term();

            line.cut().await;
            let watching = tokio::spawn(async move {
                let loss = one.lost().await;
                assert!(!one.holds());
                (loss, Instant::now(), one.stats().renewed)
            });
            let (other, _) = leads(&mut other).await?;
            let taken = Instant::now();
            let (loss, at, renewed) = timeout(SLACK, watching).await??;
            assert!(matches!(loss, Loss::NotRenewed(_)), "{loss:?}");
            assert!(at < taken, "it led on for {:?} beside the next", at - taken);
            assert!(at - renewed >= TIMING.renew_deadline, "{:?}", at - renewed);
            assert!(at - renewed < TIMING.duration, "{:?}", at - renewed);
            assert!(other.term() > term);
            Ok(())
        })
        .await
}

async fn deleted(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("lease", async |namespace| {
            let (names, client) = (names(namespace), control_plane.client());
            let (one, _) = leads(&mut contend(client.clone(), &names, "one")).await?;
            // Where the last term is not known any more, terms are told apart by seconds.
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            leases(client.clone(), &names).delete(&names.lease(), &DeleteParams::default()).await?;
            assert_eq!(timeout(SLACK, one.lost()).await?, Loss::Deleted);
            let (other, _) = leads(&mut contend(client, &names, "other")).await?;
            assert!(other.term() > one.term(), "{} after {}", other.term(), one.term());
            Ok(())
        })
        .await
}

async fn replaced(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("lease", async |namespace| {
            let (names, client) = (names(namespace), control_plane.client());
            let (one, _) = leads(&mut contend(client.clone(), &names, "one")).await?;
            let patch = json!({"spec": {"holderIdentity": "somebody-else"}});
            let leases = leases(client, &names);
            leases.patch(&names.lease(), &PatchParams::default(), &Patch::Merge(patch)).await?;
            assert_eq!(timeout(SLACK, one.lost()).await?, Loss::Taken("somebody-else".to_owned()));
            let kept = leases.get(&names.lease()).await?.spec.unwrap();
            assert_eq!(kept.holder_identity.as_deref(), Some("somebody-else"));
            Ok(())
        })
        .await
}

async fn labelled(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("lease", async |namespace| {
            let (names, client) = (names(namespace), control_plane.client());
            let (one, _) = leads(&mut contend(client.clone(), &names, "one")).await?;
            let patch = json!({"metadata": {"labels": {"team": "homes"}}});
            let leases = leases(client, &names);
            leases.patch(&names.lease(), &PatchParams::default(), &Patch::Merge(patch)).await?;
            renewed(&one, 2).await?;
            assert!(one.holds());
            let labels = leases.get(&names.lease()).await?.metadata.labels.unwrap();
            assert_eq!(labels.get("team").map(String::as_str), Some("homes"));
            Ok(())
        })
        .await
}
