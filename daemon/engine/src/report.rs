//! The report of a run, as a file that outlives the agent: every record of it, in order.

use std::path::Path;

use lifeboat_core::{Fault, FaultKind, Output, RunId, Stamped};
use serde::Serialize;

use crate::journal::Journal;

/// What the file holds.
#[derive(Serialize)]
struct Report<'a> {
    /// Raised when the meaning of a field changes.
    version: u32,
    run: &'a RunId,
    records: Vec<&'a Stamped>,
}

/// Writes `RUN.json` into the folder: complete, or not at all. Repeating it writes the same again. A folder
/// without a name is nowhere: nothing is written.
pub(crate) async fn write(journal: &Journal, folder: &Path, run: &RunId) -> Result<Output, Fault> {
    let cannot = |what: &str, error: &dyn std::fmt::Display| {
        Fault::new(FaultKind::Unclear, format!("cannot {what} the report in {}: {error}", folder.display()))
    };
    if folder.as_os_str().is_empty() {
        return Ok(Output::Reported);
    }
    let records = journal.records(0).await.map_err(|error| cannot("read the journal for", &error))?;
    let records = records.iter().filter(|stamped| stamped.record.run() == Some(run)).collect();
    let report = Report { version: 1, run, records };
    let text = serde_json::to_string_pretty(&report).map_err(|error| cannot("write", &error))?;
    let (folder, name) = (folder.to_owned(), run.as_str().to_owned());
    let written = tokio::task::spawn_blocking(move || place(&folder, &name, text.as_bytes()));
    match written.await {
        Ok(Ok(())) => Ok(Output::Reported),
        Ok(Err(error)) => Err(cannot("write", &error)),
        Err(error) => Err(cannot("write", &error)),
    }
}

/// Writes beside, flushes, renames, flushes the folder.
fn place(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;

    std::fs::create_dir_all(folder)?;
    let partial = folder.join(format!("{name}.json.partial"));
    let mut file = std::fs::File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&partial, folder.join(format!("{name}.json")))?;
    std::fs::File::open(folder)?.sync_all()
}
