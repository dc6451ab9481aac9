//! The `latchkey` command: the whole system from one folder (`up`), what a change would do (`plan`), and tools.

pub mod app;
pub mod board_text;
pub mod completions;
pub mod control;
pub mod doctor;
pub mod fingerprint;
pub mod join;
pub mod manual;
pub mod output;
pub mod plan_command;
pub mod state_place;
pub mod status;
pub mod up;
pub mod version_compare;
pub mod visit;
