//! `lifeboat wal`

mod files;
mod receive;
mod status;

use clap::Subcommand;

pub(crate) use files::ENDS_RECOVERY;

use crate::cli::Place;
use crate::failure::{Exit, Failure};

/// Bring a database's log into an archive as it is written, and give it back to a server that recovers.
#[derive(Debug, Subcommand)]
pub(crate) enum Wal {
    Receive(receive::Receive),
    Push(files::Push),
    Get(files::Get),
    Status(status::Status),
}

impl Wal {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        match self {
            Self::Receive(receive) => receive.run(place),
            Self::Push(push) => push.run(place),
            Self::Get(get) => get.run(place),
            Self::Status(status) => status.run(place),
        }
    }
}
