//! `lifeboat backup expire`

use std::collections::BTreeMap;

use clap::Args;
use lifeboat_archive::retention::{self, Gone, Policy};
use lifeboat_config::wiring::RetentionWiring;
use lifeboat_engine::clock::Clock;
use serde::Serialize;

use super::gathered;
use crate::archives::{Which, failed, untethered, work};
use crate::cli::{Format, Place};
use crate::failure::{Exit, Failure};
use crate::ui;

/// Remove what is not kept any more: backups, and log that no kept one needs.
///
/// What is kept and why is said first. The plan is proven before anything is removed: every moment of the window, and the
/// last good backup, can be restored after it as before. With a backup that cannot be read nothing is removed (exit 5).
#[derive(Debug, Args)]
pub(crate) struct Expire {
    #[command(flatten)]
    which: Which,
    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// End when standard input does.
    #[arg(long, hide = true)]
    tethered: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Told<'a> {
    kept: &'a BTreeMap<String, std::collections::BTreeSet<retention::Why>>,
    expired: &'a [String],
    objects: usize,
    bytes: u64,
    dry_run: bool,
    left: Vec<String>,
}

/// The policy of an archive.
pub(crate) fn policy(kept: RetentionWiring) -> Policy {
    let RetentionWiring { window, hourly, daily, weekly, monthly, grace } = kept;
    Policy { window, hourly, daily, weekly, monthly, grace }
}

impl Expire {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let found = self.which.find(place, None)?;
        let removing = async {
            let (archive, gathered) = gathered(&found).await?;
            if let Some((backup, why)) = gathered.unreadable.first() {
                let text =
                    format!("nothing was removed: {backup} cannot be read, and what it needs is not known");
                return Err(Failure { causes: vec![why.to_string()], ..Failure::new(Exit::Refused, text) }
                    .hint("lifeboat backup verify"));
            }
            let now = Clock::start().now();
            let plan = retention::plan(&gathered.holdings, &policy(found.wiring.retention), now);
            let plan = plan.map_err(|error| {
                Failure::because(Exit::Refused, "the plan did not stand its proof", &error)
                    .hint("please report this")
            })?;
            let bytes: u64 = plan.remove.iter().filter_map(|(name, _)| gathered.sizes.get(name)).sum();
            if self.dry_run {
                return Ok((plan, bytes, None));
            }
            let removed = retention::carry_out(&archive, &plan, &gathered.sizes).await;
            let removed = removed.map_err(|error| failed("not all of it was removed", &error))?;
            Ok((plan, bytes, Some(removed)))
        };
        let (plan, bytes, removed) = work(async {
            tokio::select! {
                biased;
                done = removing => done,
                () = untethered(self.tethered) => {
                    Err(Failure::new(Exit::Failed, "the agent that began this has ended; it is gone on with later"))
                }
            }
        })?;
        let left: Vec<String> =
            removed.iter().flat_map(|removed| &removed.left).map(|(_, why)| why.to_string()).collect();
        if self.format.json {
            let (kept, expired, objects) = (&plan.kept, plan.expired.as_slice(), plan.remove.len());
            ui::json(&Told { kept, expired, objects, bytes, dry_run: self.dry_run, left });
            return Ok(Exit::Done);
        }
        for (backup, why) in &plan.kept {
            let why: Vec<_> = why.iter().map(ToString::to_string).collect();
            ui::answer(&format!("kept     {backup}  {}", why.join(", ")));
        }
        let word = if self.dry_run { "expires " } else { "expired " };
        for backup in &plan.expired {
            ui::answer(&format!("{word} {backup}"));
        }
        let of = |kinds: &[Gone]| plan.remove.iter().filter(|(_, why)| kinds.contains(why)).count() as u64;
        ui::answer(&format!(
            "{} {} ({}): {} of backups, {} of runs that were broken off, {} of log",
            ui::count(plan.remove.len() as u64, "object"),
            if self.dry_run { "would be removed" } else { "removed" },
            ui::bytes(bytes),
            of(&[Gone::Expired, Gone::Unneeded]),
            of(&[Gone::Leftover]),
            of(&[Gone::Log, Gone::Piece])
        ));
        for why in &left {
            ui::note(&format!("left for a later run: {why}"));
        }
        Ok(Exit::Done)
    }
}
