//! Version blocks over a fleet: who is cut and how soon, who stays, and who comes back.
//!
//! | instances | version | accepted | Warn | first block | second block | both gone |
//! |---|---|---|---|---|---|---|
//! | 18 of 20 | named | | up | cut | | back |
//! | 1 of 20 | named | the first block | up | up | cut | back |
//! | 1 of 20 | another | | up | up | up | up |
//!
//! Nearly all agents are simulated, with a real tunnel each (`latchkey-load agents`); a few are the real program.

mod agents;
mod figures;
mod members;

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use http::Method;
use latchkey_cluster_tests::{ControlPlane, Suite, TestError};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{DOMAIN, Installation, PATIENCE, eventually};
use agents::Agents;
use figures::{Figures, print};
use members::{Group, Member, PRODUCT, create, members};

/// Says how many instances there are, for the figure. Whoever asks for it has real agents come back in their own time.
const SIZE: &str = "FLEET";
/// Otherwise so many.
const FEW: usize = 2_000;
/// Two could hold 30,000 tunnels, by the descriptors that a process may have.
const PROXIES: usize = 3;
/// Agents that are real programs: one of so many instances, within these bounds.
const REAL_ONE_OF: usize = 750;
const REAL: (usize, usize) = (3, 40);
/// Statuses written a second, at least, on a busy machine; the operator's own pace is 200.
const PACE: usize = 25;
/// A blocked agent asks again after 5 minutes at most.
const NEXT_ASK: Duration = Duration::from_mins(6);

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    vec![suite.test("fleet::blocks_cut_and_let_back", whole)]
}

/// What an installation with a fleet is.
struct Fleet<'a, 'b> {
    here: Installation<'a, 'b>,
    agents: Vec<Agents>,
    members: Vec<Member>,
    /// Nothing else is at work on this machine.
    alone: bool,
}

async fn whole(_: Suite) -> Result<(), TestError> {
    // Blocks are for the whole cluster, and so many objects are a burden: nobody else's tests are in it.
    let control_plane = ControlPlane::start().await?;
    control_plane.install_definitions().await?;
    let asked = std::env::var(SIZE).ok();
    let size = asked.as_ref().map_or(Ok(FEW), |size| size.parse())?;
    control_plane
        .in_namespace("fleet", async |namespace| {
            let here = Installation::begin(namespace).await?;
            // It tells of blocks, too: only the default installation does.
            here.write_settings(&json!({"default": true})).await?;
            let mut fleet = Fleet::gather(here, size, asked.is_some()).await?;
            let [warn, first, second] = ["warns", "first", "second"].map(|name| namespace.cluster_wide(name));
            fleet.warns(&warn).await?;
            // An API server that takes the statuses of a fleet has no time for anything else.
            fleet.told().await?;
            fleet.is_cut(&first, &[Group::Named]).await?;
            fleet.told().await?;
            fleet.is_cut(&second, &[Group::Accepts]).await?;
            fleet.comes_back(&[&first, &second], asked.is_some()).await?;
            fleet.figures().print("in the end");
            Ok(())
        })
        .await
}

impl<'a, 'b> Fleet<'a, 'b> {
    /// Makes everything, until every tunnel is up and every status is told.
    async fn gather(mut here: Installation<'a, 'b>, size: usize, alone: bool) -> Result<Self, TestError> {
        let real = (size / REAL_ONE_OF).clamp(REAL.0, REAL.1);
        let members = members(size, real);
        let began = Instant::now();
        create(&here, &members).await?;
        print(&format!("{size} instances created in {:.1?}", began.elapsed()));
        here.start_operator(0)?;
        here.operator_ready(0).await?;
        for which in 0..PROXIES {
            here.start_proxy(which).await?;
        }
        for which in 0..PROXIES {
            here.proxy_ready(which).await?;
        }
        for member in members.iter().filter(|member| member.is_real) {
            here.start_agent(&member.name, member.group.version()).await?;
        }
        let mut agents = Vec::new();
        let simulated: Vec<&Member> = members.iter().filter(|member| !member.is_real).collect();
        for which in 0..PROXIES {
            let theirs = simulated.iter().skip(which).step_by(PROXIES).copied();
            agents.push(Agents::start(&mut here, which, theirs, size).await?);
        }
        let mut fleet = Self { here, agents, members, alone };
        let began = Instant::now();
        fleet.until_up("every tunnel is up", |_| true).await?;
        print(&format!("every tunnel is up after {:.1?}", began.elapsed()));
        fleet.real_ones(|_| true, PATIENCE).await?;
        fleet.told().await?;
        fleet.figures().print("at rest");
        Ok(fleet)
    }

    /// A block that warns: counted, nobody is cut.
    async fn warns(&mut self, name: &str) -> Result<(), TestError> {
        self.block(name, "Warn").await?;
        self.counted(name, &[]).await?;
        let ended = self.ended()?;
        assert!(ended.is_empty(), "cut by a warning: {ended:?}");
        self.until_up("nobody is cut by a warning", |_| true).await?;
        self.real_ones(|_| true, PATIENCE).await
    }

    /// A block that cuts these; everybody else stays as they are.
    async fn is_cut(&mut self, name: &str, groups: &[Group]) -> Result<(), TestError> {
        let expected: BTreeSet<String> = self
            .members
            .iter()
            .filter(|member| !member.is_real && groups.contains(&member.group))
            .map(|member| self.here.id(&member.name))
            .collect();
        let stays =
            move |group: Group| group == Group::Other || group == Group::Accepts && !groups.contains(&group);
        if self.alone {
            figures::rest().await?;
        }
        let refused = self.refused();
        let before = self.figures();
        self.cut(name, groups).await?;
        self.figures().since(&before).print("meanwhile");
        let mut who = BTreeSet::new();
        let waiting = Instant::now();
        while !expected.is_subset(&who) {
            if waiting.elapsed() > PATIENCE {
                let missing = expected.difference(&who).count();
                return Err(format!("{missing} of {} are not cut by {name}", expected.len()).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            who.extend(self.ended()?);
        }
        assert_eq!(who, expected, "others were cut, too");
        // They ask again at once, and are refused.
        let (asked, expected) = (refused, expected.len() as u64);
        self.until("those cut ask again", move |fleet| {
            let more = fleet.refused() - asked;
            if more >= expected { Ok(()) } else { Err(format!("{more} of {expected} were refused")) }
        })
        .await?;
        self.counted(name, groups).await?;
        let ended = self.ended()?;
        assert!(ended.is_empty(), "cut later, or let in meanwhile: {ended:?}");
        self.until_up("everybody else stays", stays).await?;
        self.real_ones(stays, PATIENCE).await
    }

    /// Writes the block, and tells how long it takes until proxies have cut everybody.
    async fn cut(&self, name: &str, groups: &[Group]) -> Result<(), TestError> {
        let count = self.members.iter().filter(|member| groups.contains(&member.group)).count();
        if self.alone {
            // The world outside, which they are, takes no time from the proxies that it watches.
            self.agents.iter().try_for_each(|agents| agents.step_aside(true))?;
        }
        let began = SystemTime::now();
        self.block(name, "Block").await?;
        let answered = SystemTime::now();
        let times = figures::cut(&self.here, count as u64, began, answered).await?;
        let wrote = answered.duration_since(began).unwrap_or_default();
        print(&format!(
            "{name}: written in {wrote:.1?}; {count} cut by proxies within {times:.2?} after that"
        ));
        if self.alone {
            self.agents.iter().try_for_each(|agents| agents.step_aside(false))?;
        }
        Ok(())
    }

    /// The blocks go, and everybody is let in at their next ask.
    async fn comes_back(&mut self, blocks: &[&str], in_their_own_time: bool) -> Result<(), TestError> {
        for name in blocks {
            let path = format!("/apis/{}/versionblocks/{name}", resources::API_VERSION);
            let answer = self.here.control_plane().exchange(Method::DELETE, &path, &json!({})).await?;
            assert!(answer.is_success(), "{}", answer.message());
        }
        let began = Instant::now();
        self.until_up("everybody is back", |_| true).await?;
        print(&format!(
            "{} removed: every tunnel is up again after {:.1?}",
            blocks.join(" and "),
            began.elapsed()
        ));
        if !in_their_own_time {
            // An agent whose version changes does not wait. It asks once only, so the blocks have to be gone by now.
            for member in self.members.iter().filter(|member| member.is_real && member.group != Group::Other)
            {
                self.here.report_version(&member.name, members::AS_OLD)?;
            }
        }
        self.real_ones(|_| true, NEXT_ASK).await?;
        print(&format!("... and every real agent after {:.1?}", began.elapsed()));
        Ok(())
    }

    /// Writes a block.
    async fn block(&self, name: &str, action: &str) -> Result<(), TestError> {
        let block = json!({
            "kind": "VersionBlock",
            "metadata": {"name": name},
            "spec": {
                "product": PRODUCT,
                "versions": [members::NAMED],
                "reason": "Directory traversal",
                "moreInfo": "https://www.example.com/2021/01/23/security-disclosure",
                "action": action,
            },
        });
        self.here.apply(&block).await.map(drop)
    }

    /// Waits until a block's status counts everybody, of whom these have not accepted it, besides those it had out before.
    async fn counted(&self, name: &str, groups: &[Group]) -> Result<(), TestError> {
        let matched = self.members.iter().filter(|member| member.group != Group::Other).count();
        let accepts = self.members.iter().filter(|member| member.group == Group::Accepts).count();
        let accepted = if groups == [Group::Named] { accepts } else { 0 };
        let expected = json!([matched, matched - accepted, accepted]);
        let path = format!("/apis/{}/versionblocks/{name}", resources::API_VERSION);
        let began = Instant::now();
        eventually("a block's counts", async || {
            let object = self.here.control_plane().exchange(Method::GET, &path, &Value::Null).await?.body;
            let status = &object["status"];
            let seen = json!([status["matched"], status["blocked"], status["accepted"]]);
            if seen == expected { Ok(()) } else { Err(format!("{seen}, not {expected}").into()) }
        })
        .await?;
        print(&format!("{name}: counts {expected} told after {:.1?}", began.elapsed()));
        Ok(())
    }

    /// Waits until the operator has nothing to write.
    async fn told(&self) -> Result<(), TestError> {
        let most = PATIENCE + Duration::from_secs((self.members.len() / PACE) as u64);
        let (began, mut longest) = (Instant::now(), 0.0_f64);
        loop {
            let metrics = self.here.operator_metrics(0).await?;
            let waiting = metrics["status_outbox"] + metrics["status_writes_in_flight"];
            longest = longest.max(waiting);
            if waiting == 0.0 {
                break;
            }
            if began.elapsed() > most {
                return Err(format!("{waiting} statuses wait still after {most:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        print(&format!("every status told after {:.1?}, {longest} waited at most", began.elapsed()));
        Ok(())
    }

    /// Waits until the simulated agents of these groups are up, and nobody else.
    async fn until_up(&mut self, what: &str, groups: impl Fn(Group) -> bool) -> Result<(), TestError> {
        let expected = self.members.iter().filter(|member| !member.is_real && groups(member.group)).count();
        self.until(what, move |fleet| {
            let up: u64 = fleet.agents.iter().map(|agents| agents.up).sum();
            if up == expected as u64 { Ok(()) } else { Err(format!("{up} of {expected} are up")) }
        })
        .await
    }

    /// Waits until the real agents of these groups are there for a visitor, and no others.
    async fn real_ones(&self, groups: impl Fn(Group) -> bool, within: Duration) -> Result<(), TestError> {
        let began = Instant::now();
        for member in self.members.iter().filter(|member| member.is_real) {
            let host = format!("{}.{DOMAIN}", member.name);
            loop {
                let page = self.here.page(0, &host).await;
                if page.is_ok() == groups(member.group) {
                    break;
                }
                if began.elapsed() > within {
                    return Err(format!("{}: {page:?}", member.name).into());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Waits for what simulated agents report.
    async fn until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&Self) -> Result<(), String>,
    ) -> Result<(), TestError> {
        let most = PATIENCE + agents::ask_every(self.members.len()) * 2;
        let began = Instant::now();
        loop {
            for agents in &mut self.agents {
                agents.look()?;
            }
            match done(self) {
                Ok(()) => return Ok(()),
                Err(seen) if began.elapsed() > most => {
                    let errors: Vec<&str> =
                        self.agents.iter().map(|agents| agents.last_error.as_str()).collect();
                    return Err(format!("{what}: not within {most:?}: {seen}; {errors:?}").into());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn refused(&self) -> u64 {
        self.agents.iter().map(|agents| agents.refused).sum()
    }

    /// Whose tunnels have ended since this was asked last.
    fn ended(&mut self) -> Result<Vec<String>, TestError> {
        let mut ended = Vec::new();
        for agents in &mut self.agents {
            agents.look()?;
            ended.append(&mut agents.ended);
        }
        Ok(ended)
    }

    fn figures(&self) -> Figures {
        Figures::of(&self.here, &self.agents)
    }
}
