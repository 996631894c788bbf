//! `lifeboat config show|schema`

use clap::Subcommand;

use crate::cli::{Format, Place};
use crate::commands::{load, report};
use crate::failure::{Exit, Failure};
use crate::ui;

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show the configuration with every default filled in. It holds no secrets, only where they are.
    Show(Format),
    /// Print the JSON Schema of lifeboat.toml, for editors and CI.
    Schema,
}

impl Config {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        match self {
            Self::Schema => ui::json(&lifeboat_config::schema()),
            Self::Show(format) => {
                let loaded = load(&place.config)?;
                report(&loaded.warnings);
                if format.json {
                    ui::json(&loaded.document);
                } else {
                    let text = toml::to_string_pretty(&loaded.document);
                    let text = text
                        .map_err(|error| Failure::because(Exit::Failed, "cannot write it as TOML", &error))?;
                    ui::answer(text.trim_end());
                }
            }
        }
        Ok(Exit::Done)
    }
}
