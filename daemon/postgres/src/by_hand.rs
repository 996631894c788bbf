//! What a person does to a server when lifeboat is gone: the same statements, as scripts for `psql`.
//!
//! The words are those of the rooms that do it ([`crate::fence`], [`crate::planned`]), so a page that is written
//! down does what the agent would have done. `:'epoch'` is a variable of `psql`.
//!
//! **Invariant:** everything here is text, made from names; nothing is asked and no secret is known.

use lifeboat_core::{DatabaseName, Epoch, RegionName, SystemIdentifier, WorkloadName};

use crate::fence::{END_SESSIONS, LOOPHOLES, SETTINGS};
use crate::heartbeat::{CREATE, HARMLESS_WRITE};
use crate::host::VERSION;
use crate::planned::{NOT_OURS, RESETS};

pub use crate::fence::HOW_TO_LIFT;

/// What the server is: role, cluster, timeline.
pub const IDENTITY: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END AS role,
  system_identifier AS cluster, timeline_id AS timeline FROM pg_control_system(), pg_control_checkpoint();";

/// How far a standby has come.
pub const POSITION: &str =
    "SELECT pg_last_wal_receive_lsn() AS received, pg_last_wal_replay_lsn() AS replayed,
  pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) AS bytes_to_replay,
  EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') AS streaming;";

/// The newest heartbeat that the server holds: what was committed before it is there.
pub const HEARTBEAT: &str = "SELECT agent, epoch, to_timestamp(at_ms / 1000.0) AS newest_heartbeat,
  now() - to_timestamp(at_ms / 1000.0) AS age FROM lifeboat.heartbeat ORDER BY at_ms DESC LIMIT 1;";

/// The end of the log of a closed primary, in a record of our own that flushes all before it.
pub const LAST_RECORD: &str = "SELECT pg_logical_emit_message(true, 'lifeboat', 'closed')";

/// The epoch after the newest that the server has seen, and no less than `at_least`.
pub fn next_epoch(at_least: Epoch) -> String {
    format!("SELECT greatest(coalesce(max(epoch), 0) + 1, {at_least}) FROM lifeboat.heartbeat")
}

/// Closes a primary to writes and ends its sessions. `planned`: also refuses what would be lost by opening it again.
///
/// The last statement is the proof, and must fail with SQLSTATE 25006.
pub fn fence(planned: bool) -> String {
    let [lock, read_only] = SETTINGS;
    let mut guards =
        refuse("pg_is_in_recovery()", "this is a standby and not the primary: nothing was touched");
    guards.push_str(&format!(
        "DO $$ DECLARE way text; BEGIN FOR way IN {LOOPHOLES}
 LOOP RAISE EXCEPTION '% would get past the fence: nothing was touched', way; END LOOP; END $$;\n"
    ));
    if planned {
        let prepared = "EXISTS (SELECT FROM pg_prepared_xacts)";
        let why = "prepared transactions could be committed by nobody: COMMIT PREPARED or ROLLBACK PREPARED them first";
        guards.push_str(&refuse(prepared, why));
        let why = "a setting of your own would be lost by opening it again: move it to postgresql.conf first";
        // Who was let past a fence sees the half of it that is no lock as anybody's setting.
        let past =
            "EXISTS (SELECT FROM pg_settings WHERE name = 'session_preload_libraries' AND source = 'client')";
        guards.push_str(&refuse(&format!("NOT {past} AND EXISTS ({NOT_OURS})"), why));
    }
    format!(
        "{guards}-- The epoch beside the fence. A role without the grant for it goes on without.
\\set ON_ERROR_STOP off
SET lifeboat.fence_epoch = :'epoch';
ALTER SYSTEM SET lifeboat.fence_epoch = :'epoch';
\\set ON_ERROR_STOP on
{lock};
{read_only};
SELECT pg_reload_conf();
SELECT pg_sleep(1);
{END_SESSIONS};
SELECT pg_sleep(1);
{END_SESSIONS};
SELECT pg_sleep(1);
SELECT count(*) AS sessions_left FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid();
-- The proof: this must fail.
\\set ON_ERROR_STOP off
\\set VERBOSITY verbose
{HARMLESS_WRITE};\n"
    )
}

/// Stops the script when `condition` holds.
fn refuse(condition: &str, why: &str) -> String {
    format!("DO $$ BEGIN IF {condition}\n THEN RAISE EXCEPTION '{why}'; END IF; END $$;\n")
}

/// Takes a fence back.
pub fn lift() -> String {
    let [read_only, lock] = RESETS;
    format!("{read_only};\n{lock};\nSELECT pg_reload_conf();\n")
}

/// Promotes a standby of `cluster` (any, when it is not known), and shows that it is one no longer.
pub fn promote(cluster: Option<SystemIdentifier>) -> String {
    let guard = cluster.map_or_else(String::new, |cluster| {
        let other = format!("(SELECT system_identifier FROM pg_control_system()) <> {cluster}");
        refuse(&other, &format!("this is not a server of cluster {cluster}: nothing was touched"))
    });
    format!("{guard}SELECT pg_promote(true, 60);\nSELECT pg_is_in_recovery() AS in_recovery;\n")
}

/// Commits on a new primary; with `heartbeat` under the epoch, so that an agent of an older one is refused there.
pub fn first_write(heartbeat: bool) -> String {
    if !heartbeat {
        return format!("{HARMLESS_WRITE};\nSELECT pg_logical_emit_message(true, 'lifeboat', '');\n");
    }
    format!(
        "{CREATE};
INSERT INTO lifeboat.heartbeat AS h (agent, epoch, at_ms)
  VALUES ('by-hand', :'epoch', extract(epoch FROM clock_timestamp()) * 1000)
  ON CONFLICT (agent) DO UPDATE SET epoch = excluded.epoch, at_ms = excluded.at_ms WHERE h.epoch <= excluded.epoch
  RETURNING agent, epoch;\n"
    )
}

/// Makes a slot for a follower, and has the control file know the timeline, which `pg_rewind` reads.
pub fn offer(slot: &str) -> String {
    format!(
        "SELECT pg_create_physical_replication_slot('{slot}', true)
  WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}');
CHECKPOINT;\n"
    )
}

/// Who is asked for what by a request to `lifeboat host`.
#[derive(Clone, Debug)]
pub struct HostAsked<'a> {
    /// The workload.
    pub workload: &'a WorkloadName,
    /// The server, by its database.
    pub database: &'a DatabaseName,
    /// The region of the host.
    pub region: &'a RegionName,
    /// Whether to keep what only it has, or to make it a standby.
    pub salvage: bool,
    /// Where the new primary is: region, host and port as the host reaches it, and the slot it keeps for it.
    pub source: (&'a RegionName, &'a str, u16),
    /// The slot that the new primary keeps for it.
    pub slot: &'a str,
    /// Slots of its own that a standby has no use for.
    pub drop_slots: &'a [String],
    /// How long it may take, in milliseconds.
    pub limit_ms: u128,
}

/// The query on the new primary that gives the request, as one line of JSON: only that server knows its timelines.
/// Takes `:'epoch'`, so it is for `psql` from a file or a pipe.
pub fn host_request(asked: &HostAsked<'_>) -> String {
    let HostAsked { workload, database, region, salvage, source: (primary, host, port), slot, .. } = asked;
    let run = literal(&format!("{workload}-e"));
    let slots: Vec<String> = asked.drop_slots.iter().map(|slot| literal(slot)).collect();
    let (act, slots) = if *salvage {
        ("salvage", String::new())
    } else {
        ("rejoin", format!(", 'drop_slots', json_build_array({})", slots.join(", ")))
    };
    let (workload, database, region) =
        (literal(workload.as_str()), literal(database.as_str()), literal(region.as_str()));
    let (primary, host) = (literal(primary.as_str()), literal(host));
    let (slot, limit) = (literal(slot), asked.limit_ms);
    format!(
        r"WITH here AS (SELECT system_identifier AS system,
    ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int8 AS timeline FROM pg_control_system()),
  forks AS (SELECT fork[1]::int8 AS timeline, (fork[2]::pg_lsn - '0/0')::int8 AS lsn FROM here, regexp_matches(
    CASE WHEN timeline > 1 THEN pg_read_file('pg_wal/' || lpad(upper(to_hex(timeline)), 8, '0') || '.history') ELSE '' END,
    '^\s*(\d+)\s+([0-9A-F]+/[0-9A-F]+)', 'gn') AS fork)
SELECT json_build_object('version', {VERSION}, 'workload', {workload}, 'database', {database}, 'region', {region},
  'run', {run} || :'epoch', 'agent', 'by-hand', 'epoch', :'epoch'::int8, 'system', system, 'limit_ms', {limit},
  'act', json_build_object('act', '{act}', 'source', json_build_object('region', {primary}, 'host', {host}, 'port', {port},
    'system', system, 'timeline', timeline, 'slot', {slot}, 'lineage',
    (SELECT coalesce(json_agg(json_build_object('timeline', timeline, 'lsn', lsn) ORDER BY timeline), '[]') FROM forks)){slots}))
FROM here;
"
    )
}

/// A literal of SQL.
fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A connection string for `psql` and its like, without a password.
pub fn connection(parts: &[(&str, &str)]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/".contains(c);
    let part = |(key, value): &(&str, &str)| match value.is_empty() || !value.chars().all(plain) {
        true => format!("{key}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'")),
        false => format!("{key}={value}"),
    };
    parts.iter().map(part).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_connection_string_cannot_be_more_than_one() {
        let parts = [("host", "db.example.com"), ("user", "o'hara host=x"), ("dbname", "")];
        assert_eq!(connection(&parts), r"host=db.example.com user='o\'hara host=x' dbname=''");
    }

    #[test]
    fn how_to_lift_says_what_lift_does() {
        for line in lift().lines() {
            assert!(HOW_TO_LIFT.contains(line.trim_end_matches(';')), "{line}");
        }
    }

    #[test]
    fn the_lock_on_the_door_comes_before_the_sessions_end() {
        let script = fence(true);
        let at = |text: &str| script.find(text).unwrap_or_else(|| panic!("no {text} in {script}"));
        assert!(at("RAISE EXCEPTION") < at("fence_epoch"));
        assert!(at("session_preload_libraries = ") < at("pg_terminate_backend"));
        assert!(at("pg_reload_conf") < at("pg_terminate_backend"));
        assert!(at("sessions_left") < at(HARMLESS_WRITE));
        assert!(!fence(false).contains("pg_prepared_xacts"));
    }
}
