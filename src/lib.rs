//! node-fleet keeps the worker instances of a self-managed K3s cluster on EC2 right.

pub mod config;
pub mod control;
pub mod model;
pub mod policy;
pub mod ports;
