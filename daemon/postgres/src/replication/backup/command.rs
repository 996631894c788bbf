//! The words that ask for a base backup, in both grammars.
//!
//! **Invariant:** no option is left out because a server does not know it: what cannot be asked is an error.

use std::time::Duration;

use crate::replication::error::Error;

use super::ONE_COPY;

/// The first version with incremental backups.
pub(in crate::replication) const INCREMENTAL: u32 = 170_000;

/// Bytes of a label, at most: PostgreSQL's own limit of a path, with room for what it adds.
const LONGEST_LABEL: usize = 1_000;

/// How a base backup is made.
#[derive(Clone, Debug)]
pub struct BaseBackupOptions {
    /// What it is called in `backup_label`.
    pub label: String,
    /// Make the checkpoint it begins with at once, instead of over minutes.
    pub fast_checkpoint: bool,
    /// The most KiB a second that the server sends, from 32 to 1,048,576.
    pub max_rate: Option<u32>,
    /// Whether the server adds a manifest of all files, with CRC-32C sums.
    pub manifest: bool,
    /// Tablespaces as a file, `tablespace_map`, from which a server that recovers makes its links, instead of as links,
    /// whose targets have at most 99 bytes. Whoever puts them elsewhere must change that file, which the manifest has.
    pub tablespace_map: bool,
    /// Whether the server verifies the checksums of pages, when the cluster has them.
    pub verify_checksums: bool,
    /// Only what changed since the backup whose manifest was uploaded on this connection (17 and newer).
    pub incremental: bool,
    /// How long the checkpoint may take.
    pub checkpoint_limit: Duration,
}

impl Default for BaseBackupOptions {
    fn default() -> Self {
        Self {
            label: "lifeboat".to_owned(),
            fast_checkpoint: true,
            max_rate: None,
            manifest: true,
            tablespace_map: false,
            verify_checksums: true,
            incremental: false,
            checkpoint_limit: Duration::from_secs(15 * 60),
        }
    }
}

/// The command. The server is never asked to wait for its own archive: the log comes to us as a stream.
pub(super) fn text(options: &BaseBackupOptions, version: u32) -> Result<String, Error> {
    if options.label.len() > LONGEST_LABEL || options.label.contains(['\0', '\n']) {
        return Err(Error::Misuse("the label of a backup is one line of at most 1000 bytes"));
    }
    if options.max_rate.is_some_and(|rate| !(32..=1_048_576).contains(&rate)) {
        return Err(Error::Misuse("the rate of a backup is from 32 to 1048576 KiB a second"));
    }
    if options.incremental && version < INCREMENTAL {
        return Err(Error::TooOld { version, what: "incremental backups" });
    }
    let label = options.label.replace('\'', "''");
    Ok(if version >= ONE_COPY { newer(options, &label) } else { older(options, &label) })
}

fn newer(options: &BaseBackupOptions, label: &str) -> String {
    let checkpoint = if options.fast_checkpoint { "fast" } else { "spread" };
    let manifest = if options.manifest { "yes" } else { "no" };
    let mut text = format!(
        "BASE_BACKUP (LABEL '{label}', PROGRESS true, CHECKPOINT '{checkpoint}', WAIT false, TABLESPACE_MAP {}, \
         VERIFY_CHECKSUMS {}, MANIFEST '{manifest}'",
        options.tablespace_map, options.verify_checksums
    );
    if options.manifest {
        text += ", MANIFEST_CHECKSUMS 'CRC32C'";
    }
    if let Some(rate) = options.max_rate {
        text += &format!(", MAX_RATE {rate}");
    }
    if options.incremental {
        text += ", INCREMENTAL true";
    }
    text + ")"
}

/// 13 and 14.
fn older(options: &BaseBackupOptions, label: &str) -> String {
    let mut text = format!("BASE_BACKUP LABEL '{label}' PROGRESS NOWAIT");
    if options.tablespace_map {
        text += " TABLESPACE_MAP";
    }
    if options.fast_checkpoint {
        text += " FAST";
    }
    if !options.verify_checksums {
        text += " NOVERIFY_CHECKSUMS";
    }
    if options.manifest {
        text += " MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'";
    }
    if let Some(rate) = options.max_rate {
        text += &format!(" MAX_RATE {rate}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stays_a_label() {
        let options =
            BaseBackupOptions { label: "it's', WAIT true".to_owned(), ..BaseBackupOptions::default() };
        for version in [130_000, 150_000] {
            assert!(text(&options, version).unwrap().contains("LABEL 'it''s'', WAIT true'"));
        }
        let options = BaseBackupOptions { label: "a\nb".to_owned(), ..BaseBackupOptions::default() };
        assert!(matches!(text(&options, 150_000), Err(Error::Misuse(_))));
    }

    #[test]
    fn what_a_server_cannot_do_is_refused() {
        let options = BaseBackupOptions { incremental: true, ..BaseBackupOptions::default() };
        assert!(matches!(text(&options, 160_009), Err(Error::TooOld { version: 160_009, .. })));
        assert!(text(&options, 170_000).unwrap().ends_with(", INCREMENTAL true)"));
        let options = BaseBackupOptions { max_rate: Some(31), ..BaseBackupOptions::default() };
        assert!(matches!(text(&options, 150_000), Err(Error::Misuse(_))));
    }
}
