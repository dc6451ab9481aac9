//! How much is written at most, and when nothing is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use latchkey_cluster_tests::{Suite, TestError};
use latchkey_operator::observe::Objects;
use latchkey_operator::write_status::{Settings, StatusWriter};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{Installation, SOON, get, idle, settings};
use crate::observe::{create, folder, send, until};

/// A client whose requests reach the API server, except for so many writes that are refused for a reason.
#[derive(Clone)]
struct Moody {
    client: Client,
    refusals: Arc<AtomicU32>,
    asked: Arc<AtomicU32>,
}

impl Moody {
    fn client(client: Client, refusals: u32) -> (Client, Arc<AtomicU32>) {
        let asked = Arc::new(AtomicU32::new(0));
        let moody = Self { client, refusals: Arc::new(AtomicU32::new(refusals)), asked: Arc::clone(&asked) };
        (Client::new(moody, "default"), asked)
    }
}

impl tower_service::Service<Request<Body>> for Moody {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, kube::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if request.method() == Method::PATCH {
                this.asked.fetch_add(1, Ordering::Relaxed);
                let less = |left: u32| left.checked_sub(1);
                if this.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
                    let response = Response::builder()
                        .status(StatusCode::TOO_MANY_REQUESTS)
                        .header("retry-after", "1")
                        .body(Body::from(b"too many requests".to_vec()));
                    return Ok(response.unwrap());
                }
            }
            this.client.send(request).await
        })
    }
}

pub(super) async fn patience(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("status", async |namespace| {
            for number in 0..20 {
                create(namespace, &format!("lake-{number}"), json!({"enabled": true})).await?;
            }
            let mut installation = Installation::start(&control_plane.client(), namespace.name()).await?;
            // The first four, at once; then, after a pause, one that is tried alone.
            let (client, asked) = Moody::client(control_plane.client(), 5);
            let writer = StatusWriter::start(&client, Settings { at_once: 4, ..settings() });
            let began = Instant::now();
            installation.turn(&writer);
            idle(&writer).await?;
            let (took, stats) = (began.elapsed(), writer.stats());
            assert_eq!((stats.written, stats.failed), (20, 5), "{stats:?}");
            assert_eq!(asked.load(Ordering::Relaxed), 25);
            assert!(took >= Duration::from_secs(2), "it waited twice for a second at least: {took:?}");
            Ok(())
        })
        .await
}

pub(super) async fn pace(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("status", async |namespace| {
            for number in 0..40 {
                create(namespace, &format!("lake-{number:02}"), json!({"enabled": true})).await?;
            }
            let mut installation = Installation::start(&control_plane.client(), namespace.name()).await?;
            let slow = Settings { writes_per_second: 10, burst: 10, max_outbox: 15, ..settings() };
            let writer = StatusWriter::start(&control_plane.client(), slow);
            let began = Instant::now();
            installation.turn(&writer);
            idle(&writer).await?;
            let (took, stats) = (began.elapsed(), writer.stats());
            assert!(took >= Duration::from_millis(2_900), "40 writes in {took:?}");
            // Those that found no room were found again.
            assert_eq!(stats.written, 40, "{stats:?}");
            assert!(stats.dropped >= 25, "{stats:?}");

            // The end: what waits is not written.
            let told = |objects: &Objects| objects.instances_told.values().all(|told| told.digest.is_some());
            until(&installation.observer, "the statuses", told).await?;
            for number in 0..40 {
                let place = format!("{}/lake-{number:02}", folder(namespace.name()));
                let patch = json!({"spec": {"enabled": false}});
                send(control_plane, Method::PATCH, &place, &patch).await?;
            }
            until(&installation.observer, "the edits", |objects| {
                objects.instances.values().all(|object| object.about().generation == Some(2))
            })
            .await?;
            installation.turn(&writer);
            timeout(Duration::from_secs(5), writer.stop()).await?;
            let list = get(control_plane, &folder(namespace.name())).await?;
            let list = list["items"].as_array().unwrap();
            let new = list.iter().filter(|object| object["status"]["observedGeneration"] == 2).count();
            assert!(new < 40, "{new} were written");
            Ok(())
        })
        .await
}

pub(super) async fn hold(suite: Suite) -> Result<(), TestError> {
    let control_plane = suite.control_plane().await?;
    control_plane
        .in_namespace("status", async |namespace| {
            for number in 0..30 {
                create(namespace, &format!("lake-{number:02}"), json!({"enabled": true})).await?;
            }
            let mut installation = Installation::start(&control_plane.client(), namespace.name()).await?;
            let slow = Settings { writes_per_second: 10, burst: 2, ..settings() };
            let writer = StatusWriter::start(&control_plane.client(), slow);
            installation.turn(&writer);
            writer.hold(Instant::now() + SOON);
            // What was on its way arrives.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let held = writer.stats();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let stats = writer.stats();
            assert_eq!((stats.written, stats.in_flight), (held.written, 0), "{stats:?}");
            assert!(stats.waiting > 20, "{stats:?}");
            // It ends by itself, and by the next offer.
            writer.hold(Instant::now() + Duration::from_millis(100));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(writer.stats().written > stats.written, "{:?}", writer.stats());
            writer.hold(Instant::now() + SOON * 3);
            installation.turn(&writer);
            idle(&writer).await?;
            assert_eq!(writer.stats().written, 30);
            Ok(())
        })
        .await
}
