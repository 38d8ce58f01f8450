//! The loop: observe, plan, audit, execute, publish.

pub mod controller;
mod driver;
mod forecasts;
mod launch;
pub mod lease;
pub mod notices;
mod observe;
mod retire;
pub mod settings;
pub mod slices;
pub mod status;
mod waves;

pub use controller::{Controller, Inputs};
pub use lease::Leadership;
pub use settings::Settings;
