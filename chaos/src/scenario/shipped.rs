//! The shipped scenarios.

use super::{Flaw, Scenario, parse};

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../scenarios/", $name, ".toml")))),*]
    };
}

/// Each by its name, with its text.
const TEXTS: &[(&str, &str)] = shipped![
    "agent-frozen",
    "clock-back",
    "clock-forward",
    "clocks-apart",
    "coordinator-down",
    "database-frozen",
    "dns-api-fails",
    "double-fault",
    "dr-agent-offline",
    "flapping",
    "host-frozen",
    "isolated",
    "lag-beyond-rpo",
    "lag-within-rpo",
    "link-cut",
    "lying-vantage",
    "no-sentry",
    "primary-lost",
    "promotion-fails",
    "region-returns",
    "replication-stopped",
    "resolver-stale",
    "sentry-dies",
    "standby-lost-too",
    "supervised",
    "sync-primary-lost",
    "two-guardians",
    "writes-hang",
];

/// All shipped scenarios, in the order of their list.
///
/// # Errors
/// The flaw of one of them, which a test rules out.
pub fn shipped() -> Result<Vec<Scenario>, Flaw> {
    TEXTS.iter().map(|(name, text)| parse(&format!("{name}.toml"), text)).collect()
}

/// The shipped scenario of this name.
///
/// # Errors
/// Its flaw, which a test rules out.
pub fn find(name: &str) -> Result<Option<Scenario>, Flaw> {
    let found = TEXTS.iter().find(|(known, _)| *known == name);
    found.map(|(name, text)| parse(&format!("{name}.toml"), text)).transpose()
}
