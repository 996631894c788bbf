//! What a backup, one of what has not changed, and a restore of a folder take: `tree_backup DIR ARCHIVE [SCRATCH]`.

#![expect(clippy::print_stdout, reason = "it is what it is for")]

#[path = "../tests/grove/tree.rs"]
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use lifeboat_archive::folder::Folder;
use lifeboat_archive::keys::KeyFile;
use lifeboat_archive::restore::Options;
use lifeboat_archive::{Archive, Plan, Trouble};
use lifeboat_core::SystemIdentifier;
use lifeboat_engine::clock::Clock;

/// Processor seconds of this process, and the most memory it has had, in MiB.
fn spent() -> (f64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default();
    ((ticks(11) + ticks(12)) / 100.0, peak / 1024)
}

struct Stretch {
    began: Instant,
    cpu: f64,
}

impl Stretch {
    fn begin() -> Self {
        // The highest memory is counted anew from here on.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { began: Instant::now(), cpu: spent().0 }
    }

    fn end(&self, what: &str, bytes: u64, more: &str) {
        let (cpu, peak) = spent();
        let wall = self.began.elapsed().as_secs_f64();
        println!(
            "{what:10} {:7.1} MB  {wall:6.2} s  {:7.1} MB/s  cpu {:5.2} s  rss {peak} MiB  {more}",
            bytes as f64 / 1e6,
            bytes as f64 / 1e6 / wall,
            cpu - self.cpu
        );
    }
}

#[tokio::main]
async fn main() -> Result<(), Trouble> {
    let mut words = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(place)) = (words.next(), words.next()) else {
        println!("tree_backup DIR ARCHIVE [SCRATCH]");
        return Ok(());
    };
    let key = place.with_extension("key");
    let key = if key.exists() { KeyFile::open(&key)? } else { KeyFile::make(&key)? };
    let store = Arc::new(Folder::open(&place)?);
    let archive = match Archive::open(store.clone(), &key).await {
        Err(Trouble::NoArchive(_)) => Archive::init(store, &key).await?,
        archive => archive?,
    };
    let clock = Clock::start();
    let system = system_of(&folder);
    let mut previous = None;
    for what in ["backup", "unchanged"] {
        let stretch = Stretch::begin();
        let done = tree::store(&archive, &folder, system, clock.now(), previous.as_ref()).await?;
        let sums = done.sums;
        let more = format!(
            "stored {:.1} MB in {} objects, {} files, new {:.1} MB",
            sums.stored as f64 / 1e6,
            sums.objects,
            sums.files,
            sums.new as f64 / 1e6
        );
        stretch.end(what, sums.source, &more);
        previous = Some(done.backup);
    }
    let Some(backup) = previous else { return Ok(()) };
    if let Some(scratch) = words.next() {
        restore(&archive, system, &backup, &scratch).await?;
    }
    Ok(())
}

/// The system identifier of the cluster in a folder, so that it can be restored over itself; one of nobody's without one.
fn system_of(folder: &Path) -> SystemIdentifier {
    let control = std::fs::read(folder.join("global/pg_control")).unwrap_or_default();
    SystemIdentifier::new(control.first_chunk().map_or(7, |bytes| u64::from_ne_bytes(*bytes)))
}

async fn restore(
    archive: &Archive,
    system: SystemIdentifier,
    backup: &lifeboat_archive::BackupId,
    to: &Path,
) -> Result<(), Trouble> {
    for what in ["restore", "delta"] {
        let stretch = Stretch::begin();
        let plan = Plan::of(archive, system, backup).await?;
        let options = Options { delta: what == "delta", ..Options::default() };
        let done = plan.run(to, &options, Arc::new(|_| {})).await?;
        stretch.end(what, done.bytes, &format!("kept {:.1} MB", done.kept as f64 / 1e6));
    }
    Ok(())
}
