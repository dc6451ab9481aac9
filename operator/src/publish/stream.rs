//! One proxy's stream: asks the session what to say, says it, and passes on what is heard.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use operator_link::limits::MAX_FACTS;
use operator_link::wire::from_proxy::Message as Heard;
use operator_link::wire::operator_link_server::OperatorLink;
use operator_link::wire::to_proxy::Message as Said;
use operator_link::{CONTRACT, Changes, Position, UpdateWriter, wire};
use prost::Message as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout, timeout_at};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::enrol::{self, Enrolments, Refusal};
use super::facts::Batch;
use super::history::{Published, Shortly};
use super::roster::Arrival;
use super::session::{Session, Step};
use super::standing::Standing;
use super::{Publisher, lock, told};

/// Messages made ahead of what the connection can carry.
const AHEAD: usize = 1;
/// Answers to enrolments that wait for a proxy to take them. One that asks on and takes none is hung up on.
const MAX_ANSWERS_WAITING: usize = 1_024;
/// Longest version of a proxy's program that is kept, in characters.
const MAX_VERSION_CHARACTERS: usize = 64;
/// Longest reason of a proxy that goes into the log, in characters.
const MAX_REASON_CHARACTERS: usize = 500;

/// The streams of one connection, whose certificate has these names.
#[derive(Clone)]
pub(crate) struct Streams {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) enrolments: Arc<dyn Enrolments>,
    pub(crate) names: Arc<[String]>,
}

#[tonic::async_trait]
impl OperatorLink for Streams {
    type AttachStream = BoxStream<wire::ToProxy>;

    async fn attach(
        &self,
        request: Request<Streaming<wire::FromProxy>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut heard = request.into_inner();
        let hello = self.hello(&mut heard).await.inspect_err(|status| {
            self.publisher.counting.streams_refused.one();
            tracing::warn!(
                target: "latchkey::publish", reason = status.message(), names = ?self.names, "a stream is refused"
            );
        })?;
        let (to_proxy, mut sent) = mpsc::channel(AHEAD);
        let stream = Stream::begin(self, &hello, to_proxy);
        tokio::spawn(stream.run(heard, hello));
        Ok(Response::new(Box::pin(futures_util::stream::poll_fn(move |context| sent.poll_recv(context)))))
    }
}

impl Streams {
    /// The first message, from somebody who is who they say.
    async fn hello(&self, heard: &mut Streaming<wire::FromProxy>) -> Result<wire::Hello, Status> {
        let first = timeout(self.publisher.limits.hello, heard.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("Hello did not come in time"))??;
        let Some(Heard::Hello(hello)) = first.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("the first message has to be Hello"));
        };
        if !self.names.contains(&hello.proxy) {
            let reason = format!("the certificate is not that of {:?}", hello.proxy);
            return Err(Status::permission_denied(reason));
        }
        if hello.contract == 0 {
            return Err(Status::invalid_argument("Hello without a contract"));
        }
        Ok(hello)
    }
}

/// One stream.
struct Stream {
    publisher: Arc<Publisher>,
    enrolments: Arc<dyn Enrolments>,
    proxy: Arc<str>,
    number: u64,
    replaced: tokio_util::sync::CancellationToken,
    to_proxy: mpsc::Sender<Result<wire::ToProxy, Status>>,
    desk: Arc<Desk>,
}

/// What those who listen leave for the one who speaks.
struct Desk {
    session: Mutex<Session>,
    /// Answers to enrolments, with the permits of those that were looked at.
    enrolled: Mutex<VecDeque<(wire::Enrolled, Option<OwnedSemaphorePermit>)>>,
    permits: Arc<Semaphore>,
    news: Notify,
}

impl Desk {
    fn put(&self, enrolled: wire::Enrolled, permit: Option<OwnedSemaphorePermit>) -> usize {
        let waiting = {
            let mut all = lock(&self.enrolled);
            all.push_back((enrolled, permit));
            all.len()
        };
        self.news.notify_one();
        waiting
    }
}

impl Stream {
    fn begin(
        streams: &Streams,
        hello: &wire::Hello,
        to_proxy: mpsc::Sender<Result<wire::ToProxy, Status>>,
    ) -> Self {
        let Streams { publisher, enrolments, names: _ } = streams.clone();
        let has: Option<Position> = hello.has.map(Into::into);
        let proxy: Arc<str> = hello.proxy.as_str().into();
        let version = hello.version.chars().take(MAX_VERSION_CHARACTERS).collect();
        let arrival = Arrival { name: Arc::clone(&proxy), version, incarnation: hello.incarnation, has };
        let (number, replaced) = publisher.attach(arrival);
        let desk = Arc::new(Desk {
            session: Mutex::new(Session::begin(has)),
            enrolled: Mutex::default(),
            permits: Arc::new(Semaphore::new(publisher.limits.enrolments_per_proxy)),
            news: Notify::new(),
        });
        Self { publisher, enrolments, proxy, number, replaced, to_proxy, desk }
    }

    /// Lives as long as the stream does, and then until its end is without doubt.
    async fn run(self, heard: Streaming<wire::FromProxy>, hello: wire::Hello) {
        let contract = hello.contract.min(CONTRACT);
        tracing::info!(
            target: "latchkey::publish", proxy = %self.proxy, version = ?hello.version,
            incarnation = hello.incarnation, contract, "a proxy is attached"
        );
        let end = tokio::select! {
            end = self.listen(heard) => end,
            end = self.speak(contract) => end,
            () = self.replaced.cancelled() => {
                self.publisher.counting.streams_replaced.one();
                Status::aborted("a newer stream of the same proxy took the place of this one")
            }
        };
        tracing::info!(
            target: "latchkey::publish", proxy = %self.proxy, reason = end.message(), "a proxy is detached"
        );
        let Self { publisher, proxy, number, to_proxy, .. } = self;
        // Whether it can be said any more or not.
        let _ = to_proxy.try_send(Err(end));
        drop(to_proxy);
        if lock(&publisher.roster).detach(&proxy, number) {
            publisher.changed();
            sleep(publisher.limits.grace).await;
            publisher.give_up(&proxy).await;
        }
    }

    /// Says what there is to say, until there is nobody to say it to.
    async fn speak(&self, contract: u32) -> Status {
        let mut standing = self.publisher.standing.subscribe();
        let mut writer = UpdateWriter::default();
        match self.speak_on(contract, &mut standing, &mut writer).await {
            Ok(status) => status,
            Err(Gone) => Status::cancelled("the connection ended"),
        }
    }

    async fn speak_on(
        &self,
        contract: u32,
        standing: &mut watch::Receiver<Standing>,
        writer: &mut UpdateWriter,
    ) -> Result<Status, Gone> {
        let limits = &self.publisher.limits;
        // News that is nothing to say must not put off the next sign of life.
        let mut ping_at = Instant::now() + limits.ping_every;
        loop {
            self.answer_enrolments().await?;
            let now = Instant::now();
            let stands = standing.borrow_and_update().clone();
            let step = lock(&self.desk.session).next(&stands, writer.is_full(), now, limits);
            match step {
                Step::NotLeader => self.say(Said::NotLeader(wire::NotLeader {})).await?,
                Step::Welcome(term) => {
                    let version = env!("CARGO_PKG_VERSION").to_owned();
                    self.say(Said::Welcome(wire::Welcome { term, version, contract })).await?;
                }
                Step::Keys(keys) => self.say(Said::TokenKeys(keys.message())).await?,
                Step::Update(from, to) => self.update(contract, writer, from.as_deref(), &to).await?,
                Step::HangUp => {
                    self.publisher.counting.unanswered.one();
                    return Ok(Status::deadline_exceeded("an update was not answered in time"));
                }
                Step::Wait(_) if now >= ping_at => {
                    let every = u32::try_from(limits.ping_every.as_secs()).unwrap_or(u32::MAX).max(1);
                    self.say(Said::Ping(wire::Ping { every })).await?;
                }
                Step::Wait(until) => {
                    let news = async {
                        tokio::select! {
                            changed = standing.changed() => changed.map_err(|_| Gone),
                            () = self.desk.news.notified() => Ok(()),
                            () = self.to_proxy.closed() => Err(Gone),
                        }
                    };
                    let wake_at = until.map_or(ping_at, |until| until.min(ping_at));
                    if let Ok(news) = timeout_at(wake_at.into(), news).await {
                        news?;
                    }
                    continue;
                }
            }
            ping_at = Instant::now() + limits.ping_every;
        }
    }

    async fn say(&self, message: Said) -> Result<(), Gone> {
        let message = wire::ToProxy { message: Some(message) };
        self.to_proxy.send(Ok(message)).await.map_err(|_| Gone)
    }

    /// Sends an update. The next part is made when the connection has taken the last.
    async fn update(
        &self,
        contract: u32,
        writer: &mut UpdateWriter,
        from: Option<&Published>,
        to: &Published,
    ) -> Result<(), Gone> {
        let Published { position, domain, routes, at: _, step } = to;
        if let Some(from) = from {
            self.publisher.counting.sent_changes.one();
            let step = step
                .as_ref()
                .filter(|step| step.from == from.position && writer.can_relist(contract, &step.relisted));
            if let Some(Shortly { from, relisted, changed, removed }) = step {
                let (changed, removed) = (changed.iter().cloned(), removed.iter().cloned());
                let short = Changes { relisted: relisted.clone(), changed, removed };
                return self.send(writer.change(*position, *from, domain, short)).await;
            }
            let all = routes.changes_since(&from.routes);
            let changed = all.iter().filter_map(|(_, route)| route.cloned());
            let removed = all.iter().filter(|(_, route)| route.is_none()).map(|(id, _)| (*id).clone());
            let one_by_one = Changes { relisted: Vec::new(), changed, removed };
            self.send(writer.change(*position, from.position, domain, one_by_one)).await
        } else {
            self.publisher.counting.sent_everything.one();
            self.send(writer.everything(*position, domain, routes.values().cloned())).await
        }
    }

    async fn send(&self, parts: impl Iterator<Item = wire::Update>) -> Result<(), Gone> {
        for part in parts {
            self.answer_enrolments().await?;
            self.publisher.counting.sent_bytes.add(part.encoded_len() as u64);
            self.say(Said::Update(part)).await?;
            // A part takes milliseconds to make: others have their turn in between.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn answer_enrolments(&self) -> Result<(), Gone> {
        loop {
            let next = lock(&self.desk.enrolled).pop_front();
            // The permit is given back when the answer is on its way.
            let Some((enrolled, _permit)) = next else { return Ok(()) };
            self.say(Said::Enrolled(enrolled)).await?;
        }
    }

    /// Takes what the proxy tells, until it stops.
    async fn listen(&self, mut heard: Streaming<wire::FromProxy>) -> Status {
        loop {
            let message = match heard.message().await {
                Ok(Some(message)) => message.message,
                Ok(None) => return Status::cancelled("the proxy ended the stream"),
                Err(status) => return status,
            };
            match message {
                // What a newer contract adds is passed over.
                None => {}
                Some(Heard::Hello(_)) => return Status::invalid_argument("a second Hello"),
                Some(Heard::Applied(applied)) => self.applied(applied),
                Some(Heard::Facts(facts)) => {
                    if let Err(status) = self.facts(facts).await {
                        return status;
                    }
                }
                Some(Heard::Enrol(enrol)) => {
                    if let Err(status) = self.enrol(enrol) {
                        return status;
                    }
                }
                Some(Heard::Health(wire::Health { ready, tunnels })) => {
                    lock(&self.publisher.roster).health(&self.proxy, self.number, ready, tunnels);
                    self.publisher.changed();
                }
            }
        }
    }

    fn applied(&self, applied: wire::Applied) {
        let wire::Applied { position, refused } = applied;
        let position: Option<Position> = position.map(Into::into);
        let counting = &self.publisher.counting;
        if !refused.is_empty() {
            counting.refused.one();
            let reason: String = refused.chars().take(MAX_REASON_CHARACTERS).collect();
            tracing::warn!(
                target: "latchkey::publish", proxy = %self.proxy, ?reason,
                "a proxy refused an update, and gets everything"
            );
        }
        let (now, limits) = (Instant::now(), &self.publisher.limits);
        let took = lock(&self.desk.session).answered(position, !refused.is_empty(), now, limits);
        if let Some(took) = took {
            counting.applied.one();
            counting.applied_microseconds.add_time(took.at.elapsed());
        }
        lock(&self.publisher.roster).applied(&self.proxy, self.number, position);
        self.desk.news.notify_one();
        self.publisher.changed();
    }

    async fn facts(&self, facts: wire::Facts) -> Result<(), Status> {
        let wire::Facts { from_the_start, complete, instances } = facts;
        if instances.len() > MAX_FACTS {
            return Err(Status::invalid_argument(format!(
                "more than {MAX_FACTS} instances in a batch of facts"
            )));
        }
        let mut dropped = 0;
        let told = instances.into_iter().filter_map(|facts| told::read(facts, &mut dropped)).collect();
        self.publisher.counting.facts_dropped.add(dropped);
        self.publisher.take_facts(&self.proxy, Batch { from_the_start, complete, told }).await;
        Ok(())
    }

    /// Starts an enrolment. It goes on when the stream ends: the agent asks again and gets the same answer.
    fn enrol(&self, enrol: wire::Enrol) -> Result<(), Status> {
        let counting = &self.publisher.counting;
        counting.enrolments.one();
        let number = enrol.number;
        let Ok(permit) = Arc::clone(&self.desk.permits).try_acquire_owned() else {
            counting.enrolments_put_off.one();
            let refusal = Refusal::unavailable("Too many agents want to join at once; try again.");
            let waiting = self.desk.put(enrol::answer(number, Err(refusal)), None);
            if waiting > MAX_ANSWERS_WAITING {
                return Err(Status::resource_exhausted("answers to enrolments are not taken"));
            }
            return Ok(());
        };
        let (desk, enrolments) = (Arc::clone(&self.desk), Arc::clone(&self.enrolments));
        let leads = self.publisher.standing.borrow().term.is_some();
        let limit = self.publisher.limits.enrolment;
        tokio::spawn(async move {
            let answer = match enrol::read(enrol) {
                Err(refusal) => Err(refusal),
                Ok(_) if !leads => Err(Refusal::unavailable("This operator does not lead; ask another one.")),
                Ok((token, key)) => {
                    let answer = timeout(limit, enrolments.enrol(token, key)).await;
                    answer.unwrap_or_else(|_| Err(Refusal::unavailable("It takes too long; try again.")))
                }
            };
            desk.put(enrol::answer(number, answer), Some(permit));
        });
        Ok(())
    }
}

/// There is nobody at the other end any more.
struct Gone;
