//! The API server cannot be reached, or goes, or what it keeps its objects in.

use std::time::{Duration, Instant};

use latchkey_cluster_tests::{ControlPlane, Server, Suite, TestError};

use super::{Guests, an_edit_arrives, begin, host, recovers, seen, serve, tell};
use crate::line::Line;
use crate::support::Installation;

/// How long the API server cannot be reached.
const AWAY: Duration = Duration::from_mins(1);
/// How long a server that was killed is gone: longer than an operator's lease here.
const GONE: Duration = Duration::from_secs(10);
/// Pages that visitors get in that time, at the least.
const MEANWHILE: u64 = 50;

pub(super) async fn away(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("away", async |namespace| {
            let line = Line::open(control_plane).await?;
            let mut here = Installation::begin(namespace).await?;
            here.through(&line)?;
            here.start(1, 1).await?;
            serve(&mut here, "lake", 0).await?;
            let guests = Guests::at(&here, 0, &host("lake")).await?;
            line.cut().await;
            tokio::time::sleep(AWAY).await;
            let served = guests.served();
            line.mend().await?;
            let began = Instant::now();
            recovers(&mut here, 100).await?;
            tell("the_api_server_is_away_for_a_minute", began.elapsed(), &seen(&guests));
            assert!(served > MEANWHILE, "only {served} pages meanwhile");
            guests.noticed_nothing()
        })
        .await
}

pub(super) async fn killed(_: Suite) -> Result<(), TestError> {
    // One of its own: every other test would miss it.
    let control_plane = ControlPlane::start().await?;
    if !control_plane.is_ours() {
        return Ok(());
    }
    control_plane.install_definitions().await?;
    control_plane
        .in_namespace("servers", async |namespace| {
            let mut here = begin(namespace, 1).await?;
            for (server, what, edit) in
                [(Server::Etcd, "etcd_is_killed", 100), (Server::ApiServer, "the_api_server_is_killed", 200)]
            {
                an_edit_arrives(&here, edit).await?;
                let (before, guests) = (here.position(0).await?, Guests::at(&here, 0, &host("lake")).await?);
                control_plane.kill(server)?;
                tokio::time::sleep(GONE).await;
                let served = guests.served();
                let began = Instant::now();
                control_plane.start_again(server).await?;
                let ready = began.elapsed();
                // What was told before it went is there, and in force.
                let kept = here.instance("lake").await?;
                assert_eq!(kept["spec"]["access"]["maxConnections"], edit);
                assert!(here.position(0).await? >= before);
                let restarts = recovers(&mut here, edit + 1).await?;
                assert!(here.position(0).await? > before, "the edit came by the leader's next table");
                assert_eq!(here.page(0, &host("lake")).await?, "the page of lake");
                let more = format!(
                    "{:.1?} of that the server itself, operators started again: {restarts}; {}",
                    ready,
                    seen(&guests)
                );
                tell(what, began.elapsed(), &more);
                assert!(served > MEANWHILE, "only {served} pages meanwhile");
                guests.noticed_nothing()?;
            }
            Ok(())
        })
        .await
}
