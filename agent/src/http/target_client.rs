//! HTTP/1.1 to the instance, over kept connections.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_service::Service;

use super::body::Upload;
use crate::channel::ChannelStream;
use crate::target::{Begun, Target};

/// Well below what servers wait themselves before they close an idle connection (aiohttp: 75 s, nginx: 75 s).
const IDLE: Duration = Duration::from_secs(20);
const IDLE_CONNECTIONS: usize = 64;

/// A client whose every connection leads to the target, whatever host the request names.
pub type TargetClient = Client<Connector, Upload>;

/// Makes one.
pub fn client(target: Arc<Target>, time_limit: Duration) -> TargetClient {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .set_host(false)
        .build(Connector { target, time_limit })
}

/// Connects to the target.
#[derive(Debug, Clone)]
pub struct Connector {
    target: Arc<Target>,
    time_limit: Duration,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<ToTarget>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<ToTarget>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { target, time_limit } = self.clone();
        Box::pin(async move {
            let connected = tokio::time::timeout(time_limit, target.connect()).await;
            let stream = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? {
                Begun::Tcp(stream) => {
                    if let Ok(address) = stream.local_addr() {
                        target.note_seen_as(address.ip());
                    }
                    ChannelStream::Tcp(stream)
                }
                Begun::Unix(stream) => ChannelStream::Unix(stream),
            };
            Ok(TokioIo::new(ToTarget(stream)))
        })
    }
}

/// A connection to the target.
#[derive(Debug)]
pub struct ToTarget(ChannelStream);

impl Connection for ToTarget {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for ToTarget {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ToTarget {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
