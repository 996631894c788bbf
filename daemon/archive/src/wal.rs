//! Continuous WAL: written as it is received, read back for recovery, and its gaps known by name.
//!
//! PostgreSQL is not known here: bytes come in with their LSN, and files go out.
//!
//! | | |
//! |---|---|
//! | [`WalWriter`] | stores a stream: whole segments, and pieces of the segment that is not full yet |
//! | [`push_segment`], [`push_history`] | store what `archive_command` hands over |
//! | [`get`] | gives `restore_command` what it asks for |
//! | [`survey`] | what is there: ranges, gaps, branches |
//! | [`tidy`] | removes the pieces of segments that are whole |
//!
//! **Invariant:** an LSN is called durable only when every byte before it is, back to where the writer began.
//! **Invariant:** what is there is never replaced: other content under the same name is [`Trouble::Conflict`].
//! **Invariant:** that something is not there is only said when the archive was asked and said so.

mod collected;
mod driver;
mod fetch;
mod history;
mod map;
mod names;
mod objects;
mod prefix;
mod push;
mod ranges;
mod sealing;
mod spool;
mod tidy;
mod writer;

pub use fetch::{Got, TROUBLE_EXIT, get, get_ahead};
pub use history::{Branch, parse_history};
pub use map::{Base, Newest, Reach, ReachError, Stop, Target, TimelineMap, WalMap, survey};
pub use names::{SegmentName, SegmentSize};
pub use objects::WalLabel;
pub use push::{push_file, push_history, push_segment, put_history, system_of};
pub use ranges::{Gap, Stretch};
pub use spool::Spool;
pub use tidy::{Tidied, tidy};
pub use writer::{Held, Pressure, WalOptions, WalWriter};

#[cfg(doc)]
use crate::Trouble;
