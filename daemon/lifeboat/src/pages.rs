//! The runbooks in force: the shipped pages, and those of the operator's folder in their place.
//!
//! **Invariant:** this is the only place that reads the folder; a page with a flaw stops everything that would use it.

use std::path::{Path, PathBuf};

use lifeboat_runbooks::{Flaw, Kind, Runbooks, load};

use crate::failure::{Exit, Failure};
use crate::ui;

/// Longer files are not read: no page is that long.
const LONGEST: u64 = 1 << 20;

/// The pages in force. All flaws of all pages of `folder` are printed, each with its line.
///
/// # Errors
/// When the folder or a page cannot be read, a page has a flaw, or two are of one kind.
pub(crate) fn in_force(folder: Option<&Path>) -> Result<Runbooks, Failure> {
    let mut runbooks = Runbooks::shipped().map_err(|flaws| {
        let list: Vec<String> = flaws.iter().map(Flaw::to_string).collect();
        Failure::new(Exit::Config, format!("a shipped runbook is not sound: {}", list.join("; ")))
    })?;
    let Some(folder) = folder else { return Ok(runbooks) };
    let mut bad = 0;
    let mut taken: Vec<(Kind, PathBuf)> = Vec::new();
    for path in files(folder)? {
        let Some(page) = judged(&path)? else {
            bad += 1;
            continue;
        };
        if let Some((kind, other)) = taken.iter().find(|(kind, _)| *kind == page.kind) {
            let (here, there) = (path.display(), other.display());
            ui::note(&format!("error: two pages are the {kind} page: {there} and {here}"));
            bad += 1;
            continue;
        }
        taken.push((page.kind, path));
        runbooks.replace(page);
    }
    match bad {
        0 => Ok(runbooks),
        1 => Err(Failure::new(Exit::Config, format!("a page of {} cannot be used", folder.display()))),
        _ => Err(Failure::new(Exit::Config, format!("{bad} pages of {} cannot be used", folder.display()))),
    }
}

/// The page in `path`, or nothing after its flaws were printed.
fn judged(path: &Path) -> Result<Option<lifeboat_runbooks::Runbook>, Failure> {
    let failed = |error: &std::io::Error| {
        Failure::because(Exit::Config, format!("{} cannot be read", path.display()), error)
    };
    let metadata = path.metadata().map_err(|error| failed(&error))?;
    if !metadata.is_file() || metadata.len() > LONGEST {
        return Err(Failure::new(
            Exit::Config,
            format!("{} is no page: a file of at most 1 MiB", path.display()),
        ));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    match load(&text) {
        Ok(page) => Ok(Some(page)),
        Err(flaws) => {
            for flaw in flaws {
                ui::note(&flaw.render(&path.display().to_string(), &text));
            }
            Ok(None)
        }
    }
}

/// The pages of a folder, in the order of their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: &std::io::Error| {
        Failure::because(Exit::Config, format!("the runbooks in {} cannot be read", folder.display()), error)
            .hint("make the folder, or remove `runbooks` from [agent]")
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| failed(&error))? {
        let path = entry.map_err(|error| failed(&error))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
