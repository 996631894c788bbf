//! `lifeboat key`

use std::os::unix::fs::DirBuilderExt;

use clap::Args;
use lifeboat_config::Signer;
use serde::Serialize;

use crate::cli::{Format, Place};
use crate::commands::report;
use crate::failure::{Exit, Failure};
use crate::ui;

/// Print the public key of this agent, for [[agents]] in every agent's configuration; makes the key when it is missing.
///
/// The key file is `agent.key_file` (default: "agent.key" in the state folder), for its owner alone. It never leaves this
/// machine; what this agent says is believed by the public key. Run it as the agent's user.
#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(flatten)]
    format: Format,
}

/// A public key and whose it is.
#[derive(Serialize)]
struct Shown<'a> {
    agent: &'a str,
    public_key: &'a str,
    key_file: &'a std::path::Path,
}

impl Key {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let signer = Signer::load(&place.config).map_err(|problems| {
            report(&problems);
            Failure::new(Exit::Config, format!("{} does not say which agent this is", place.config.display()))
        })?;
        let file = signer.key_file.display();
        // The state folder is made as the agent would make it.
        if let Some(folder) = signer.key_file.parent() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| {
                Failure::because(Exit::Failed, format!("the key cannot be kept in {file}"), &error)
            })?;
        }
        let public_key = lifeboat_lease::seal::public_key(&signer.key_file).map_err(|error| {
            Failure::because(Exit::Failed, format!("the key in {file} cannot be used"), &error)
        })?;
        let _taken = if self.format.json {
            let (agent, public_key) = (signer.name.as_str(), public_key.as_str());
            ui::json(&Shown { agent, public_key, key_file: &signer.key_file })
        } else {
            ui::answer(&public_key)
        };
        Ok(Exit::Done)
    }
}
