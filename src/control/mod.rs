//! The loop: observe, plan, audit, execute, publish.

pub mod status;
