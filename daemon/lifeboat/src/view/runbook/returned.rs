//! The steps about an old primary: keeping what only it has, and making it a standby, with `lifeboat host` and without.

use std::collections::BTreeSet;

use lifeboat_config::wiring::DatabaseWiring;
use lifeboat_core::{DatabaseName, RegionName};
use lifeboat_postgres::by_hand::{self, HostAsked};
use lifeboat_postgres::slot_name;

use super::page::{Sheet, credentials, password};
use super::shell::{block, command, fed, word};

impl Sheet<'_> {
    /// Keeps what only the old primary has.
    pub(crate) fn salvage(
        &self,
        region: &RegionName,
        source: &RegionName,
        databases: &BTreeSet<DatabaseName>,
    ) -> String {
        let mut text = String::new();
        for name in databases {
            let Some(database) = self.workload.databases.get(name) else { continue };
            text += &self.host(name, database, (region, source), true);
            text += &format!(
                "When there is no lifeboat on the host of {name} in {region} either, keep the whole data folder there, as the user \
                 that owns it:\n\n```console\nDATA=/var/lib/postgresql/15/main   # as /etc/lifeboat/host.toml or `SHOW data_directory` says\n\
                 pg_ctl -D \"$DATA\" stop -m fast\ncp -a \"$DATA\" \"$DATA.diverged\"\n```\n\n"
            );
        }
        text + "If it cannot be kept, stop: the next step destroys it.\n\n"
    }

    /// Makes the old primary a standby.
    pub(crate) fn rejoin(
        &self,
        region: &RegionName,
        source: &RegionName,
        databases: &BTreeSet<DatabaseName>,
    ) -> String {
        let mut text = String::new();
        for name in databases {
            let Some(database) = self.workload.databases.get(name) else { continue };
            let slot = slot_name(region);
            text += &block(&self.ask(name, source, &by_hand::offer(&slot)));
            text += &self.host(name, database, (region, source), false);
            text += &without_lifeboat(name, database, (region, source), &slot);
        }
        text + "If neither brings it back, leave it stopped: the workload does not need it to live, only to move again.\n\n"
    }

    /// The request to `lifeboat host`, if there is a way to it.
    fn host(
        &self,
        name: &DatabaseName,
        database: &DatabaseWiring,
        (region, source): (&RegionName, &RegionName),
        salvage: bool,
    ) -> String {
        let (Some(host), Some((address, port))) = (database.hosts.get(region), reached(database, source))
        else {
            return format!("No command to the host of {name} in {region} is configured.\n\n");
        };
        let slots: Vec<String> = database.endpoints.keys().map(slot_name).collect();
        let slot = slot_name(region);
        let query = by_hand::host_request(&HostAsked {
            workload: &self.bound.plan.workload,
            database: name,
            region,
            salvage,
            source: (source, &address, port),
            slot: &slot,
            drop_slots: &slots,
            limit_ms: host.timeout.as_millis(),
        });
        let asked = format!("{} -At -v epoch=\"$EPOCH\"", self.function(name, source));
        let argv = command(&host.command, region.as_str());
        let commands =
            format!("REQUEST=$({})\nprintf '%s\\n' \"$REQUEST\" | {argv}", fed(&asked, &query) + "\n");
        let done = if salvage { "salvaged" } else { "rejoined" };
        format!(
            "The new primary writes the request, and `lifeboat host` beside the old one carries it out:\n\n{}\
             It must show `{{\"done\":{{\"{done}\":`. A repeat finds what is done and goes on.\n\n",
            block(&commands)
        )
    }
}

/// How a server is reached by those that follow it.
fn reached(database: &DatabaseWiring, region: &RegionName) -> Option<(String, u16)> {
    let place = database.replication.get(region).or_else(|| database.endpoints.get(region))?;
    Some((place.host.clone(), place.port))
}

/// The plain programs of PostgreSQL, on the host of the old primary.
fn without_lifeboat(
    name: &DatabaseName,
    database: &DatabaseWiring,
    (region, source): (&RegionName, &RegionName),
    slot: &str,
) -> String {
    let Some((address, port)) = reached(database, source) else { return String::new() };
    let port = port.to_string();
    let credentials = credentials(database);
    let mut parts = vec![("host", address.as_str()), ("port", &port), ("dbname", "postgres")];
    parts.extend(credentials.iter().map(|(key, value)| (*key, value.as_str())));
    let login = word(&by_hand::connection(&parts));
    let password = password(database);
    format!(
        "When there is no lifeboat on that host either, do it there by hand, as the user that owns the data folder. Its role \
         on the new primary must be allowed to replicate, and for `pg_rewind` to read files; the role of the configuration may \
         do with `source` and `rewind` of `/etc/lifeboat/host.toml`.\n\n\
         ```console\nDATA=/var/lib/postgresql/15/main   # as /etc/lifeboat/host.toml or `SHOW data_directory` says\n\
         SOURCE={login}\n\
         pg_ctl -D \"$DATA\" stop -m fast\n\
         mkdir -p ~/kept && cp \"$DATA\"/postgresql.conf \"$DATA\"/pg_hba.conf \"$DATA\"/postgresql.auto.conf ~/kept/\n\
         {password}pg_rewind -D \"$DATA\" --source-server=\"$SOURCE\" --progress\n\
         cp ~/kept/postgresql.conf ~/kept/pg_hba.conf \"$DATA\"/\n\
         grep -Ev '^(session_preload_libraries|default_transaction_read_only|primary_conninfo|primary_slot_name) ' \
         ~/kept/postgresql.auto.conf > \"$DATA\"/postgresql.auto.conf\n\
         printf \"primary_conninfo = '%s'\\nprimary_slot_name = '{slot}'\\n\" \"$SOURCE application_name={region}\" >> \"$DATA\"/postgresql.auto.conf\n\
         touch \"$DATA\"/standby.signal\n\
         pg_ctl -D \"$DATA\" start\n```\n\n\
         The password of the new primary belongs into `~/.pgpass` there, for the standby reads it each time it connects. \
         If `pg_rewind` fails, never start the folder as it is: move it aside and copy {name} anew, then start it.\n\n\
         ```console\nmv \"$DATA\" \"$DATA.diverged\"\n\
         {password}pg_basebackup -D \"$DATA\" -R --checkpoint=fast --slot={slot} -d \"$SOURCE\" --progress\n\
         pg_ctl -D \"$DATA\" start\n```\n\n"
    )
}
