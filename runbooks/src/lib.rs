//! What a procedure says: runbook pages and the closed grammar of their steps.
//!
//! A runbook speaks of roles (the old primary, the target), never of regions or vendors by name. It is
//! read, checked as a whole and handed on; what it means for one workload is the planner's business.
//!
//! **Invariant:** no time is read and nothing but the text given is looked at.
//! **Invariant:** a page that loads promotes only after a fence: a promotion without `fenced` among its
//! needs is an error of the page.

mod check;
mod page;

pub use check::{Flaw, FlawKind};
pub use page::{Deed, Fact, Runbook, Step};

/// The shipped failover runbook.
pub const FAILOVER: &str = include_str!("../failover.toml");

/// Reads and checks a page; all flaws are reported at once.
///
/// # Errors
/// Each [`Flaw`] names what is wrong and the line it is on.
pub fn load(text: &str) -> Result<Runbook, Vec<Flaw>> {
    let page = page::parse(text).map_err(|flaw| vec![flaw])?;
    let flaws = check::flaws(&page, text);
    if flaws.is_empty() { Ok(page) } else { Err(flaws) }
}
