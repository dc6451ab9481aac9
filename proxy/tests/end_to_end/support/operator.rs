//! An operator's pod in this process: TLS with client certificates, HTTP/2, and the generated server; what it says is up
//! to the test.

use std::{convert::Infallible, fs, net::SocketAddr, path::Path, sync::Arc};

use hyper_util::rt::{TokioExecutor, TokioIo};
use operator_link::{
    Changes, Position, UpdateWriter,
    wire::{
        Enrol, Facts, FromProxy, Health, Hello, Ping, ToProxy, TokenKeys, Update, Welcome,
        from_proxy::Message as Up,
        operator_link_server::{OperatorLink, OperatorLinkServer},
        to_proxy::Message as Down,
    },
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use route_table::RouteTable;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_rustls::TlsAcceptor;
use tonic::{
    Request, Response, Status, Streaming,
    codegen::{Service as _, tokio_stream::wrappers::ReceiverStream},
};

use super::soon;

/// What the operator's certificate names.
pub const OPERATOR_NAME: &str = "operator.test";
/// What the proxy's names.
pub const REPLICA: &str = "proxy-0";

/// The installation's own authority.
#[derive(Clone)]
pub struct Authority(Arc<CertifiedIssuer<'static, KeyPair>>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(Arc::new(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()))
    }

    fn certificate(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &*self.0).unwrap().pem(), key.serialize_pem())
    }

    /// What a proxy is given.
    pub fn write_link(&self, folder: &Path) {
        let (certificate, key) = self.certificate(REPLICA);
        fs::create_dir_all(folder).unwrap();
        for (name, text) in [("link.crt", certificate), ("link.key", key), ("trust.crt", self.0.pem())] {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let (certificate, key) = self.certificate(OPERATOR_NAME);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A pod.
pub struct Operator {
    pub authority: Authority,
    pub address: SocketAddr,
    attached: mpsc::UnboundedReceiver<Attached>,
    serving: JoinHandle<()>,
}

impl Operator {
    pub async fn start() -> Self {
        Self::of(Authority::new()).await
    }

    pub async fn of(authority: Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (attaching, attached) = mpsc::unbounded_channel();
        let serving = tokio::spawn(serve(listener, authority.acceptor(), attaching));
        Self { authority, address, attached, serving }
    }

    /// The next stream that a proxy opens.
    pub async fn attached(&mut self) -> Attached {
        soon("a stream", self.attached.recv()).await.unwrap()
    }

    /// The next stream, as that of a leader who sends a table.
    pub async fn lead(&mut self, term: u64, table: &str) -> Attached {
        let mut attached = self.attached().await;
        attached.welcome(term).await;
        attached.everything(term, table).await;
        attached.in_force(term, RouteTable::parse(table).unwrap().revision).await;
        attached
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, attaching: mpsc::UnboundedSender<Attached>) {
    let server = OperatorLinkServer::new(Pod(attaching));
    // Its connections go with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, server) = (acceptor.clone(), server.clone());
        connections.spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let service = hyper::service::service_fn(move |request| {
                let mut server = server.clone();
                async move { Ok::<_, Infallible>(server.call(request).await.unwrap()) }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

struct Pod(mpsc::UnboundedSender<Attached>);

#[tonic::async_trait]
impl OperatorLink for Pod {
    type AttachStream = ReceiverStream<Result<ToProxy, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<FromProxy>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (down, said) = mpsc::channel(64);
        let mut up = request.into_inner();
        let hello = match up.message().await? {
            Some(FromProxy { message: Some(Up::Hello(hello)) }) => hello,
            other => panic!("no Hello but {other:?}"),
        };
        let attached =
            Attached { hello, up, down, writer: UpdateWriter::default(), facts: Vec::new(), health: None };
        self.0.send(attached).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(said)))
    }
}

/// A stream of a proxy. Dropping it ends it.
pub struct Attached {
    pub hello: Hello,
    up: Streaming<FromProxy>,
    down: mpsc::Sender<Result<ToProxy, Status>>,
    writer: UpdateWriter,
    /// Facts that came while something else was waited for.
    pub facts: Vec<Facts>,
    /// The health that was told last.
    pub health: Option<Health>,
}

impl Attached {
    pub async fn say(&self, message: Down) {
        soon("it listens", self.down.send(Ok(ToProxy { message: Some(message) }))).await.unwrap();
    }

    pub async fn welcome(&self, term: u64) {
        self.say(Down::Welcome(Welcome { term, version: "0.1.0".to_owned(), contract: 1 })).await;
    }

    pub async fn ping(&self, every: u32) {
        self.say(Down::Ping(Ping { every })).await;
    }

    /// The keys that seal the tokens of every test, after another one.
    pub async fn token_keys(&self) {
        self.say(Down::TokenKeys(TokenKeys { keys: vec![vec![9; 32], vec![7; 32]] })).await;
    }

    /// All routes of a routes file.
    pub async fn everything(&mut self, term: u64, table: &str) {
        for part in self.parts(term, table) {
            self.say(Down::Update(part)).await;
        }
    }

    /// The same, to be changed before it is said.
    pub fn parts(&mut self, term: u64, table: &str) -> Vec<Update> {
        let table = RouteTable::parse(table).unwrap();
        let to = Position { term, revision: table.revision };
        self.writer.everything(to, &table.domain.clone().unwrap(), table.routes().cloned()).collect()
    }

    /// What a routes file has that is new or changed since `from`, and what is gone.
    pub async fn change(&mut self, term: u64, from: u64, table: &str, removed: &[&str]) {
        let table = RouteTable::parse(table).unwrap();
        let (to, from) = (Position { term, revision: table.revision }, Position { term, revision: from });
        let removed: Vec<_> = removed.iter().map(|id| id.parse().unwrap()).collect();
        let domain = table.domain.clone().unwrap();
        let (changed, removed) = (table.routes().cloned(), removed.into_iter());
        let update = Changes { relisted: Vec::new(), changed, removed };
        let parts: Vec<_> = self.writer.change(to, from, &domain, update).collect();
        for part in parts {
            self.say(Down::Update(part)).await;
        }
    }

    /// The next message of a kind; facts and health that come before it are kept.
    async fn next<T>(&mut self, what: &str, mut wanted: impl FnMut(Up) -> Result<T, Up>) -> T {
        loop {
            let message =
                soon(what, self.up.message()).await.unwrap().unwrap_or_else(|| panic!("its end, no {what}"));
            match wanted(message.message.unwrap()) {
                Ok(found) => return found,
                Err(Up::Facts(facts)) => self.facts.push(facts),
                Err(Up::Health(health)) => self.health = Some(health),
                Err(other) => panic!("no {what} but {other:?}"),
            }
        }
    }

    /// What the proxy says of the update that was sent: its table, and why it was refused if so.
    pub async fn applied(&mut self) -> (Option<(u64, u64)>, String) {
        let applied = self
            .next("an answer to the update", |message| match message {
                Up::Applied(applied) => Ok(applied),
                other => Err(other),
            })
            .await;
        (applied.position.map(|position| (position.term, position.revision)), applied.refused)
    }

    /// The update is in force.
    pub async fn in_force(&mut self, term: u64, revision: u64) {
        assert_eq!(self.applied().await, (Some((term, revision)), String::new()));
    }

    /// Facts until some fit.
    pub async fn told(&mut self, what: &str, fits: impl Fn(&Facts) -> bool) -> Facts {
        if let Some(at) = self.facts.iter().position(&fits) {
            return self.facts.drain(..=at).next_back().unwrap();
        }
        self.facts.clear();
        self.next(what, |message| match message {
            Up::Facts(facts) if fits(&facts) => Ok(facts),
            other => Err(other),
        })
        .await
    }

    /// The health as it is told next.
    pub async fn healthy(&mut self, wanted: Health) {
        if self.health == Some(wanted) {
            return;
        }
        self.next("health", |message| match message {
            Up::Health(health) if health == wanted => Ok(()),
            other => Err(other),
        })
        .await;
    }

    /// An agent's wish to join.
    pub async fn enrol(&mut self) -> Enrol {
        self.next("somebody who joins", |message| match message {
            Up::Enrol(enrol) => Ok(enrol),
            other => Err(other),
        })
        .await
    }

    /// The proxy hangs up.
    pub async fn ended(mut self) {
        while let Ok(Some(_)) = soon("the stream's end", self.up.message()).await {}
    }
}
