//! The two regions of the lab, and the places the lab distinguishes.
//!
//! **Invariant:** every process of a region runs with its working directory inside the region's folder;
//! that is how all of them are found, whatever forked them (see `process.rs`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place that fails as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Region {
    /// Where the shop lives on a quiet day.
    East,
    /// Where it may move.
    West,
}

impl Region {
    /// Both, primary first.
    pub const ALL: [Region; 2] = [Region::East, Region::West];

    /// Its name in `lifeboat.toml`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Region::East => "east",
            Region::West => "west",
        }
    }

    /// The one it is paired with.
    #[must_use]
    pub fn other(self) -> Region {
        match self {
            Region::East => Region::West,
            Region::West => Region::East,
        }
    }

    /// Its folder in the lab's folder: every process of the region has its working directory there.
    #[must_use]
    pub fn folder(self, lab: &Path) -> PathBuf {
        lab.join(self.name())
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The lab has no region of this name.
#[derive(Debug, thiserror::Error)]
#[error("the lab has no region {0:?}: it has \"east\" and \"west\"")]
pub struct UnknownRegion(String);

impl FromStr for Region {
    type Err = UnknownRegion;

    fn from_str(name: &str) -> Result<Self, UnknownRegion> {
        Region::ALL
            .into_iter()
            .find(|region| region.name() == name)
            .ok_or_else(|| UnknownRegion(name.to_owned()))
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum From {
    /// The lifeboat agent, on its bastion.
    Agent,
    /// A region: its database, as a standby that follows the other one.
    Region(Region),
}

/// What a connection goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum To {
    /// The PostgreSQL server of a region.
    Postgres(Region),
    /// The shop of a region.
    Shop(Region),
    /// The host of a region's database, where programs can be run (see `host.rs`).
    Host(Region),
    /// One of the witnesses, numbered from 0.
    Witness(u8),
}

impl To {
    /// The region it is in, if it is in one.
    #[must_use]
    pub fn region(self) -> Option<Region> {
        match self {
            To::Postgres(region) | To::Shop(region) | To::Host(region) => Some(region),
            To::Witness(_) => None,
        }
    }
}
