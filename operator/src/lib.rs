//! The operator: makes the world as the custom resources say.
//!
//! The way of an object: [`observe`] (watches, caches) -> `planner` (decides, pure) -> [`publish`] (routes to the
//! proxies) -> [`write_status`] (statuses and events to the API server). [`reconcile`] takes these steps in order, over and
//! over; [`leader`] makes sure that one process does. Beside them: [`keys`] (the installation's secrets), [`joining`]
//! (how agents get in), [`domains`] (proofs of custom domains by DNS) and [`workload`] (the proxies as Kubernetes objects,
//! and how they are rolled).

mod backoff;
pub mod domains;
pub mod joining;
pub mod keys;
pub mod leader;
pub mod names;
pub mod observe;
pub mod publish;
mod trouble;
pub mod workload;
pub mod write_status;
