//! The two regions of the lab, its three sites, and the places it distinguishes.
//!
//! **Invariant:** every process of a site runs with its working directory inside the site's folder;
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

/// A failure domain: one of the regions, or the third place, which has a vote and no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Site {
    /// The site of region east.
    East,
    /// The site of region west.
    West,
    /// An agent and a member of etcd, elsewhere.
    Witness,
}

impl Site {
    /// All three.
    pub const ALL: [Site; 3] = [Site::East, Site::West, Site::Witness];

    /// Its name, which is that of its agent too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Site::East => "east",
            Site::West => "west",
            Site::Witness => "witness",
        }
    }

    /// The region it is, if it is one.
    #[must_use]
    pub fn region(self) -> Option<Region> {
        match self {
            Site::East => Some(Region::East),
            Site::West => Some(Region::West),
            Site::Witness => None,
        }
    }

    /// The two others.
    pub fn others(self) -> impl Iterator<Item = Site> {
        Site::ALL.into_iter().filter(move |other| *other != self)
    }

    /// Its folder in the lab's folder: every process of the site has its working directory there.
    #[must_use]
    pub fn folder(self, lab: &Path) -> PathBuf {
        lab.join(self.name())
    }
}

impl std::convert::From<Region> for Site {
    fn from(region: Region) -> Site {
        match region {
            Region::East => Site::East,
            Region::West => Site::West,
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The lab has no site of this name.
#[derive(Debug, thiserror::Error)]
#[error("the lab has no site {0:?}: it has \"east\", \"west\" and \"witness\"")]
pub struct UnknownSite(String);

impl FromStr for Site {
    type Err = UnknownSite;

    fn from_str(name: &str) -> Result<Self, UnknownSite> {
        Site::ALL.into_iter().find(|site| site.name() == name).ok_or_else(|| UnknownSite(name.to_owned()))
    }
}

/// A place between which the network may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A site.
    Site(Site),
    /// Everything else: the witnesses of a connection, the bastion of a single agent.
    World,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum From {
    /// The lifeboat agent, on its bastion; in a lab of three sites the operator.
    Agent,
    /// The agent and the sentry of a site.
    Site(Site),
    /// A region: its database, as a standby that follows the other one.
    Region(Region),
}

impl From {
    /// Where that is.
    #[must_use]
    pub fn place(self) -> Place {
        match self {
            From::Agent => Place::World,
            From::Site(site) => Place::Site(site),
            From::Region(region) => Place::Site(region.into()),
        }
    }
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
    /// The etcd member of a site, as its clients reach it.
    Etcd(Site),
    /// The agent of a site, as other agents and sentries reach it.
    Agent(Site),
}

impl To {
    /// The site it is in, if it is in one.
    #[must_use]
    pub fn site(self) -> Option<Site> {
        match self {
            To::Postgres(region) | To::Shop(region) | To::Host(region) => Some(region.into()),
            To::Etcd(site) | To::Agent(site) => Some(site),
            To::Witness(_) => None,
        }
    }

    /// Where that is.
    #[must_use]
    pub fn place(self) -> Place {
        self.site().map_or(Place::World, Place::Site)
    }
}
