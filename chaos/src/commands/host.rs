//! `chaos host`: a region's database host, from inside and outside.

use std::net::SocketAddr;
use std::path::PathBuf;

use lifeboat_chaos::host::{self, HostError, Order};
use lifeboat_chaos::{Region, Site};

use crate::ui;

/// Starts and stops a region's PostgreSQL, or runs a program beside it.
#[derive(Debug, clap::Args)]
pub(crate) struct Host {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// Is the region's host until it is killed (the lab starts it).
    #[command(hide = true)]
    Serve {
        /// The region: "east" or "west".
        region: Region,
        /// The lab's folder.
        #[arg(long)]
        lab: PathBuf,
        /// Where it takes calls of `chaos host exec`, as ADDRESS:PORT.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Starts PostgreSQL and exits 0 once it takes connections. Can be repeated. Exits 5, with nothing touched,
    /// when the region is powered off.
    Start {
        /// The region: "east" or "west".
        region: Region,
        /// The lab's folder.
        #[arg(long)]
        lab: PathBuf,
    },
    /// Stops PostgreSQL fast and exits 0 once it is gone. Can be repeated.
    Stop {
        /// The region: "east" or "west".
        region: Region,
        /// The lab's folder.
        #[arg(long)]
        lab: PathBuf,
    },
    /// Runs a program on the host as the database's user, as ssh would: with this command's standard input, output
    /// and error, and its exit code; 255 when the region is off, lost or cut off.
    Exec {
        /// The region: "east" or "west".
        region: Region,
        /// The lab's folder.
        #[arg(long)]
        lab: PathBuf,
        /// The site whose agent asks: over its paths, not the operator's.
        #[arg(long)]
        from: Option<Site>,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
}

impl Host {
    /// What runs on the process's first thread alone, without the runtime of the other commands: the host, whose
    /// children die with the thread that started them, and exec, which waits for its input with that thread.
    pub(crate) fn alone(self) -> Result<u8, Host> {
        match self.act {
            Act::Serve { region, lab, listen } => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let served = runtime
                    .map_err(anyhow::Error::from)
                    .and_then(|runtime| Ok(runtime.block_on(host::serve(&lab, region, listen))?));
                Ok(served.map_or_else(
                    |error| {
                        ui::failed(&error);
                        1
                    },
                    |()| 0,
                ))
            }
            Act::Exec { region, lab, from, argv } => {
                Ok(host::exec(&lab, from, region, argv, &mut std::io::stderr().lock()))
            }
            act => Err(Host { act }),
        }
    }

    pub(crate) async fn run(self) -> anyhow::Result<u8> {
        let (lab, region, order) = match self.act {
            Act::Start { region, lab } => (lab, region, Order::Start),
            Act::Stop { region, lab } => (lab, region, Order::Stop),
            Act::Serve { .. } | Act::Exec { .. } => anyhow::bail!("runs alone"),
        };
        match host::order(&lab, region, order).await {
            Ok(Some(pid)) => ui::line(&format!("PostgreSQL of {region} runs as process {pid}")),
            Ok(None) => ui::line(&format!("PostgreSQL of {region} is stopped")),
            Err(error @ HostError::PoweredOff { .. }) => {
                ui::failed(&error.into());
                return Ok(5);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(0)
    }
}
