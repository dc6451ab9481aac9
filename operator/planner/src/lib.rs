//! Decides who is served under which name, and what to tell whom.
//!
//! [`plan`] is a pure function: objects, settings and facts go in; routes, statuses and events come out. It has no clock
//! (the time is an argument), no randomness, no client and no log. The same input gives the same bytes. Inputs share
//! structure (persistent maps of `Arc`s), so that an edit of one object costs little.

mod inventory;
mod plan;

pub use inventory::{
    Applied, CertificateFacts, Facts, Inventory, Proof, ProofAnswer, ReleasedLabel, Report, Seed, Settings,
    SettingsError, Timestamp, Tunnel,
};
pub use plan::{Event, EventKind, Plan, Previous, Subject, plan};
