//! What the host of a database knows: `host.toml`.
//!
//! **Invariant:** no password is in it: logins name a passfile.
//! **Invariant:** a file to keep is a name in the data folder, never a path out of it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::host::protocol::is_name;

/// The most bytes the file may have.
const LONGEST: u64 = 1 << 20;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of locks, epochs, and what was begun.
    pub state: PathBuf,
    /// Folder of what was salvaged.
    pub salvage: PathBuf,
    /// The servers of this host.
    #[serde(rename = "server")]
    pub servers: Vec<Server>,
}

/// One server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The database, as the agent names it.
    pub database: String,
    /// The data folder.
    pub data: PathBuf,
    /// The folder of PostgreSQL's programs.
    pub programs: PathBuf,
    /// postgresql.conf, when it is not in the data folder.
    pub settings: Option<PathBuf>,
    /// Starts the server, and ends. Default: `pg_ctl start`.
    pub start: Option<Vec<String>>,
    /// Stops the server, and ends. Default: `pg_ctl stop -m fast`.
    pub stop: Option<Vec<String>>,
    /// Connection string of a superuser's login on this machine.
    pub local: String,
    /// Connection string of the login on the new primary, without host and port.
    pub source: String,
    /// The same for `pg_rewind`; default: `source`.
    pub rewind: Option<String>,
    /// Files of the data folder that survive a rewind or a copy.
    #[serde(default = "own_files")]
    pub keep: Vec<String>,
    /// What the server calls itself at the new primary; default: the region.
    pub application_name: Option<String>,
    /// Whether it may be copied anew.
    #[serde(default = "yes")]
    pub rebuild: bool,
    /// How many old data folders stay after that.
    #[serde(default = "one")]
    pub kept_copies: usize,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not what a host.toml is.
    #[error("{} is no configuration of a host", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where, and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// It says what cannot be.
    #[error("{} cannot be used:\n  {}", path.display(), problems.join("\n  "))]
    Unsound {
        /// The file.
        path: PathBuf,
        /// Each with what to do.
        problems: Vec<String>,
    },
}

fn own_files() -> Vec<String> {
    ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"].map(str::to_owned).to_vec()
}

const fn yes() -> bool {
    true
}

const fn one() -> usize {
    1
}

impl Config {
    /// Reads the file, and says all that is wrong with it.
    ///
    /// # Errors
    /// When it cannot be read, is malformed, or says what cannot be.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        use std::io::Read;
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text).map_err(unreadable)?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Malformed { path: path.to_owned(), source: Box::new(error) })?;
        let problems = config.problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Unsound { path: path.to_owned(), problems })
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, folder) in [("state", &self.state), ("salvage", &self.salvage)] {
            if !folder.is_absolute() {
                problems.push(format!("{key} = {folder:?}: write the whole path, from /"));
            }
        }
        if self.servers.is_empty() {
            problems.push("there is no [[server]]: add one for each database of this host".to_owned());
        }
        for (index, server) in self.servers.iter().enumerate() {
            let name = &server.database;
            if self.servers[..index].iter().any(|other| other.database == *name || other.data == server.data)
            {
                problems.push(format!("[[server]] {name:?}: another has the same database or data folder"));
            }
            problems.extend(server.problems().into_iter().map(|said| format!("[[server]] {name:?}: {said}")));
            if [&self.state, &self.salvage].iter().any(|folder| folder.starts_with(&server.data)) {
                problems.push(format!(
                    "[[server]] {name:?}: state and salvage must not be in the data folder, which is replaced"
                ));
            }
        }
        problems
    }
}

impl Server {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !is_name(&self.database) {
            problems.push("database: use letters, digits, dots, dashes and underscores".to_owned());
        }
        let folders = [
            ("data", Some(&self.data)),
            ("programs", Some(&self.programs)),
            ("settings", self.settings.as_ref()),
        ];
        for (key, path) in folders {
            if path.is_some_and(|path| !path.is_absolute() || path.parent().is_none()) {
                problems.push(format!("{key}: write the whole path, from /"));
            }
        }
        for file in self.keep.iter().filter(|file| !is_name(file)) {
            problems.push(format!("keep has {file:?}: only names of files in the data folder can be kept"));
        }
        for (key, argv) in [("start", &self.start), ("stop", &self.stop)] {
            if argv.as_ref().is_some_and(Vec::is_empty) {
                problems.push(format!("{key} is empty: name a program, or leave it out for pg_ctl"));
            }
        }
        let source = [("source", Some(&self.source)), ("rewind", self.rewind.as_ref())];
        for (key, login) in source.into_iter().chain([("local", Some(&self.local))]) {
            let Some(login) = login else { continue };
            if login.contains("password") {
                problems.push(format!("{key} has a password: put it in a file and write passfile=FILE"));
            }
            if login.contains("://") || login.chars().any(char::is_control) {
                problems.push(format!("{key}: write it as key=value pairs on one line, not as a URL"));
            }
            let names_a_place = ["host", "hostaddr", "port"]
                .iter()
                .any(|word| login.split(['=', ' ']).any(|part| part == *word));
            if key != "local" && names_a_place {
                problems
                    .push(format!("{key} names a host or port: leave them out, the agent says where it is"));
            }
        }
        if self.application_name.as_ref().is_some_and(|name| !is_name(name)) {
            problems.push("application_name: use letters, digits, dots, dashes and underscores".to_owned());
        }
        problems
    }

    /// What `pg_rewind` logs in with at the new primary.
    pub(super) fn rewind_login(&self) -> &str {
        self.rewind.as_deref().unwrap_or(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../host.example.toml");

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("host.toml"))
    }

    #[test]
    fn the_example_is_sound() {
        let config = parse(EXAMPLE).unwrap();
        assert_eq!(config.servers[0].keep, own_files());
        assert!(config.servers[0].rewind_login().starts_with("user=rewinder"));
    }

    #[test]
    fn what_cannot_be_is_said_with_what_to_do() {
        for (was, is, said) in [
            ("\"pg_hba.conf\"", "\"../pg_hba.conf\"", "only names of files"),
            ("user=replicator", "user=replicator password=x", "passfile=FILE"),
            ("user=replicator", "host=elsewhere user=replicator", "the agent says where it is"),
            ("\"/var/lib/lifeboat-host\"", "\"state\"", "from /"),
            (
                "\"/var/lib/lifeboat-host\"",
                "\"/var/lib/postgresql/15/main/x\"",
                "must not be in the data folder",
            ),
            ("\"orders\"", "\"../orders\"", "letters, digits"),
        ] {
            let error = parse(&EXAMPLE.replacen(was, is, 1)).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let unknown = parse(&EXAMPLE.replacen("rebuild", "rebuilt", 1)).unwrap_err();
        assert!(matches!(unknown, ConfigError::Malformed { .. }));
    }
}
