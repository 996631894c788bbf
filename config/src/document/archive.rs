//! `[[archive]]` and `[[workload.database.backup]]`: where backups are kept, for how long, and when they are made.
//!
//! **Invariant:** an archive that is listed is used: every database is backed up to every archive, nightly and with its log,
//! unless the document says otherwise.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::archive::{ArchivePlace, SlotName};
use crate::form::{FilePath, HttpUrl, Label};
use crate::length::Length;
use crate::schedule::{Schedule, Zone};
use crate::size::Size;

/// A place where backups are kept, encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Archive {
    /// Its name, by which backups refer to it.
    pub name: Label,
    /// A folder, "s3://BUCKET/PREFIX" or "gs://BUCKET/PREFIX"; in another failure domain than what is kept there.
    pub place: ArchivePlace,
    /// File with the key that opens it, made by `lifeboat archive key`. Without it nothing can be restored: keep a copy
    /// elsewhere, and never in the archive.
    pub key_file: FilePath,
    /// Where the store is reached. Default: the vendor's own endpoint. Not for a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<HttpUrl>,
    /// The region of the bucket. Default: what the environment says, else "us-east-1". Only with s3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub region: Option<String>,
    /// Whether the bucket goes into the path of a request instead of into the host's name. Only with s3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// File with the id of the access key: one line. Default: what the environment or the machine's own role gives. Only
    /// with s3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_file: Option<FilePath>,
    /// File with the secret access key: one line. Only with s3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_file: Option<FilePath>,
    /// File with the JSON key of a service account. Default: what the environment or the machine's own role gives. Only
    /// with gs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<FilePath>,
    /// For how long what is kept.
    #[serde(default)]
    pub retention: Retention,
}

/// For how long what is kept. The newest good backup is never removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Retention {
    /// Every moment within this can be restored, 1h to 3650d.
    #[serde(default = "month")]
    #[schemars(extend("x-minimum" = "1h", "x-maximum" = "3650d"))]
    pub window: Length,
    /// The newest backup of each of so many hours is kept as well.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10000))]
    pub hourly: u32,
    /// The newest backup of each of so many days.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10000))]
    pub daily: u32,
    /// The newest backup of each of so many weeks.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10000))]
    pub weekly: u32,
    /// The newest backup of each of so many months.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10000))]
    pub monthly: u32,
    /// What nothing needs any more is removed this long after it was written, at the earliest; 1h to 365d.
    #[serde(default = "day")]
    #[schemars(extend("x-minimum" = "1h", "x-maximum" = "365d"))]
    pub grace: Length,
}

impl Default for Retention {
    fn default() -> Self {
        Self { window: month(), hourly: 0, daily: 0, weekly: 0, monthly: 0, grace: day() }
    }
}

/// Where base backups are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum From {
    /// At a standby that follows; at the primary when there is none.
    #[default]
    Standby,
    /// At the primary.
    Primary,
}

/// A database's backups: when, where to, and its log in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Backup {
    /// The archives it goes to. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), extend("uniqueItems" = true))]
    pub archives: Option<Vec<Label>>,
    /// When a base backup is begun, as in cron(8).
    #[serde(default = "Schedule::nightly")]
    pub schedule: Schedule,
    /// Whose clock the schedule goes by.
    #[serde(default = "utc")]
    pub time_zone: Zone,
    /// Up to this much later than the schedule says, always the same for one database and archive, at most 1d.
    #[serde(default = "ten_minutes")]
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1d"))]
    pub jitter: Length,
    /// "standby": base backups are read at a standby when one follows; or "primary".
    #[serde(default)]
    pub from: From,
    /// How much is read in a second at most. Default: as much as there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Size>,
    /// Whether the log is received all the time; without it only the moments of base backups can be restored.
    #[serde(default = "yes")]
    pub wal: bool,
    /// The replication slot is called so, with "_" and the archive's name behind it.
    #[serde(default = "SlotName::lifeboat")]
    pub slot: SlotName,
    /// How often what was received of a segment that is not full yet is stored, 0s (at once, for servers that
    /// wait for it) to 1h.
    #[serde(default = "second")]
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "1h"))]
    pub piece_interval: Length,
    /// People are told when the slot holds back this much log at the server.
    #[serde(default = "four_gib")]
    pub slot_alert: Size,
    /// The slot is given up when it holds back this much, so that the server's disk does not fill; a base backup follows.
    #[serde(default = "thirty_two_gib")]
    pub slot_limit: Size,
}

impl Default for Backup {
    fn default() -> Self {
        Self {
            archives: None,
            schedule: Schedule::nightly(),
            time_zone: utc(),
            jitter: ten_minutes(),
            from: From::default(),
            bandwidth: None,
            wal: true,
            slot: SlotName::lifeboat(),
            piece_interval: second(),
            slot_alert: four_gib(),
            slot_limit: thirty_two_gib(),
        }
    }
}

const fn yes() -> bool {
    true
}

const fn utc() -> Zone {
    Zone::UTC
}

const fn second() -> Length {
    Length::seconds(1)
}

const fn ten_minutes() -> Length {
    Length::seconds(600)
}

const fn day() -> Length {
    Length::seconds(86_400)
}

const fn month() -> Length {
    Length::seconds(30 * 86_400)
}

const fn four_gib() -> Size {
    Size(4 << 30)
}

const fn thirty_two_gib() -> Size {
    Size(32 << 30)
}
