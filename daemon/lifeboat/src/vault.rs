//! Bytes on their way between a server and an archive: runs of their own, in processes of their own.
//!
//! The archive knows no PostgreSQL client, and the client no archive; what one gives the other takes is put together here.
//!
//! **Invariant:** the server is told that WAL is flushed only after the archive has called it durable.
//! **Invariant:** a backup is complete only when the WAL that makes it consistent is in the archive.

pub(crate) mod base;
pub(crate) mod servers;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
mod trouble;

pub(crate) use trouble::Trouble;

use lifeboat_archive::wal::SegmentSize;
use lifeboat_postgres::replication::Replication;

/// How long the server's WAL segments are.
async fn segment_size(server: &mut Replication) -> Result<SegmentSize, Trouble> {
    let text = server.show("wal_segment_size").await?;
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit: u64 = match &text[digits.len()..] {
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "kB" => 1 << 10,
        _ => 1,
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    let size = bytes.and_then(SegmentSize::new);
    size.ok_or_else(|| Trouble::Odd(format!("the server says that wal_segment_size is `{text}`")))
}
