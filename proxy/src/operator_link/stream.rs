//! One stream to one pod of the operator, from the call to its end.
//!
//! Every pod is called and every stream stays open; only the leader says more than that it is none. What it sends is
//! answered in order: an update is in force, or refused, before the next message is read.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use operator_link::{
    CONTRACT, UpdateReader,
    limits::MAX_TOKEN_KEYS,
    wire::{self, Applied, FromProxy, Hello, from_proxy, to_proxy::Message},
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use zeroize::{Zeroize as _, Zeroizing};

use super::{
    Shared,
    dial::{DialError, call},
    leaders::{Deposed, Line},
    report::report,
    skipping::{Identity, Skipping},
    table::Taken,
};
use crate::metrics::UpdateResult;

/// Messages that may wait for the operator to read.
const UP_QUEUE: usize = 16;
/// A pod that has not said how often it speaks is silent after this.
const SILENT: Duration = Duration::from_secs(30);
/// So many pings may be missed.
const MISSED: u32 = 3;
/// The longest time between two pings that is believed, in seconds.
const MAX_PING: u32 = 300;
/// How long the operator may leave an answer unread.
const UNREAD: Duration = Duration::from_secs(30);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamEnd {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("it hung up")]
    Closed,
    #[error("{0}")]
    Status(Box<tonic::Status>),
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("it reads nothing")]
    Unread,
    #[error("another one leads")]
    Replaced,
    #[error(
        "it says that it leads in term {term}, but term {heard} was heard: it was deposed. If the operator's lease was \
         deleted, so that terms begin anew: delete the table's cache and restart the proxy"
    )]
    Deposed { term: u64, heard: u64 },
}

/// Calls a pod and stays with it.
pub(super) async fn attend(shared: &Arc<Shared>, address: SocketAddr) -> StreamEnd {
    let (up, outgoing) = mpsc::channel(UP_QUEUE);
    let hello = Hello {
        proxy: shared.replica.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        contract: CONTRACT,
        has: shared.table.position().map(Into::into),
        incarnation: shared.incarnation,
    };
    if up.send(FromProxy { message: Some(from_proxy::Message::Hello(hello)) }).await.is_err() {
        return StreamEnd::Closed;
    }
    let mut open = match call(address, &shared.tls, outgoing).await {
        Ok(open) => open,
        Err(error) => return error.into(),
    };
    let _counted = crate::metrics::Held::new(&shared.state.metrics.streams);
    tracing::debug!(target: "latchkey::operator", %address, "attached");
    let line = Line { id: shared.next_call(), up, closed: Arc::new(Notify::new()) };
    let closed = Arc::clone(&line.closed);
    let mut stream = Stream {
        shared,
        address,
        line,
        silent: SILENT,
        reader: UpdateReader::default(),
        skipping: Skipping::default(),
        refusal: None,
        reporting: None,
    };
    let mut closed = pin!(closed.notified());
    let mut heard = Instant::now();
    loop {
        let message = tokio::select! {
            message = timeout_at(heard + stream.silent, open.inbound.message()) => message,
            () = &mut closed => return StreamEnd::Replaced,
            () = due(stream.refusal.as_ref()) => {
                if let Err(end) = stream.tell_refusal().await {
                    return end;
                }
                continue;
            }
        };
        let ended = match message {
            Err(_) => Err(StreamEnd::Silent(stream.silent)),
            Ok(Err(status)) => Err(StreamEnd::Status(Box::new(status))),
            Ok(Ok(None)) => Err(StreamEnd::Closed),
            Ok(Ok(Some(message))) => stream.hear(message).await,
        };
        if let Err(end) = ended {
            return end;
        }
        heard = Instant::now();
    }
}

async fn due(refusal: Option<&(Instant, Applied)>) {
    match refusal {
        Some((at, _)) => sleep_until(*at).await,
        None => std::future::pending().await,
    }
}

/// What is known of a stream.
struct Stream<'a> {
    shared: &'a Arc<Shared>,
    address: SocketAddr,
    line: Line,
    /// Nothing for so long is the end.
    silent: Duration,
    reader: UpdateReader,
    skipping: Skipping,
    /// An update that was refused, and when to say so.
    refusal: Option<(Instant, Applied)>,
    /// Set while it leads.
    reporting: Option<(JoinHandle<()>, u64)>,
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        self.step_down();
    }
}

impl Stream<'_> {
    async fn hear(&mut self, message: wire::ToProxy) -> Result<(), StreamEnd> {
        // A message of a later contract is passed over.
        let Some(message) = message.message else { return Ok(()) };
        let leads = self.shared.leaders.leads(self.line.id);
        if leads {
            self.shared.state.heard();
        }
        match message {
            Message::Welcome(welcome) => return self.welcome(welcome),
            Message::NotLeader(wire::NotLeader {}) => self.step_down(),
            Message::Ping(wire::Ping { every }) => {
                self.silent = Duration::from_secs(every.clamp(1, MAX_PING).into()) * MISSED;
            }
            Message::Update(part) if leads => return self.update(part).await,
            Message::TokenKeys(keys) if leads => self.token_keys(keys),
            Message::Enrolled(enrolled) if leads => self.shared.enrolment.answered(enrolled),
            Message::Update(_) | Message::TokenKeys(_) | Message::Enrolled(_) => {
                tracing::debug!(target: "latchkey::operator", address = %self.address, "passed over: it does not lead");
            }
        }
        Ok(())
    }

    fn welcome(&mut self, welcome: wire::Welcome) -> Result<(), StreamEnd> {
        let wire::Welcome { term, version, contract } = welcome;
        if let Err(Deposed { heard }) = self.shared.leaders.welcome(&self.line, term) {
            self.shared.state.metrics.deposed.inc();
            return Err(StreamEnd::Deposed { term, heard });
        }
        tracing::info!(target: "latchkey::operator", address = %self.address, term, version, contract, "a leader is attached");
        // Whoever waits for an answer asked another one.
        self.shared.enrolment.leader_lost();
        self.shared.state.attached(self.line.id, self.address, term, version);
        self.shared.state.heard();
        let Shared { door, table, witness, .. } = &**self.shared;
        let task = tokio::spawn(report(door.clone(), table.clone(), witness.clone(), self.line.up.clone()));
        if let Some((before, _)) = self.reporting.replace((task, term)) {
            before.abort();
        }
        Ok(())
    }

    fn step_down(&mut self) {
        if let Some((reporting, term)) = self.reporting.take() {
            reporting.abort();
            tracing::info!(target: "latchkey::operator", address = %self.address, term, "a leader is gone");
        }
        if self.shared.leaders.leave(self.line.id) {
            self.shared.enrolment.leader_lost();
        }
        self.shared.state.lost(self.line.id);
    }

    async fn update(&mut self, part: wire::Update) -> Result<(), StreamEnd> {
        let Some(part) = self.skipping.pass(part) else {
            self.refuse_later();
            return Ok(());
        };
        let term = self.reporting.as_ref().map(|(_, term)| *term);
        if let Some(to) = part.to.filter(|to| Some(to.term) != term) {
            let why = format!("an update to term {} of a leader of another term", to.term);
            self.refused(Skipping::identity(&part), why);
            return Ok(());
        }
        let identity = Skipping::identity(&part);
        let (id, leaders) = (self.line.id, Arc::clone(&self.shared.leaders));
        match self.shared.table.take(&mut self.reader, part, || leaders.leads(id)).await {
            Taken::Partly => Ok(()),
            Taken::Deposed => Err(StreamEnd::Replaced),
            Taken::InForce(position) => {
                self.skipping.took_one();
                self.refusal = None;
                self.shared.applied(position);
                self.say(from_proxy::Message::Applied(Applied {
                    position: Some(position.into()),
                    refused: String::new(),
                }))
                .await
            }
            Taken::Refused(error) => {
                self.refused(identity, error.to_string());
                Ok(())
            }
        }
    }

    fn refused(&mut self, update: Identity, why: String) {
        self.shared.state.metrics.updates.inc(UpdateResult::Refused);
        self.shared.door.metrics.routes_error.set(1);
        if self.shared.state.refused(&why) {
            tracing::warn!(target: "latchkey::operator", address = %self.address, why, "an update is refused: the last good table stays");
        }
        self.skipping.refused(update, why);
        self.refuse_later();
    }

    /// Plans the answer to an update that was refused, once it has ended.
    fn refuse_later(&mut self) {
        if let Some((wait, refused)) = self.skipping.answer() {
            let position = self.shared.table.position().map(Into::into);
            self.refusal = Some((Instant::now() + wait, Applied { position, refused }));
        }
    }

    async fn tell_refusal(&mut self) -> Result<(), StreamEnd> {
        match self.refusal.take() {
            Some((_, applied)) => self.say(from_proxy::Message::Applied(applied)).await,
            None => Ok(()),
        }
    }

    fn token_keys(&self, wire::TokenKeys { keys: told }: wire::TokenKeys) {
        let mut keys = Vec::with_capacity(told.len());
        let mut sound = (1..=MAX_TOKEN_KEYS).contains(&told.len());
        for mut raw in told {
            match <[u8; 32]>::try_from(raw.as_slice()) {
                Ok(key) => keys.push(Zeroizing::new(key)),
                Err(_) => sound = false,
            }
            raw.zeroize();
        }
        let ring = &self.shared.door.keys;
        let taken = if sound { ring.take_from_operator(&keys).ok() } else { None };
        match taken {
            Some(true) => {
                tracing::info!(target: "latchkey::keys", keys = keys.len(), "token keys of the operator in force");
            }
            Some(false) => {}
            None => tracing::error!(
                target: "latchkey::keys",
                "the operator's token keys are not 1 to {MAX_TOKEN_KEYS} of 32 bytes: those there were stay"
            ),
        }
        ring.show(&self.shared.door.metrics);
    }

    async fn say(&self, message: from_proxy::Message) -> Result<(), StreamEnd> {
        match timeout(UNREAD, self.line.up.send(FromProxy { message: Some(message) })).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(StreamEnd::Closed),
            Err(_) => Err(StreamEnd::Unread),
        }
    }
}
