//! A connection to one pod of the operator: TCP, TLS, HTTP/2, and the stream on it.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use operator_link::{
    limits::MAX_MESSAGE_BYTES,
    wire::{FromProxy, ToProxy, operator_link_client::OperatorLinkClient},
};
use tokio::{net::TcpStream, sync::mpsc, task::JoinHandle, time::timeout};
use tonic::{Streaming, body::Body, codegen::tokio_stream::wrappers::ReceiverStream};

use super::tls::{LinkTls, LinkTlsError};

/// How long TCP may take; as long may TLS, and as long the answer.
const STEP: Duration = Duration::from_secs(5);
/// What may be on its way to us: a large table comes in parts, and the one that is read holds back the others.
const WINDOW: u32 = 1024 * 1024;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// The link's files are of no use.
    #[error(transparent)]
    Tls(#[from] LinkTlsError),
    /// No connection, or no handshake.
    #[error("{0}")]
    Connect(#[from] io::Error),
    /// A step took too long.
    #[error("{step} took longer than {} s", STEP.as_secs())]
    Slow {
        /// Which.
        step: &'static str,
    },
    /// It speaks no HTTP/2.
    #[error("HTTP/2: {0}")]
    Http(#[from] hyper::Error),
    /// It does not take the stream.
    #[error("the stream was refused: {0}")]
    Refused(#[from] Box<tonic::Status>),
}

/// An open stream. Dropping it closes the connection.
pub(super) struct Call {
    /// What the operator says.
    pub(super) inbound: Streaming<ToProxy>,
    _connection: Connection,
}

/// Opens a stream; what is sent to `outgoing`'s other end goes up.
pub(super) async fn call(
    address: SocketAddr,
    tls: &LinkTls,
    outgoing: mpsc::Receiver<FromProxy>,
) -> Result<Call, DialError> {
    let connector = tls.connector()?;
    let tcp = in_time("connecting", TcpStream::connect(address)).await??;
    tcp.set_nodelay(true)?;
    let stream = in_time("TLS", connector.connect(tls.name.clone(), tcp)).await??;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .handshake(TokioIo::new(stream))
        .await?;
    let connection = Connection(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(target: "latchkey::operator", %address, %error, "connection ended");
        }
    }));
    let mut client = OperatorLinkClient::with_origin(Channel(sender), origin(tls))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let inbound = in_time("attaching", client.attach(ReceiverStream::new(outgoing)))
        .await?
        .map_err(Box::new)?
        .into_inner();
    Ok(Call { inbound, _connection: connection })
}

async fn in_time<T>(step: &'static str, future: impl Future<Output = T>) -> Result<T, DialError> {
    timeout(STEP, future).await.map_err(|_| DialError::Slow { step })
}

/// HTTP/2 wants an authority; what counts is the name in the certificate.
fn origin(tls: &LinkTls) -> Uri {
    let authority = tls.name.to_str();
    let bracketed = if authority.contains(':') { format!("[{authority}]") } else { authority.into_owned() };
    Uri::try_from(format!("https://{bracketed}")).unwrap_or_else(|_| Uri::from_static("https://operator"))
}

/// The task that moves a connection's bytes.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// hyper's side of a connection as tonic's client takes it.
struct Channel(SendRequest<Body>);

impl tower_service::Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
