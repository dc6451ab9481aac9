//! Decides who is served under which name, and what to tell whom.
//!
//! [`plan`] is a pure function: objects, settings and facts go in; routes, statuses and events come out. It has no clock
//! (the time is an argument), no randomness, no client and no log. The same input gives the same bytes. Inputs share
//! structure (persistent maps of `Arc`s), so that an edit of one object costs little.
//!
//! The way of a plan, with the module that holds the rules: `scope` (what has to be looked at again), `wish` (what an
//! object asks for, `names` and `installation` with it), `claims` and `custom_domains` (who gets what only one can
//! have), `blocks` (what is said of a version), `instance` (the decision about one), `route`, `hostname_status`,
//! `tunnel_status`, `conditions`, `status` and `events` (how it is told). `making` takes the steps in order,
//! `sharing` those about names and keys, `deciding` the one about instances; `ordered` is the map that what they come to
//! is kept in, `halves` shares work between two threads. `blocks_first` gives the routes of a fleet whose version blocks
//! changed before all the rest.

mod beside;
mod blocks;
mod blocks_first;
mod claims;
mod conditions;
mod custom_domains;
mod deciding;
mod events;
mod fresh;
mod halves;
mod hostname_status;
mod installation;
mod instance;
mod inventory;
mod making;
mod names;
mod ordered;
mod outcome;
mod plan;
mod previous;
mod route;
mod scope;
mod sharing;
mod status;
#[cfg(test)]
mod testing;
mod text;
mod tunnel_status;
mod wish;

pub use blocks_first::BlocksFirst;
pub use events::{Event, EventKind, Subject};
pub use installation::serves;
pub use inventory::{
    Applied, CertificateFacts, Facts, Inventory, Proof, ProofAnswer, ReleasedLabel, Report, Seed, Settings,
    Tunnel,
};
pub use names::{random_label, verification_name, verification_value};
pub use ordered::Ordered;
pub use plan::{Plan, Published, plan};
pub use previous::Previous;
pub use resources::Timestamp;
