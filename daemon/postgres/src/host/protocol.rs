//! What an agent and a database host say to each other: one request, one reply, each a line of JSON.
//!
//! **Invariant:** a name that becomes a path, a slot or a part of a connection string is of letters, digits and
//! `._-` only; anything else is refused before it is used.
//! **Invariant:** what is not understood in full (a newer version, an unknown key) is refused, never guessed.

use lifeboat_core::outcome::{Rejoined, Salvage};
use lifeboat_core::{
    AgentName, DatabaseName, Epoch, Fault, FaultKind, Lsn, RegionName, RunId, Source, SystemIdentifier,
    Timeline, WorkloadName,
};
use serde::{Deserialize, Serialize};

use crate::host::control::ClusterState;

/// The version of these words.
pub const VERSION: u32 = 1;

/// The most bytes a request may have.
pub const LONGEST_REQUEST: u64 = 1 << 20;

/// What an agent asks of the host of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The workload that the run is about.
    pub workload: WorkloadName,
    /// Which server, by the database's name in the host's configuration.
    pub database: DatabaseName,
    /// The region that the host is in, as the agent knows it.
    pub region: RegionName,
    /// The run that asks.
    pub run: RunId,
    /// The agent that asks.
    pub agent: AgentName,
    /// The epoch of the run.
    pub epoch: Epoch,
    /// The cluster that the server must belong to.
    pub system: SystemIdentifier,
    /// For how long another invocation is waited for, and a server that was started, in milliseconds.
    pub limit_ms: u64,
    /// What to do.
    pub act: Act,
}

/// What a host can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Act {
    /// Say what the server is. Touches nothing, and obeys any epoch.
    Look,
    /// Stop the server.
    Stop,
    /// Keep what only this server has.
    Salvage {
        /// The primary of now.
        source: Source,
    },
    /// Make the server a standby.
    Rejoin {
        /// The primary of now.
        source: Source,
        /// Physical slots of its own that a standby has no use for: they would hold its log for ever.
        drop_slots: Vec<String>,
    },
}

/// What a host answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// It is done, or was.
    Done(Done),
    /// It is not, or nobody knows.
    Failed(Fault),
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// What the server is.
    Looked(Look),
    /// The server is stopped: no process of it is left.
    Stopped {
        /// Whether it was before.
        already: bool,
    },
    /// What only this server had is kept.
    Salvaged(Salvage),
    /// The server streams from the source.
    Rejoined(Rejoined),
}

/// What a server is, as its data folder says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Whether a postmaster of the data folder is there.
    pub running: bool,
    /// What `pg_control` says of it.
    pub state: ClusterState,
    /// The timeline of its newest checkpoint.
    pub timeline: Timeline,
    /// Where its newest checkpoint is.
    pub checkpoint: Lsn,
    /// Its cluster.
    pub system: SystemIdentifier,
    /// A rejoin was begun under this epoch and has not ended: the server is not started as it is.
    pub interrupted: Option<Epoch>,
    /// The newest epoch that this host has obeyed for the database.
    pub obeyed: Option<Epoch>,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// `Refused` when it is cut short, of another version, or holds a name that could be more than a name.
    pub fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let refused = |detail: String| Fault::new(FaultKind::Refused, detail);
        // The version is read by itself first: a newer request may have keys that are not known here.
        let value: serde_json::Value = serde_json::from_slice(bytes)
            .map_err(|error| refused(format!("the request cannot be read: {error}")))?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if version != Some(u64::from(VERSION)) {
            let said = version.map_or("none".to_owned(), |version| version.to_string());
            return Err(refused(format!(
                "the request is of version {said}, this host speaks {VERSION}: install the agent's version here"
            )));
        }
        let request: Self = serde_json::from_value(value)
            .map_err(|error| refused(format!("the request cannot be read: {error}")))?;
        request.check().map_err(refused)?;
        Ok(request)
    }

    fn check(&self) -> Result<(), String> {
        let names = [
            ("workload", self.workload.as_str()),
            ("database", self.database.as_str()),
            ("region", self.region.as_str()),
            ("run", self.run.as_str()),
            ("agent", self.agent.as_str()),
        ];
        for (what, name) in names {
            check(what, is_name(name), name)?;
        }
        match &self.act {
            Act::Look | Act::Stop => Ok(()),
            Act::Salvage { source } => check_source(source),
            Act::Rejoin { source, drop_slots } => {
                for slot in drop_slots {
                    check("slot", is_slot(slot), slot)?;
                }
                check_source(source)
            }
        }
    }
}

fn check_source(source: &Source) -> Result<(), String> {
    let named = |c: char| c.is_ascii_alphanumeric() || ".:-_%".contains(c);
    let is_host = !source.host.is_empty()
        && source.host.len() <= 255
        && (source.host.starts_with('/') || source.host.chars().all(named))
        && !source.host.chars().any(|c| c.is_control() || c == '\'' || c == '\\' || c == ',');
    check("host", is_host, &source.host)?;
    check("slot", is_slot(&source.slot), &source.slot)?;
    check("region", is_name(source.region.as_str()), source.region.as_str())
}

fn check(what: &str, fits: bool, name: &str) -> Result<(), String> {
    if fits { Ok(()) } else { Err(format!("{name:?} is no name of a {what}; nothing was touched")) }
}

/// Fit to be a file name, and one that is neither hidden nor a way out of its folder.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 120
        && !name.starts_with(['.', '-'])
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// What PostgreSQL takes as the name of a slot.
fn is_slot(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> serde_json::Value {
        serde_json::json!({
            "version": 1, "workload": "shop", "database": "orders", "region": "east", "run": "shop-e7",
            "agent": "bastion", "epoch": 7, "system": 1, "limit_ms": 1000,
            "act": {"act": "rejoin", "drop_slots": ["west"], "source": {"region": "west", "host": "db-west",
                "port": 5432, "system": 1, "timeline": 2, "lineage": [{"timeline": 1, "lsn": 100}], "slot": "east"}},
        })
    }

    fn read(value: &serde_json::Value) -> Result<Request, Fault> {
        Request::read(value.to_string().as_bytes())
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let request = read(&request()).unwrap();
        let again = serde_json::to_vec(&request).unwrap();
        assert_eq!(Request::read(&again).unwrap(), request);
    }

    #[test]
    fn a_request_that_was_cut_short_is_refused_at_every_byte() {
        let whole = request().to_string();
        for end in 0..whole.len() {
            assert_eq!(Request::read(&whole.as_bytes()[..end]).unwrap_err().kind, FaultKind::Refused);
        }
    }

    #[test]
    fn names_that_are_more_than_names_are_refused() {
        for (pointer, hostile) in [
            ("/run", "../../etc"),
            ("/run", ".."),
            ("/run", ""),
            ("/database", "orders/../x"),
            ("/agent", "a\nb"),
            ("/region", "-x"),
            ("/act/source/slot", "east'; DROP TABLE x"),
            ("/act/source/host", "db-west' user='x"),
            ("/act/source/host", "one,two"),
            ("/act/drop_slots/0", "A"),
        ] {
            let mut request = request();
            *request.pointer_mut(pointer).unwrap() = hostile.into();
            assert_eq!(read(&request).unwrap_err().kind, FaultKind::Refused, "{pointer} {hostile}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let mut newer = request();
        newer["version"] = 2.into();
        assert!(read(&newer).unwrap_err().detail.contains("version 2"));
        let mut unknown = request();
        unknown["force"] = true.into();
        assert_eq!(read(&unknown).unwrap_err().kind, FaultKind::Refused);
        let mut unknown = request();
        unknown["act"]["force"] = true.into();
        assert_eq!(read(&unknown).unwrap_err().kind, FaultKind::Refused);
    }
}
