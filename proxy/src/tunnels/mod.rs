//! The tunnels of agents: how one is opened, who holds which instance, and what a tunnel does with its visitors.

pub mod allowed;
pub mod changes;
pub mod data_threads;
pub mod enforce;
pub mod host;
pub mod open;
pub mod registry;
