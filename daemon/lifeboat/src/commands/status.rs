//! `lifeboat status`

use std::time::Duration;

use clap::Args;

use crate::api::Known;
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
                let taken = match client.known().await {
                    Ok(known) => self.show(&known),
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
    fn show(&self, known: &Known) -> bool {
        if self.format.json {
            return ui::json(known);
        }
        if self.watch {
            ui::clear();
        }
        let mut page = view::status::page(&known.status);
        for (n, backup) in known.backups.iter().enumerate() {
            page.push_str(if n == 0 { "\nbackups\n  " } else { "  " });
            page.push_str(&backup.line(known.status.at));
            page.push('\n');
        }
        ui::answer(page.trim_end())
    }
}
