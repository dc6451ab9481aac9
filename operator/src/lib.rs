//! The operator: makes the world as the custom resources say.
//!
//! The way of an object: [`observe`] (watches, caches) -> `planner` (decides, pure) -> [`publish`] (routes to the
//! proxies) -> [`write_status`] (statuses and events to the API server). [`reconcile`] takes these steps in order, over and
//! over; [`leader`] makes sure that one process does. Beside them: [`keys`] (the installation's secrets), [`joining`]
//! (how agents get in), [`domains`] (proofs of custom domains by DNS) and [`workload`] (the proxies as Kubernetes objects,
//! and how they are rolled).

pub mod admin;
pub mod app;
mod backoff;
pub mod domains;
pub mod joining;
mod keeping;
pub mod keys;
pub mod lead;
pub mod leader;
mod logging;
pub mod metrics;
pub mod names;
pub mod observe;
pub mod overview;
pub mod publish;
pub mod reconcile;
pub mod released;
pub mod settings;
mod shallow;
mod sight;
mod status_board;
mod trouble;
pub mod workload;
pub mod write_status;
