//! What a sentry knows: `sentry.toml`.
//!
//! **Invariant:** no secret is in it: keys and passwords are named by their files.
//! **Invariant:** all that is wrong with the file is said at once.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_core::{AgentName, RegionName, WorkloadName};
use serde::Deserialize;

use crate::guard::Orders;
use crate::server::Server;
use crate::status::remembered;
use crate::stop::Order;
use crate::trouble::Trouble;

/// The most bytes the file may have.
const LONGEST: u64 = 1 << 20;

/// The shortest lease: several round trips to the coordinator must fit into it.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

/// The margin is this part of the lease, within these bounds.
const MARGIN_PART: u32 = 6;
const MARGIN_BOUNDS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(3));

/// How much of the margin is for the signals, when a command of the operator's comes first.
const SIGNALS: Duration = Duration::from_millis(200);

/// The longest path of a socket, `sun_path` of `unix(7)` less its end.
const LONGEST_SOCKET: usize = 107;

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    workload: String,
    region: String,
    data: PathBuf,
    state: PathBuf,
    key_file: PathBuf,
    length: Text,
    #[serde(default)]
    grace: Text,
    margin: Option<Text>,
    #[serde(default)]
    stop: Vec<String>,
    stop_limit: Option<Text>,
    lease: toml::Table,
    #[serde(default)]
    agents: Vec<WrittenAgent>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenAgent {
    name: String,
    address: String,
    key: String,
}

/// A length of time with its unit.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "String")]
struct Text(Duration);

impl TryFrom<String> for Text {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let units = [("ms", 1), ("s", 1_000), ("m", 60_000)];
        let read = |(unit, millis): (&str, u64)| {
            let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
            number.checked_mul(millis).map(Duration::from_millis)
        };
        let length = units.into_iter().find_map(read);
        length.map(Self).ok_or_else(|| format!("`{text}` is not a duration: write 500ms, 10s or 2m"))
    }
}

/// An agent that is asked when the coordinator is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its name.
    pub name: AgentName,
    /// Where it listens, `host:port`.
    pub address: String,
    /// Its public key, in base64.
    pub key: String,
}

/// What a sentry knows.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The workload.
    pub workload: WorkloadName,
    /// The region of the database beside it.
    pub region: RegionName,
    /// The database's data folder.
    pub data: PathBuf,
    /// Where it keeps what a new keeper must find.
    pub state: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// How long a lease lasts that is not renewed.
    pub length: Duration,
    /// How long before its end the database is stopped.
    pub margin: Duration,
    /// How long a primary may go on while no lease was ever held here.
    pub grace: Duration,
    /// The operator's command that stops the database; empty when signals do.
    pub stop: Vec<String>,
    /// How long that is given.
    pub stop_limit: Duration,
    /// How the coordinator is reached; whoever reaches it knows what is in it.
    pub lease: toml::Table,
    /// All agents.
    pub agents: Vec<Agent>,
}

impl Settings {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or says what cannot be.
    pub fn load(path: &Path) -> Result<Self, Trouble> {
        let mut text = String::new();
        let file = fs::File::open(path).map_err(|error| Trouble::at(path, error))?;
        file.take(LONGEST).read_to_string(&mut text).map_err(|error| Trouble::at(path, error))?;
        Self::parse(&text).map_err(|why| Trouble::Settings { path: path.to_owned(), why })
    }

    /// Takes in the text of one.
    ///
    /// # Errors
    /// All that is wrong with it, a line each.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.to_string())?;
        let length = written.length.0;
        let (least, most) = MARGIN_BOUNDS;
        let margin = written.margin.map_or((length / MARGIN_PART).clamp(least, most), |margin| margin.0);
        let stop_limit = written.stop_limit.map_or(margin.saturating_sub(SIGNALS), |limit| limit.0);
        let agent = |agent: WrittenAgent| Agent {
            name: AgentName::new(agent.name),
            address: agent.address,
            key: agent.key,
        };
        let settings = Self {
            workload: WorkloadName::new(written.workload),
            region: RegionName::new(written.region),
            data: written.data,
            state: written.state,
            key_file: written.key_file,
            length,
            margin,
            grace: written.grace.0,
            stop: written.stop,
            stop_limit,
            lease: written.lease,
            agents: written.agents.into_iter().map(agent).collect(),
        };
        let wrong = settings.wrong();
        if wrong.is_empty() { Ok(settings) } else { Err(wrong.join("\n")) }
    }

    /// The name that it signs with.
    pub fn name(&self) -> AgentName {
        name(&self.region)
    }

    /// What its guards know.
    pub(crate) fn orders(&self) -> Orders {
        let order = Order { argv: self.stop.clone(), limit: self.stop_limit };
        let grace = remembered(&self.state).map_or(self.grace, |_| Duration::ZERO);
        Orders {
            server: Server::new(&self.data),
            // The keeper says sooner what is to be done; this is for when there is no keeper to say it.
            allowance: grace + self.length,
            stop: (!self.stop.is_empty()).then_some(order),
        }
    }

    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut unless = |right: bool, why: String| {
            if !right {
                wrong.push(why);
            }
        };
        unless(!self.workload.as_str().is_empty(), "workload: a name is missing".to_owned());
        unless(!self.region.as_str().is_empty(), "region: a name is missing".to_owned());
        for (key, path) in [("data", &self.data), ("state", &self.state), ("key_file", &self.key_file)] {
            unless(path.is_absolute(), format!("{key}: `{}` is not an absolute path", path.display()));
        }
        let socket = crate::switch::socket(&self.state).as_os_str().len();
        unless(
            socket <= LONGEST_SOCKET,
            format!("state: the path is too long for a socket in it ({socket} bytes)"),
        );
        unless(!self.state.starts_with(&self.data), "state: it must not be in the data folder".to_owned());
        let shortest = SHORTEST_LEASE;
        unless(self.length >= shortest, format!("length: shorter than {} ms", shortest.as_millis()));
        unless(self.margin <= self.length / 2, "margin: more than half of the length".to_owned());
        let commanded = self.stop.is_empty() || self.stop_limit + SIGNALS <= self.margin;
        unless(
            commanded,
            format!(
                "stop_limit: with {} ms for signals after it, it is longer than the margin ({} ms); raise `margin`",
                SIGNALS.as_millis(),
                self.margin.as_millis()
            ),
        );
        let program = self.stop.first().is_none_or(|program| !program.is_empty());
        unless(program, "stop: the program is missing".to_owned());
        let names: BTreeSet<_> = self.agents.iter().map(|agent| &agent.name).collect();
        unless(names.len() == self.agents.len(), "agents: a name is there twice".to_owned());
        for agent in &self.agents {
            let port = agent.address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            unless(port.is_some(), format!("agents: `{}` is not host:port", agent.address));
        }
        wrong
    }
}

/// What the sentry of a region is called among the agents.
pub fn name(region: &RegionName) -> AgentName {
    AgentName::new(format!("sentry-{region}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../sentry.example.toml");

    #[test]
    fn the_example_is_right() {
        let settings = Settings::parse(EXAMPLE).unwrap();
        assert_eq!(settings.length, Duration::from_secs(10));
        assert_eq!(settings.grace, Duration::ZERO);
        assert_eq!(settings.name().as_str(), "sentry-east");
        assert_eq!(settings.agents.len(), 3);
        assert!(settings.margin < settings.length);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let text = EXAMPLE
            .replace("length = \"10s\"", "length = \"500ms\"\nmargin = \"400ms\"")
            .replace("data = \"/", "data = \"")
            .replace("10.1.0.10:7412", "10.1.0.10");
        let why = Settings::parse(&text).unwrap_err();
        for part in
            ["data:", "length: shorter than 1000 ms", "margin: more than half", "10.1.0.10` is not host:port"]
        {
            assert!(why.contains(part), "{part} is not in: {why}");
        }
        let unknown = Settings::parse(&EXAMPLE.replace("grace =", "grase =")).unwrap_err();
        assert!(unknown.contains("grase"), "{unknown}");
        let unit = Settings::parse(&EXAMPLE.replace("\"10s\"", "\"10\"")).unwrap_err();
        assert!(unit.contains("500ms, 10s or 2m"), "{unit}");
    }

    #[test]
    fn a_command_must_leave_time_for_signals() {
        let text = EXAMPLE.replace("grace =", "stop = [\"/bin/true\"]\nstop_limit = \"2s\"\ngrace =");
        assert!(Settings::parse(&text).unwrap_err().contains("raise `margin`"));
        let text = text.replace("grace =", "margin = \"3s\"\ngrace =");
        assert_eq!(Settings::parse(&text).unwrap().stop_limit, Duration::from_secs(2));
    }
}
