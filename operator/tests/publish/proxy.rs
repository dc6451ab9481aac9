//! A proxy's end, as far as it speaks: a raw client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use operator_link::wire::operator_link_client::OperatorLinkClient;
use operator_link::wire::{from_proxy, to_proxy};
use operator_link::{CONTRACT, Position, Read, UpdateReader, wire};
use route_table::RouteTable;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Status, Streaming};

use crate::rig::{Routes, soon};

/// A connection, and the stream on it.
pub(crate) struct Proxy {
    channel: Channel,
    up: mpsc::Sender<wire::FromProxy>,
    down: Option<Streaming<wire::ToProxy>>,
    reader: UpdateReader,
    /// What is in force.
    pub(crate) table: Option<(Position, RouteTable)>,
    /// Where the last update started.
    pub(crate) from: Option<Position>,
    /// How many routes it told, and how many lists of blocks took the place of others.
    pub(crate) told: (usize, usize),
    /// What it speaks.
    pub(crate) contract: u32,
}

impl Proxy {
    /// Connects, without a stream.
    pub(crate) async fn connect(address: SocketAddr, tls: Arc<ClientConfig>) -> Result<Self, String> {
        let socket = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let name = "operator".try_into().unwrap();
        let socket =
            TlsConnector::from(tls).connect(name, socket).await.map_err(|error| error.to_string())?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let (up, _) = mpsc::channel(1);
        let (channel, reader) = (Channel(sender), UpdateReader::default());
        Ok(Self {
            channel,
            up,
            down: None,
            reader,
            table: None,
            from: None,
            told: (0, 0),
            contract: CONTRACT,
        })
    }

    /// Opens the stream with these messages.
    pub(crate) async fn open(&mut self, first: Option<wire::FromProxy>) -> Result<(), Status> {
        let (up, mut queue) = mpsc::channel(64);
        if let Some(first) = first {
            up.send(first).await.unwrap();
        }
        self.up = up;
        let messages = futures_util::stream::poll_fn(move |context| queue.poll_recv(context));
        let origin = "https://operator".parse().unwrap();
        let mut client = OperatorLinkClient::with_origin(self.channel.clone(), origin);
        self.down = Some(client.attach(messages).await?.into_inner());
        Ok(())
    }

    pub(crate) async fn hello(&mut self, name: &str, incarnation: u64) -> Result<(), Status> {
        let hello = wire::Hello {
            proxy: name.to_owned(),
            version: "1.2.3".to_owned(),
            contract: self.contract,
            has: self.table.as_ref().map(|(position, _)| (*position).into()),
            incarnation,
        };
        self.reader = UpdateReader::default();
        self.open(Some(message(from_proxy::Message::Hello(hello)))).await
    }

    pub(crate) async fn send(&self, said: from_proxy::Message) {
        soon(self.up.send(message(said))).await.unwrap();
    }

    /// The next message that is no ping.
    pub(crate) async fn next(&mut self) -> Result<to_proxy::Message, Status> {
        loop {
            let down = self.down.as_mut().unwrap();
            let next = soon(down.message()).await?.and_then(|next| next.message);
            match next {
                Some(to_proxy::Message::Ping(_)) => {}
                Some(next) => return Ok(next),
                None => return Err(Status::cancelled("the stream ended")),
            }
        }
    }

    /// Waits for a ping, and says again and again what it has in force.
    pub(crate) async fn ping_though_it_talks(&mut self, every: Duration) {
        loop {
            let next = timeout(every, self.down.as_mut().unwrap().message()).await;
            match next.map(|next| next.unwrap().and_then(|next| next.message)) {
                Ok(Some(to_proxy::Message::Ping(_))) => return,
                Ok(next) => panic!("{next:?}"),
                Err(_) => self.acknowledge().await,
            }
        }
    }

    pub(crate) async fn welcome(&mut self) -> u64 {
        let to_proxy::Message::Welcome(welcome) = self.next().await.unwrap() else { panic!("no welcome") };
        assert_eq!(welcome.contract, self.contract);
        welcome.term
    }

    /// Reads an update, without a word about it.
    pub(crate) async fn read_update(&mut self) -> Position {
        self.told = (0, 0);
        loop {
            let next = self.next().await.unwrap();
            let to_proxy::Message::Update(part) = next else { panic!("no update, but {next:?}") };
            self.from = part.from.map(Into::into);
            self.told.0 += part.routes.len();
            self.told.1 += part.relisted.len();
            let present = self.table.as_ref().map(|(position, table)| (*position, table));
            if let Read::Table(position, table) = self.reader.take(part, present).unwrap() {
                self.table = Some((position, table));
                return position;
            }
        }
    }

    /// Says that the table is in force.
    pub(crate) async fn acknowledge(&self) {
        self.answer("").await;
    }

    pub(crate) async fn answer(&self, refused: &str) {
        let position = self.table.as_ref().map(|(position, _)| (*position).into());
        let applied = wire::Applied { position, refused: refused.to_owned() };
        self.send(from_proxy::Message::Applied(applied)).await;
    }

    pub(crate) async fn health(&self, ready: bool) {
        self.send(from_proxy::Message::Health(wire::Health { ready, tunnels: 0 })).await;
    }

    /// Is this what is in force?
    pub(crate) fn has(&self, routes: &Routes) -> bool {
        let (_, table) = self.table.as_ref().unwrap();
        table.routes().len() == routes.len()
            && routes.iter().all(|(id, route)| table.by_id(id.as_str()).is_some_and(|found| found == route))
    }
}

pub(crate) fn message(message: from_proxy::Message) -> wire::FromProxy {
    wire::FromProxy { message: Some(message) }
}

/// A connection as tonic wants it.
#[derive(Clone)]
struct Channel(SendRequest<Body>);

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
