//! The places of a scenario, and the parts that can be broken in them.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// A place that fails as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Site {
    /// The region where the workload lives on a quiet day.
    East,
    /// The region where it may move.
    West,
    /// A place without a database: one agent, one member of the coordinator.
    Witness,
}

impl Site {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::East, Self::West, Self::Witness];

    /// The two that have databases.
    pub const REGIONS: [Self; 2] = [Self::East, Self::West];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::East => "east",
            Self::West => "west",
            Self::Witness => "witness",
        }
    }

    /// Its place among [`Site::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The other region; of the witness, the first.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::East => Self::West,
            Self::West | Self::Witness => Self::East,
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|site| site.name() == name)
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What can be killed or frozen. Written `east`, `agent.east`, `database.east`, `sentry.east`, `coordinator.east`, or
/// `coordinator` for all of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Everything in a place.
    Site(Site),
    /// The agent there.
    Agent(Site),
    /// The database there.
    Database(Site),
    /// The sentry there.
    Sentry(Site),
    /// The coordinator's member there.
    Member(Site),
    /// All members of the coordinator.
    Coordinator,
}

impl Part {
    fn named(text: &str) -> Option<Self> {
        if let Some(site) = Site::named(text) {
            return Some(Self::Site(site));
        }
        if text == "coordinator" {
            return Some(Self::Coordinator);
        }
        let (part, site) = text.split_once('.')?;
        let site = Site::named(site)?;
        let region = Site::REGIONS.contains(&site);
        match part {
            "agent" => Some(Self::Agent(site)),
            "database" if region => Some(Self::Database(site)),
            "sentry" if region => Some(Self::Sentry(site)),
            "coordinator" => Some(Self::Member(site)),
            _ => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(site) => write!(f, "{site}"),
            Self::Agent(site) => write!(f, "agent.{site}"),
            Self::Database(site) => write!(f, "database.{site}"),
            Self::Sentry(site) => write!(f, "sentry.{site}"),
            Self::Member(site) => write!(f, "coordinator.{site}"),
            Self::Coordinator => f.write_str("coordinator"),
        }
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::named(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "no part is called \"{text}\"; parts are east, west, witness, agent.SITE, database.REGION, \
                 sentry.REGION, coordinator.SITE, coordinator"
            ))
        })
    }
}
