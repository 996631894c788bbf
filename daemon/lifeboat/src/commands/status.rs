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
                let status = client.status().await?;
                if self.watch && !self.format.json {
                    ui::clear();
                }
                if self.format.json {
                    ui::json(&status);
                } else {
                    ui::answer(view::status::page(&status).trim_end());
                }
                if !self.watch {
                    return Ok(Exit::Done);
                }
                tokio::time::sleep(AGAIN).await;
            }
        })
    }
}
