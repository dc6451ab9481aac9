//! The `latchkey` command: the whole system from one folder (`up`), what a change would do (`plan`), and tools.

pub mod app;
