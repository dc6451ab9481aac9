//! Scenarios as data: objects and facts go in, routes, statuses and events are expected to come out.
//!
//! `tests/scenarios/README.md` explains the format to people who write one. A file is read by [`read_file`]; [`play`] plays
//! it in a [`World`], which is whatever plans: the planner alone ([`PlannerWorld`]), a folder of manifests, an API server.
//! What came out differently is told with the step, the member, what was expected and what came.

mod compare;
mod expect;
mod file;
mod moment;
mod names;
mod planner_world;
mod play;
mod read;
mod shorthand;
mod surroundings;
mod world;

pub use compare::Mismatch;
pub use expect::{Expect, Expected, RouteMembers, StatusMembers};
pub use file::{CertificateReport, DnsAnswer, Facts, Need, ObjectRef, Proxies, ReportChange, Scenario, Step};
pub use moment::When;
pub use names::{SEED, random_label};
pub use planner_world::PlannerWorld;
pub use play::{Failed, Failure, play};
pub use read::{ReadError, read_file, read_folder, read_text};
pub use surroundings::Surroundings;
pub use world::{CertificateSeen, Instant, Outcome, Reported, SeenEvent, ToldValues, TunnelSeen, World};
