//! Whole worlds: that they repeat, that each fault bites and does no harm, that every kill is survived.

mod bill;
mod crashes;
mod drains;
mod faults;
mod interventions;
mod launches;
mod mornings;
mod oracle;
mod plants;
mod regressions;
mod story;
mod telling;
mod worlds;
