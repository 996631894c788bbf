//! The names and numbers that decisions are made of, each with a type of its own.
//!
//! **Invariant:** a region's name is never where a database's name is expected, nor an epoch where a
//! timeline is: the compiler keeps them apart.

mod text;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::text::Text;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Text);

        impl $name {
            /// Takes the name as it was written; what it may consist of is the configuration's business.
            pub fn new(name: impl AsRef<str>) -> Self {
                Self(Text::new(name.as_ref()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }
    };
}

name! {
    /// What is protected as one: databases, DNS names, compute.
    WorkloadName
}
name! {
    /// A place that fails as one.
    RegionName
}
name! {
    /// One lifeboat process; also the name of the vantage it looks from.
    AgentName
}
name! {
    /// One way of looking at one thing in one region.
    ProbeName
}
name! {
    /// A database of a workload, one member in each of its regions.
    DatabaseName
}
name! {
    /// A name that clients resolve, fully qualified.
    DnsName
}
name! {
    /// A step of a runbook.
    StepName
}
name! {
    /// A plan being carried out: `WORKLOAD-eEPOCH`, for example `shop-e7`.
    ///
    /// An epoch opens at most one run, so the pair names it for ever.
    RunId
}

impl RunId {
    /// The run that raised `workload` to `epoch`.
    pub fn of(workload: &WorkloadName, epoch: Epoch) -> Self {
        Self::new(format!("{workload}-e{}", epoch.get()))
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the number as it was read.
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The bare number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }
    };
}

number! {
    /// Rises with each attempt to change the primary; an actor with an older epoch is refused.
    Epoch(u64)
}
number! {
    /// A position in PostgreSQL's write-ahead log, in bytes.
    Lsn(u64)
}
number! {
    /// PostgreSQL's timeline: rises with each promotion of a cluster.
    Timeline(u32)
}
number! {
    /// PostgreSQL's system identifier: the same for a primary and its standbys, unlike for any other cluster.
    SystemIdentifier(u64)
}

impl Epoch {
    /// The epoch after this one. Raised in this crate only, when a run opens.
    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Lsn {
    /// How many bytes `self` is ahead of `other`; zero when it is not.
    pub const fn ahead_of(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }

    /// Reads PostgreSQL's own writing of it, two hexadecimal halves: `16/B374D848`.
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let high = u32::from_str_radix(high, 16).ok()?;
        let low = u32::from_str_radix(low, 16).ok()?;
        Some(Self((u64::from(high) << 32) | u64::from(low)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_is_read_and_written_as_postgresql_does() {
        let lsn = Lsn::parse("16/B374D848").unwrap();
        assert_eq!(lsn.get(), 0x16_B374_D848);
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert_eq!(Lsn::parse("16"), None);
        assert_eq!(Lsn::parse("16/B374D84800"), None);
        assert_eq!(Lsn::new(100).ahead_of(Lsn::new(40)), 60);
        assert_eq!(Lsn::new(40).ahead_of(Lsn::new(100)), 0);
    }
}
