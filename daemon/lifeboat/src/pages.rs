//! The runbooks in force: the shipped pages, and those of the operator's folder in their place.
//!
//! **Invariant:** this is the only place that reads the folder; a page with a flaw stops everything that would use it.

use std::path::{Path, PathBuf};

use lifeboat_runbooks::{Flaw, Kind, Runbook, Runbooks, load, shipped};

use crate::failure::{Exit, Failure};
use crate::ui;

/// Longer files are not read: no page is that long.
const LONGEST: u64 = 1 << 20;

/// A page in force, and where it is from.
pub(crate) struct Page {
    /// What it says.
    pub(crate) runbook: Runbook,
    /// The operator's file; none: the page is shipped.
    pub(crate) file: Option<PathBuf>,
    /// The page as it was written.
    pub(crate) text: String,
}

/// The pages in force. All flaws of all pages of `folder` are printed, each with its line.
///
/// # Errors
/// When the folder or a page cannot be read, a page has a flaw, or two are of one kind.
pub(crate) fn in_force(folder: Option<&Path>) -> Result<Runbooks, Failure> {
    let mut runbooks = Runbooks::shipped().map_err(|flaws| unsound(&flaws))?;
    for page in all(folder)? {
        runbooks.replace(page.runbook);
    }
    Ok(runbooks)
}

/// The same, each with its text and its file, by kind.
///
/// # Errors
/// The same.
pub(crate) fn all(folder: Option<&Path>) -> Result<Vec<Page>, Failure> {
    let mut pages = Vec::new();
    for kind in Kind::ALL {
        let text = shipped(kind).to_owned();
        let runbook = load(&text).map_err(|flaws| unsound(&flaws))?;
        pages.push(Page { runbook, file: None, text });
    }
    let Some(folder) = folder else { return Ok(pages) };
    let mut bad = 0;
    for path in files(folder)? {
        let Ok(own) = judged(&path)? else {
            bad += 1;
            continue;
        };
        let Some(page) = pages.iter_mut().find(|page| page.runbook.kind == own.runbook.kind) else {
            continue;
        };
        if let Some(other) = &page.file {
            let (kind, here, there) = (own.runbook.kind, path.display(), other.display());
            ui::note(&format!("error: two pages are the {kind} page: {there} and {here}"));
            bad += 1;
            continue;
        }
        *page = own;
    }
    match bad {
        0 => Ok(pages),
        1 => Err(Failure::new(Exit::Config, format!("a page of {} cannot be used", folder.display()))),
        _ => Err(Failure::new(Exit::Config, format!("{bad} pages of {} cannot be used", folder.display()))),
    }
}

/// The page in `path`; or how many flaws it has, after they were printed.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn judged(path: &Path) -> Result<Result<Page, usize>, Failure> {
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
        Ok(runbook) => Ok(Ok(Page { runbook, file: Some(path.to_owned()), text })),
        Err(flaws) => {
            for flaw in &flaws {
                ui::note(&flaw.render(&path.display().to_string(), &text));
            }
            Ok(Err(flaws.len()))
        }
    }
}

fn unsound(flaws: &[Flaw]) -> Failure {
    let list: Vec<String> = flaws.iter().map(Flaw::to_string).collect();
    Failure::new(Exit::Config, format!("a shipped runbook is not sound: {}", list.join("; ")))
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
