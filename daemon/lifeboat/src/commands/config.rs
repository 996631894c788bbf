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
        let _taken = match self {
            Self::Schema => ui::json(&lifeboat_config::schema()),
            Self::Show(format) => {
                let loaded = load(&place.config)?;
                report(&loaded.warnings);
                let text = if format.json {
                    loaded.effective_json().map_err(|error| unwritable("JSON", &error))?
                } else {
                    loaded.effective_toml().map_err(|error| unwritable("TOML", &error))?
                };
                ui::answer(text.trim_end())
            }
        };
        Ok(Exit::Done)
    }
}

fn unwritable(form: &str, error: &dyn std::error::Error) -> Failure {
    Failure::because(Exit::Failed, format!("the configuration cannot be written as {form}"), error)
}
