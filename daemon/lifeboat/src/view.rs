//! Answers as pages for people.

pub(crate) mod council;
pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod plan;
pub(crate) mod runbook;
pub(crate) mod status;
