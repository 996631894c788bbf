//! `chaos power`: the power controller of the lab, as lifeboat's fence command calls it.

use std::path::PathBuf;

use lifeboat_chaos::Region;
use lifeboat_chaos::power::{self, PowerError};

use crate::ui;

/// Powers a region of a running lab off or on.
#[derive(Debug, clap::Args)]
pub(crate) struct Power {
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, clap::Subcommand)]
enum Order {
    /// Kills every process of a region; exits 0 only once none is left. Can be repeated. Exits 5, with nothing
    /// touched, when an order of a newer epoch was carried out before.
    Off {
        /// The region: "east" or "west".
        region: Region,
        /// The lab's folder.
        #[arg(long)]
        lab: PathBuf,
        /// The epoch of this order.
        #[arg(long)]
        epoch: u64,
    },
    /// Lets the lab start a region again. Starts nothing by itself.
    On {
        /// The region: "east" or "west".
        region: Region,
        /// The lab's folder.
        #[arg(long)]
        lab: PathBuf,
    },
}

impl Power {
    pub(crate) fn run(self) -> anyhow::Result<u8> {
        match self.order {
            Order::Off { region, lab, epoch } => match power::off(&lab, region, epoch) {
                Ok(killed) => {
                    ui::line(&format!(
                        "{region} is off under epoch {epoch}; processes killed now: {}",
                        killed.len()
                    ));
                    Ok(0)
                }
                Err(error @ PowerError::Stale { .. }) => {
                    ui::failed(&error.into());
                    Ok(5)
                }
                Err(error) => Err(error.into()),
            },
            Order::On { region, lab } => {
                power::on(&lab, region)?;
                ui::line(&format!("{region} may be started again"));
                Ok(0)
            }
        }
    }
}
