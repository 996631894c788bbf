//! `lifeboat status`

use std::time::Duration;

use clap::Args;

use crate::cli::{Format, Place};
use crate::client::Client;
use crate::commands::talk;
use crate::failure::{Exit, Failure};
use crate::{ui, view};

/// Show what the agent sees: each workload, its regions, what would keep it from failing over.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Show it again every second, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    format: Format,
}

/// How often `--watch` looks.
const AGAIN: Duration = Duration::from_secs(1);

impl Status {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let client = Client::of(place)?;
        talk(async {
            loop {
                let taken = match client.status().await {
                    Ok(status) => self.show(&status),
                    // Watching outlives a restart of the agent.
                    Err(failure) if self.watch => {
                        ui::failure(&failure);
                        true
                    }
                    Err(failure) => return Err(failure),
                };
                if !self.watch || !taken {
                    return Ok(Exit::Done);
                }
                tokio::time::sleep(AGAIN).await;
            }
        })
    }

    /// Prints the status; says whether anyone took it.
    fn show(&self, status: &lifeboat_core::status::Status) -> bool {
        if self.format.json {
            return ui::json(status);
        }
        if self.watch {
            ui::clear();
        }
        ui::answer(view::status::page(status).trim_end())
    }
}
