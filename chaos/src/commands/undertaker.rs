//! `chaos undertaker`: what is left of a lab that was killed goes with it.

use std::path::PathBuf;

use lifeboat_chaos::undertaker;

/// Waits for the end of a lab and clears away what is left of it (the lab starts it).
#[derive(Debug, clap::Args)]
pub(crate) struct Undertaker {
    /// The lab's folder.
    #[arg(long)]
    lab: PathBuf,
    /// Leave the folder.
    #[arg(long)]
    keep: bool,
}

impl Undertaker {
    pub(crate) fn run(self) -> anyhow::Result<u8> {
        undertaker::serve(&self.lab, self.keep, std::io::stdin().lock())?;
        Ok(0)
    }
}
