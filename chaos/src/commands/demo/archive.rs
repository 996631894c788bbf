//! The archive: filled before the loss, and the database restored from it afterwards.

use std::time::Instant;

use lifeboat_chaos::canary::ledger::Ledger;
use lifeboat_chaos::html::{counted, spoken};
use lifeboat_chaos::report::archive::Archive;
use lifeboat_chaos::{Lab, Region};

use crate::ui::{Stage, Tone};

/// The timeline of the region that is lost: the first.
const TIMELINE: u32 = 1;

/// Makes the archive, waits until the log is received into it, and makes the first base backup; how many bytes that read.
pub(super) async fn fill(stage: &mut Stage, lab: &Lab) -> anyhow::Result<u64> {
    let began = Instant::now();
    stage.update("making an archive; receiving the log; a first base backup".to_owned());
    lab.make_archive().await?;
    lab.log_received().await?;
    let done = lab.back_up().await?;
    let source = done["sums"]["source"].as_u64().unwrap_or_default();
    let stored = megabytes(lab.archived_bytes());
    stage.done(
        &format!("{} backed up into {stored}, encrypted; the log follows", megabytes(source)),
        began.elapsed(),
    );
    Ok(source)
}

/// Restores the database to the moment of the loss, and says what is missing.
pub(super) async fn show(
    stage: &mut Stage,
    lab: &Lab,
    ledger: &Ledger,
    reference: &str,
    (objective, source): (u64, u64),
) -> Archive {
    stage.say(
        &stage.paint(Tone::Strong, "  And from the archive: the database as it was when east was lost."),
    );
    stage.say("");
    stage.move_line("restoring from a copy of the archive and its key");
    let stored_bytes = lab.archived_bytes();
    let restored = lab.restore(TIMELINE).await;
    stage.still();
    let archive = match restored {
        Ok(restored) => Archive {
            stored_bytes,
            source_bytes: source,
            ..Archive::judge(&restored, ledger, Region::East, objective, reference)
        },
        Err(error) => Archive {
            stuck: Some(error.to_string()),
            stored_bytes,
            source_bytes: source,
            ..Archive::default()
        },
    };
    let text = match &archive.stuck {
        Some(stuck) => format!("  not restored: {stuck}"),
        None => format!(
            "  restored    {:>9}  {} from {} of objects; {} of {} acknowledged orders missing, RPO held {}; reference {}",
            spoken(archive.restore_ms),
            megabytes(archive.source_bytes),
            megabytes(archive.stored_bytes),
            counted(archive.rows_missing),
            counted(archive.acknowledged_writes),
            spoken(archive.rpo_held_ms),
            if archive.reference_intact { "intact" } else { "CHANGED" },
        ),
    };
    stage.say(&stage.paint(if archive.ok() { Tone::Good } else { Tone::Bad }, &text));
    stage.say("");
    archive
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}
