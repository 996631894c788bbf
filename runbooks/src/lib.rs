//! What a procedure says: runbook pages and the closed grammar of their steps.
//!
//! A runbook speaks of roles (the old primary, the target), never of regions or vendors by name. It is
//! read, checked as a whole and handed on; what it means for one workload is the planner's business.
//!
//! **Invariant:** no time is read and nothing but the text given is looked at.
//! **Invariant:** a page that loads promotes only after a fence: a promotion without `fenced` among its
//! needs is an error of the page.

mod check;
mod flaw;
mod page;
mod place;
mod with;
mod written;

use std::collections::BTreeMap;

pub use flaw::{Flaw, FlawKind};
pub use page::{Deed, Fact, Kind, Runbook, Step, Undo, When};
pub use with::{HttpWith, RunWith, Side, SqlWith, TextWith, WaitWith, With};

/// The shipped failover runbook.
pub const FAILOVER: &str = include_str!("../failover.toml");
/// The shipped switchover runbook.
pub const SWITCHOVER: &str = include_str!("../switchover.toml");
/// The shipped failback runbook.
pub const FAILBACK: &str = include_str!("../failback.toml");
/// The shipped rejoin runbook.
pub const REJOIN: &str = include_str!("../rejoin.toml");

/// The shipped page for a kind of procedure.
pub const fn shipped(kind: Kind) -> &'static str {
    match kind {
        Kind::Failover => FAILOVER,
        Kind::Switchover => SWITCHOVER,
        Kind::Failback => FAILBACK,
        Kind::Rejoin => REJOIN,
    }
}

/// The page in force for each kind of procedure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runbooks {
    pages: BTreeMap<Kind, Runbook>,
}

impl Runbooks {
    /// The shipped pages.
    ///
    /// # Errors
    /// The flaws of a shipped page, which the tests of this crate rule out.
    pub fn shipped() -> Result<Self, Vec<Flaw>> {
        let pages = Kind::ALL.map(|kind| load(shipped(kind)).map(|page| (kind, page)));
        let pages = pages.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { pages })
    }

    /// Puts an operator's page in the place of the shipped one of its kind.
    pub fn replace(&mut self, page: Runbook) {
        self.pages.insert(page.kind, page);
    }

    /// The page for a kind.
    pub fn page(&self, kind: Kind) -> &Runbook {
        &self.pages[&kind]
    }

    /// All pages, by kind.
    pub fn pages(&self) -> impl Iterator<Item = &Runbook> {
        self.pages.values()
    }
}

/// Reads and checks a page; all flaws are reported at once, in the order of the text. What the steps mean together
/// is judged when all of them could be read.
///
/// # Errors
/// Each [`Flaw`] names what is wrong and where; [`Flaw::render`] shows it with its line.
pub fn load(text: &str) -> Result<Runbook, Vec<Flaw>> {
    let written::Reading { page, steps, mut flaws } = written::read(text);
    let places = written::places(text);
    if let Some((kind, steps)) = &steps {
        flaws.extend(check::alone(*kind, steps, &places));
    }
    if let Some(page) = &page {
        flaws.extend(check::together(page, &places));
    }
    flaws.sort_by_key(|flaw| (flaw.line, flaw.column));
    match page {
        Some(page) if flaws.is_empty() => Ok(page),
        _ => Err(flaws),
    }
}
