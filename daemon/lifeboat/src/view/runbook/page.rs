//! A procedure as Markdown that a person can follow when lifeboat itself is gone.
//!
//! **Invariant:** everything here comes from the configuration and the record; nothing is looked up, and no secret is
//! read: the page names the files that hold them.

use std::collections::BTreeMap;
use std::fmt::Write;

use lifeboat_config::Wiring;
use lifeboat_config::document::workload::Tls;
use lifeboat_config::wiring::{DatabaseWiring, ViaWiring, WorkloadWiring};
use lifeboat_core::forecast::StepForecast;
use lifeboat_core::guardian::ByHand;
use lifeboat_core::plan::{Kind, PlannedStep};
use lifeboat_core::policy::WorkloadPolicy;
use lifeboat_core::time::length;
use lifeboat_core::{DatabaseName, RegionName};
use lifeboat_postgres::by_hand;
use lifeboat_runbooks::Runbook;

use super::shell::{block, fed, word};

/// Where the system's trust anchors are: libpq before 16 must be told.
const SYSTEM_ANCHORS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// All that a page is made of.
pub(crate) struct Sheet<'a> {
    /// The page in force.
    pub(crate) runbook: &'a Runbook,
    /// What it is bound to.
    pub(crate) bound: &'a ByHand,
    /// Where everything is.
    pub(crate) wiring: &'a Wiring,
    /// The same, of the workload.
    pub(crate) workload: &'a WorkloadWiring,
    /// What its operator wants.
    pub(crate) policy: &'a WorkloadPolicy,
    /// The zone of the authority as it must be in the end, as a file.
    pub(crate) zone: Option<String>,
    /// Where the workload lives on record.
    pub(crate) lives: RegionName,
    /// Whether the agent or its journal was read.
    pub(crate) record_read: bool,
    /// The shell's function for each server.
    functions: BTreeMap<(DatabaseName, RegionName), String>,
}

impl<'a> Sheet<'a> {
    /// Puts a page together.
    pub(crate) fn new(
        (runbook, bound): (&'a Runbook, &'a ByHand),
        (wiring, workload, policy): (&'a Wiring, &'a WorkloadWiring, &'a WorkloadPolicy),
        zone: Option<String>,
        (lives, record_read): (RegionName, bool),
    ) -> Self {
        let functions = functions(workload);
        Self { runbook, bound, wiring, workload, policy, zone, lives, record_read, functions }
    }

    /// The page.
    pub(crate) fn render(&self) -> String {
        let plan = &self.bound.plan;
        let mut page =
            format!("# {} ({}: {} to {})\n\n", self.runbook.title, plan.workload, plan.from, plan.to);
        let _ = writeln!(page, "{}\n", self.standing());
        let _ = writeln!(page, "{}\n", self.runbook.prose.trim());
        page.push_str(&self.before());
        for (number, (step, known)) in (1..).zip(plan.steps.iter().zip(&self.bound.forecast.steps)) {
            let _ = writeln!(page, "## {number}. {}\n", step.title);
            let _ = writeln!(page, "{}\n", about(step, known));
            if let Some(question) = &step.approve {
                let _ = writeln!(page, "**Before it**, a person must say yes to: {question}\n");
            }
            if step.point_of_no_return {
                page.push_str("**From here on the only way is forward.**\n\n");
            }
            page.push_str(&self.step(step));
            if let Some(undo) = &step.undo {
                page.push_str("To take it back, as long as nothing is promoted:\n\n");
                page.push_str(&self.act(undo, step));
            }
        }
        page.trim_end().to_owned()
    }

    /// What the page is, and what it rests on.
    fn standing(&self) -> String {
        let plan = &self.bound.plan;
        let record = if self.record_read {
            format!("On record the workload lives in {}.", self.lives)
        } else {
            format!(
                "No agent answered and there was no journal, so it is taken to live in {}, and nothing was measured.",
                self.lives
            )
        };
        let expected = if plan.kind == Kind::Rejoin { &plan.to } else { &plan.from };
        let bound = if self.lives == *expected {
            String::new()
        } else {
            format!(" This page is bound as if it had moved to {expected}.")
        };
        format!(
            "This page is for the day on which lifeboat itself is gone. {record}{bound} Write it down anew after each move, \
             and keep it where the loss of a region does not reach it.\n\n\
             First stop every agent that is left (`systemctl stop lifeboat`): two hands on one workload undo each other. \
             Then follow the steps in order, in one shell, and go on only when a step has shown what it must."
        )
    }

    /// The functions and the epoch.
    fn before(&self) -> String {
        let mut text = "## Before you begin\n\n".to_owned();
        let files = self.secret_files();
        if !files.is_empty() {
            let _ =
                writeln!(text, "These files must be on the machine you work from: {}.\n", files.join(", "));
        }
        let names = self.workload.names.values().any(|name| matches!(name.via, ViaWiring::Rfc2136(_)));
        let nsupdate = if names { " `nsupdate`," } else { "" };
        let _ = writeln!(
            text,
            "It needs `psql` (PostgreSQL 15 or newer),{nsupdate} `dig` and `curl`. Paste this first:\n"
        );
        let mut commands = String::new();
        for ((name, region), function) in &self.functions {
            let Some(database) = self.workload.databases.get(name) else { continue };
            let _ = writeln!(commands, "{function}() {{ {}; }}", login(database, region));
        }
        let plan = &self.bound.plan;
        let asked = self.workload.databases.iter().find(|(_, database)| database.heartbeat);
        let server = asked.and_then(|(name, _)| self.functions.get(&(name.clone(), plan.to.clone())));
        match server {
            Some(function) => {
                let _ = writeln!(commands, "EPOCH=$({function} -Atc '{}')", by_hand::next_epoch(plan.epoch));
            }
            None => {
                let _ = writeln!(commands, "EPOCH={}", plan.epoch);
            }
        }
        commands.push_str("echo \"$EPOCH\"");
        text.push_str(&block(&commands));
        let _ = writeln!(
            text,
            "It must show a number, {} or more: the epoch under which you act. A higher one than any agent ever had keeps an \
             agent that comes back from undoing what you do. If the server in {} does not answer or has no such table, type \
             `EPOCH=` and a number that is surely higher.\n",
            plan.epoch, plan.to
        );
        text
    }

    fn secret_files(&self) -> Vec<String> {
        let databases =
            self.workload.databases.values().flat_map(|d| [&d.password_file, &d.ca_file]).flatten();
        let keys = self.workload.names.values().filter_map(|name| match &name.via {
            ViaWiring::Rfc2136(server) => Some(&server.key_file),
            ViaWiring::Authority => None,
        });
        let mut files: Vec<String> =
            databases.chain(keys).map(|file| format!("`{}`", file.display())).collect();
        files.sort();
        files.dedup();
        files
    }

    /// The function that asks a server.
    pub(crate) fn function(&self, database: &DatabaseName, region: &RegionName) -> &str {
        self.functions.get(&(database.clone(), region.clone())).map_or("psql", String::as_str)
    }

    /// A block in which a server is given a script.
    pub(crate) fn ask(&self, database: &DatabaseName, region: &RegionName, script: &str) -> String {
        let epoch = if script.contains(":'epoch'") { " -v epoch=\"$EPOCH\"" } else { "" };
        fed(&format!("{}{epoch}", self.function(database, region)), script)
    }
}

/// What is known of a step before it is done.
fn about(step: &PlannedStep, known: &StepForecast) -> String {
    let took = match (known.median, known.p95) {
        (Some(median), Some(p95)) => {
            let runs = if known.runs == 1 { "1 run".to_owned() } else { format!("{} runs", known.runs) };
            format!("took {} (p50), {} (p95) in the last {runs} here", length(median), length(p95))
        }
        _ => "never measured here".to_owned(),
    };
    format!("`{}`: {took}; lifeboat gives one attempt {}.", step.deed, length(step.limit))
}

/// A name for each server that the shell takes, unlike any other.
fn functions(workload: &WorkloadWiring) -> BTreeMap<(DatabaseName, RegionName), String> {
    let mut functions: BTreeMap<(DatabaseName, RegionName), String> = BTreeMap::new();
    for (name, database) in &workload.databases {
        for region in database.endpoints.keys() {
            let wanted = format!("sql_{name}_in_{region}").replace('-', "_");
            let taken = |candidate: &String| functions.values().any(|function| function == candidate);
            let mut function = wanted.clone();
            let mut number = 2;
            while taken(&function) {
                function = format!("{wanted}_{number}");
                number += 1;
            }
            functions.insert((name.clone(), region.clone()), function);
        }
    }
    functions
}

/// The parts of a login but where it goes to.
pub(crate) fn credentials(database: &DatabaseWiring) -> Vec<(&'static str, String)> {
    let mut parts = vec![("user", database.user.clone())];
    match (database.tls, &database.ca_file) {
        (Tls::Off, _) => parts.push(("sslmode", "disable".to_owned())),
        (Tls::VerifyFull, file) => {
            parts.push(("sslmode", "verify-full".to_owned()));
            let anchors = file.as_ref().map_or(SYSTEM_ANCHORS.to_owned(), |file| file.display().to_string());
            parts.push(("sslrootcert", anchors));
        }
    }
    parts
}

/// The environment that carries the password, and nothing when there is none.
pub(crate) fn password(database: &DatabaseWiring) -> String {
    let file = database.password_file.as_ref();
    file.map_or_else(String::new, |file| {
        format!("PGPASSWORD=\"$(cat {})\" ", word(&file.display().to_string()))
    })
}

fn login(database: &DatabaseWiring, region: &RegionName) -> String {
    let Some(endpoint) = database.endpoints.get(region) else { return "false".to_owned() };
    let port = endpoint.port.to_string();
    let mut parts = vec![("host", endpoint.host.as_str()), ("port", &port), ("dbname", &database.dbname)];
    let credentials = credentials(database);
    parts.extend(credentials.iter().map(|(key, value)| (*key, value.as_str())));
    parts.push(("connect_timeout", "10"));
    let connection = word(&by_hand::connection(&parts));
    format!("{}psql -X -w -v ON_ERROR_STOP=1 -d {connection} \"$@\"", password(database))
}
