//! The operator that leads goes, or comes back.

use std::time::{Duration, Instant};

use latchkey_cluster_tests::{Process, Suite, TestError};
use serde_json::json;

use super::{Guests, an_edit_arrives, begin, host, instance, seen, tell};
use crate::support::eventually;

pub(super) async fn killed(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("killed", async |namespace| {
            let mut here = begin(namespace, 2).await?;
            let guests = Guests::at(&here, 0, &host("lake")).await?;
            let began = Instant::now();
            here.operators.get_mut(&0).ok_or("no operator")?.process.kill()?;
            an_edit_arrives(&here, 100).await?;
            tell("the_leader_is_killed", began.elapsed(), &seen(&guests));
            guests.noticed_nothing()
        })
        .await
}

pub(super) async fn deposed(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("deposed", async |namespace| {
            let mut here = begin(namespace, 2).await?;
            let guests = Guests::at(&here, 0, &host("lake")).await?;
            let began = Instant::now();
            signal(&here.operators[&0].process, "-STOP")?;
            an_edit_arrives(&here, 100).await?;
            let (recovered, saw) = (began.elapsed(), seen(&guests));
            guests.noticed_nothing()?;
            // The other leads, and switches the instance off.
            let mut off = instance("lake", 100);
            off["spec"]["enabled"] = json!(false);
            here.apply(&off).await?;
            here.condition("lake", "Programmed", "True").await?;
            drop(guests);
            signal(&here.operators[&0].process, "-CONT")?;
            // The old one knows only of an instance that is on. It must not bring that back, and ends.
            let old = here.operators.get_mut(&0).ok_or("no operator")?;
            eventually("the deposed leader ends", async || match old.process.ended()? {
                Some(_) => Ok(()),
                None => Err("it goes on".into()),
            })
            .await?;
            for _ in 0..20 {
                assert!(here.page(0, &host("lake")).await.is_err(), "it was let back in");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tell("a_deposed_leader_comes_back", recovered, &saw);
            Ok(())
        })
        .await
}

fn signal(process: &Process, name: &str) -> Result<(), TestError> {
    let status = std::process::Command::new("kill").args([name, &process.id().to_string()]).status()?;
    if status.success() { Ok(()) } else { Err(format!("kill {name}: {status}").into()) }
}
