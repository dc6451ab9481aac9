//! Labels given up are kept for the next leader, whatever the API server does meanwhile.

use imbl::OrdMap;
use latchkey_cluster_tests::{Suite, TestError};
use latchkey_operator::names::Names;
use latchkey_operator::released::Released;
use libtest_mimic::Trial;
use planner::{ReleasedLabel, Timestamp};

use crate::line::Line;

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![suite.test("released::known_at_once_and_kept_when_the_api_server_is_back", kept)]
}

async fn kept(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("released", async |namespace| {
            let names = Names { namespace: namespace.name().to_owned(), installation: "default".to_owned() };
            let line = Line::open(control_plane).await?;
            let mut released = Released::read(line.client.clone(), &names).await?;
            let label = ReleasedLabel { by: "homes/lake".parse()?, at: Timestamp(1_795_255_200) };
            let given_up: OrdMap<_, _> = [("lake-house".to_owned(), label)].into_iter().collect();
            line.cut().await;
            assert!(released.keep(&given_up).await.is_err());
            assert_eq!(*released.labels(), given_up, "the next plan knows it");
            line.mend().await?;
            released.keep(&given_up).await?;
            let next = Released::read(control_plane.client(), &names).await?;
            assert_eq!(*next.labels(), given_up, "and so does the next leader");
            released.keep(&OrdMap::new()).await?;
            let next = Released::read(control_plane.client(), &names).await?;
            assert!(next.labels().is_empty());
            Ok(())
        })
        .await
}
