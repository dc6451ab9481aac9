//! Connections of proxies: TCP, TLS 1.3, HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use operator_link::limits::MAX_MESSAGE_BYTES;
use operator_link::wire::operator_link_server::OperatorLinkServer;
use rustls::{ProtocolVersion, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tonic::codegen::Service as _;

use super::enrol::Enrolments;
use super::stream::Streams;
use super::{Publisher, tls};

/// A peer that does not answer HTTP/2 pings for so long is gone, and its connection with it.
const PEER_AWAY: Duration = Duration::from_secs(20);
/// What a proxy's request headers may take, in bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// After accepting failed, for want of file descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Gives the TLS settings of the moment: every handshake asks anew, so that certificates can change.
pub trait ServerTls: Send + Sync {
    /// TLS for the next connection; [`super::server_config`] makes it.
    fn config(&self) -> Arc<ServerConfig>;
}

/// Takes connections of proxies, for ever. Connections end when the future is dropped.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<dyn ServerTls>,
    publisher: Arc<Publisher>,
    enrolments: Arc<dyn Enrolments>,
) {
    let room = Arc::new(Semaphore::new(publisher.limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(target: "latchkey::publish", %error, "a connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            publisher.counting.connections_refused.one();
            tracing::warn!(target: "latchkey::publish", %peer, "a connection is closed: there are too many");
            continue;
        };
        publisher.counting.connections.one();
        let connection = connection(socket, tls.config(), Arc::clone(&publisher), Arc::clone(&enrolments));
        connections.spawn(async move {
            log_end(peer, connection.await);
            drop(permit);
        });
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("no TLS: {0}")]
    Handshake(#[from] io::Error),
    #[error("the handshake took too long")]
    TooSlow,
    #[error("neither TLS 1.3 nor a certificate")]
    Stranger,
    #[error("HTTP/2: {0}")]
    Http(#[from] hyper::Error),
}

fn log_end(peer: SocketAddr, end: Result<(), End>) {
    if let Err(error) = end {
        tracing::info!(target: "latchkey::publish", %peer, %error, "a connection of a proxy ended");
    }
}

async fn connection(
    socket: TcpStream,
    tls: Arc<ServerConfig>,
    publisher: Arc<Publisher>,
    enrolments: Arc<dyn Enrolments>,
) -> Result<(), End> {
    let _ = socket.set_nodelay(true);
    let limit = publisher.limits.handshake;
    let handshake = timeout(limit, TlsAcceptor::from(tls).accept(socket)).await;
    let socket = handshake.map_err(|_| End::TooSlow).and_then(|socket| socket.map_err(End::from));
    let socket = socket.inspect_err(|_| publisher.counting.handshakes_failed.one())?;
    // The settings ask for both already; this is the place where it must not fail.
    let session = socket.get_ref().1;
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let (Some(certificate), Some(ProtocolVersion::TLSv1_3)) = (certificate, session.protocol_version())
    else {
        publisher.counting.handshakes_failed.one();
        return Err(End::Stranger);
    };
    let names = tls::names(certificate).into();
    let (ping_every, streams) = (publisher.limits.ping_every, publisher.limits.streams_per_connection);
    let service = OperatorLinkServer::new(Streams { publisher, enrolments, names })
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(ping_every)
        .keep_alive_timeout(PEER_AWAY)
        .max_concurrent_streams(streams)
        .max_header_list_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(socket), service_fn(move |request| service.clone().call(request)))
        .await?;
    Ok(())
}
