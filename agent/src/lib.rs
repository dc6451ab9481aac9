//! The agent: it obtains a session, keeps a tunnel to a proxy up, and hands each visitor to the instance beside it.
//!
//! `session` -> `tunnel` -> `channel` is the way of a visitor; `reconnect` decides when to try again, `agent`
//! puts the parts together, and `app` is the binary around it.

pub mod admin;
pub mod agent;
pub mod app;
pub mod certificates;
pub mod channel;
pub mod fingerprint;
pub mod http;
pub mod identity;
pub mod keep_connected;
pub mod logging;
pub mod metrics;
pub mod reconnect;
pub mod session;
pub mod settings;
pub mod state_folder;
pub mod target;
pub mod tcp;
pub mod tunnel;
pub mod version_source;
