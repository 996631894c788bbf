//! `lifeboat backup`

mod expire;
mod listing;
mod run;
mod verify;

use clap::Subcommand;
use lifeboat_archive::retention::Gathered;

use crate::archives::{Found, failed};
use crate::cli::Place;
use crate::failure::{Exit, Failure};

/// Make backups, list them, read them back, and remove what is not kept any more.
///
/// DATABASE is WORKLOAD/DATABASE, or WORKLOAD when it has one.
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    Run(run::Run),
    List(listing::List),
    Show(listing::Show),
    Verify(verify::Verify),
    Expire(expire::Expire),
}

impl Backup {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        match self {
            Self::Run(run) => run.run(place),
            Self::List(list) => list.run(place),
            Self::Show(show) => show.run(place),
            Self::Verify(verify) => verify.run(place),
            Self::Expire(expire) => expire.run(place),
        }
    }
}

/// What is in the archive.
async fn gathered(found: &Found) -> Result<(lifeboat_archive::Archive, Gathered), Failure> {
    let archive = found.open().await?;
    let gathered = lifeboat_archive::retention::gather(&archive).await;
    let text = || format!("the archive {} cannot be listed", found.name);
    Ok((archive, gathered.map_err(|error| failed(text(), &error))?))
}

/// The clusters that an archive has log of.
pub(crate) async fn clusters(
    archive: &lifeboat_archive::Archive,
) -> Result<std::collections::BTreeSet<lifeboat_core::SystemIdentifier>, lifeboat_archive::Trouble> {
    let (mut found, mut after) = (std::collections::BTreeSet::new(), None);
    loop {
        let page = archive.store().list("wal/", after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.name.clone());
        let systems = page.iter().filter_map(|listed| listed.name.as_str().split('/').nth(1));
        let number = |text| u64::from_str_radix(text, 16).ok().map(lifeboat_core::SystemIdentifier::new);
        found.extend(systems.filter_map(number));
    }
}
