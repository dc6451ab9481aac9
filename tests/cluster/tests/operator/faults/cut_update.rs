//! The stream between operator and proxy breaks off in the middle of an update.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use latchkey_cluster_tests::{Suite, TestError};
use serde_json::{Value, json};

use super::{Guests, an_edit_arrives, host, instance, seen, serve, tell};
use crate::cable::Cable;
use crate::support::{Installation, eventually};

/// Instances beside the two that are visited. With their networks their routes are some 800 KiB, which is several parts.
const BULK: u16 = 150;
/// The most that an instance may have.
const NETWORKS: u16 = 256;
/// So much of the update comes through: more than one part of it, which is 256 KiB.
const THROUGH: u64 = 400 * 1024;
/// For so long nothing more comes, while visitors come and go.
const HELD: Duration = Duration::from_secs(3);
/// Objects made at once.
const AT_ONCE: usize = 4;

fn bulky(product: &str, number: u16) -> Value {
    let networks = (0..NETWORKS).map(|network| format!("2001:db8:{number:x}:{network:x}::/64"));
    json!({
        "kind": "RemoteInstance",
        "metadata": {"name": format!("bulk-{number}")},
        "spec": {
            "enabled": true,
            "product": product,
            "access": {"allowNetworks": networks.collect::<Vec<_>>()},
        },
    })
}

pub(super) async fn cut(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("cut", async |namespace| {
            let mut here = Installation::begin(namespace).await?;
            let cable = Cable::to(&here.link(0).to_string()).await?;
            here.link_through(cable.here);
            // So many objects keep the API server of a small machine from answering in time for a short one.
            here.lease = 60;
            here.start(1, 1).await?;
            serve(&mut here, "lake", 0).await?;
            // A product of its own, since blocks are for the whole cluster. By its name it comes before the others, so that
            // its new route is among what came through.
            let product = format!("device-{}", namespace.name());
            let mut arch = instance("arch", 512);
            arch["spec"]["product"] = json!(product);
            here.apply(&arch).await?;
            here.start_agent("arch", "1.0.0").await?;
            eventually("the page", async || here.page(0, &host("arch")).await).await?;
            let bulk = stream::iter(0..BULK).map(|number| bulky(&product, number));
            let applied =
                bulk.map(|object| async { here.apply(&{ object }).await }).buffer_unordered(AT_ONCE);
            applied.try_for_each(async |_| Ok(())).await?;
            eventually("every route", async || {
                let routes = here.metric(0, "latchkey_proxy_route_table_routes").await?;
                if routes == u64::from(BULK) + 2 { Ok(()) } else { Err(format!("{routes} routes").into()) }
            })
            .await?;

            let guests = Guests::at(&here, 0, &host("lake")).await?;
            let others = Guests::at(&here, 0, &host("arch")).await?;
            let before = here.revision(0).await?;
            // One write that changes every route of the product.
            let block = json!({
                "kind": "VersionBlock",
                "metadata": {"name": namespace.cluster_wide("all")},
                "spec": {"product": product, "versions": ["<=1.0.0"], "reason": "It is a test"},
            });
            cable.hold_after(THROUGH);
            here.apply(&block).await?;
            eventually("the update is in the middle", async || {
                if cable.holds() { Ok(()) } else { Err(format!("{} bytes", cable.passed()).into()) }
            })
            .await?;
            tokio::time::sleep(HELD).await;
            // The old table is whole: who is blocked by the new one is served.
            assert_eq!(here.revision(0).await?, before, "half a table is in force");
            others.noticed_nothing()?;

            cable.cut().await;
            eventually("the proxy knows", async || {
                match here.metric(0, "latchkey_proxy_operator_connected").await? {
                    0 => Ok(()),
                    _ => Err("still connected".into()),
                }
            })
            .await?;
            assert_eq!(here.revision(0).await?, before);
            assert_eq!(here.page(0, &host("arch")).await?, "the page of arch");
            others.noticed_nothing()?;
            drop(others);

            cable.mend().await?;
            let began = Instant::now();
            eventually("the new table", async || match here.revision(0).await? {
                now if now > before => Ok(()),
                now => Err(format!("revision {now}").into()),
            })
            .await?;
            let (recovered, whole) = (began.elapsed(), cable.passed());
            assert!(here.page(0, &host("arch")).await.is_err(), "the block is in force");
            assert!(whole > THROUGH, "the whole update was {whole} bytes, so that nothing was cut off");
            an_edit_arrives(&here, 100).await?;
            let more = format!("{THROUGH} of some {whole} bytes had come through; {}", seen(&guests));
            tell("an_update_is_cut_in_the_middle", recovered, &more);
            guests.noticed_nothing()
        })
        .await
}
