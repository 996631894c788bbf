//! `lifeboat runbook check`

use std::path::PathBuf;

use clap::Args;

use crate::cli::Place;
use crate::commands::load;
use crate::failure::{Exit, Failure};
use crate::{pages, ui};

/// Say what is wrong with runbook pages, all at once, each flaw with its line and a caret.
///
/// With files, those are judged and no configuration is read, so it can run in CI; without, all pages in force are.
/// Exit 0 when there is no flaw, 3 when there is one.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The pages to judge [default: all in force].
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Check {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        if self.files.is_empty() {
            let folder = load(&place.config)?.config.wiring.agent.runbooks;
            sound(pages::all(folder.as_deref())?.len());
            return Ok(Exit::Done);
        }
        let (mut flaws, mut bad) = (0, 0);
        for file in &self.files {
            match pages::judged(file) {
                Ok(Ok(_)) => continue,
                Ok(Err(found)) => flaws += found,
                // The other files are judged all the same.
                Err(failure) => {
                    ui::note(&format!("{failure}\n"));
                    flaws += 1;
                }
            }
            bad += 1;
        }
        if bad == 0 {
            sound(self.files.len());
            return Ok(Exit::Done);
        }
        let flaws = counted(flaws, "flaw");
        let of = self.files.len();
        Err(Failure::new(Exit::Config, format!("{flaws} in {bad} of {}", counted(of, "page"))))
    }
}

fn sound(pages: usize) {
    ui::answer(&format!("{}, no flaws", counted(pages, "page")));
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
