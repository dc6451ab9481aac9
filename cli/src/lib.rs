//! The `latchkey` command: the whole system from one folder (`up`), what a change would do (`plan`), and tools.

pub mod app;
pub mod completions;
pub mod fingerprint;
pub mod manual;
pub mod output;
pub mod version_compare;
pub mod visit;
