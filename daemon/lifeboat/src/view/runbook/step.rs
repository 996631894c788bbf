//! What a person does for each step, what it must show, and what to do when it does not.
//!
//! **Invariant:** every action has commands here; a new one does not compile before it has.

use std::collections::BTreeSet;

use lifeboat_config::wiring::LookWiring;
use lifeboat_core::plan::{Action, Kind, PlannedStep};
use lifeboat_core::time::length;
use lifeboat_core::{DatabaseName, ProbeName, RegionName};
use lifeboat_postgres::by_hand;

use super::page::Sheet;
use super::shell::{block, command, past_the_fence, word};

impl Sheet<'_> {
    /// A step: its commands, what they must show, and what to do when they do not.
    pub(crate) fn step(&self, step: &PlannedStep) -> String {
        self.act(&step.action, step)
    }

    /// An action of a step, or the one that takes it back.
    pub(crate) fn act(&self, action: &Action, step: &PlannedStep) -> String {
        match action {
            Action::MeasureLoss { region, databases } => self.measure(region, databases),
            Action::CheckStandby { primary, standby, databases, changes } => {
                let databases = databases.keys().cloned().collect();
                self.check_standby(primary, standby, &databases) + &self.names_say(changes)
            }
            Action::Drain { region, databases } => {
                self.each(databases, region, "CHECKPOINT;") + "It must show `CHECKPOINT`. If it takes too long, go on: it only makes what follows shorter.\n\n"
            }
            Action::Fence { region, databases, planned, .. } => self.fence(region, databases, *planned),
            Action::Lift { region, databases } => self.lift(region, databases),
            Action::CatchUp { region, .. } => self.catch_up(region, step),
            Action::Promote { region, databases } => self.promote(region, &databases.keys().cloned().collect()),
            Action::AwaitServing { region, databases, probes } => self.serving(region, databases, probes),
            Action::SwitchDns { changes } => self.switch(changes),
            Action::Verify { changes, canary } => self.verify(changes, *canary),
            Action::Salvage { region, source, databases } => self.salvage(region, source, &databases.keys().cloned().collect()),
            Action::Rejoin { region, source, databases } => self.rejoin(region, source, &databases.keys().cloned().collect()),
            Action::AwaitReplication { primary, standby, databases } => {
                self.replicates(primary, standby, databases)
                    + "If it stays `f`: read the log of the standby's server, and `SELECT * FROM pg_stat_wal_receiver` there. Do not \
                       plan another move before it follows.\n\n"
            }
            Action::Report => "Write down, with times: who did what, what each step showed, which loss was accepted and by whom. \
                 Tell the people who wait for it. The record of an agent does not know what was done by hand: read what \
                 `lifeboat status` believes before you let one act again, and have it supervised until then.\n\n".to_owned(),
            own => self.own(own, step),
        }
    }

    /// The same script for each database of a region.
    fn each(&self, databases: &BTreeSet<DatabaseName>, region: &RegionName, script: &str) -> String {
        databases.iter().map(|name| block(&self.ask(name, region, script))).collect()
    }

    fn measure(&self, region: &RegionName, databases: &BTreeSet<DatabaseName>) -> String {
        let mut text = String::new();
        for name in databases {
            text += &block(&self.ask(name, region, &self.position(name)));
            text += &self.must_be(name, "standby");
        }
        let rpo = length(self.policy.objectives.rpo);
        text + &format!(
            "Repeat it until `bytes_to_replay` is 0 or stays where it is. What was committed after `newest_heartbeat` may be lost: \
             the loss is at most the time from then until the primary stopped.\n\n\
             If that is more than {rpo} (the RPO objective), or is not known: stop, until the person who answers for the data has \
             accepted the number. If the role is `primary`: somebody has promoted it; stop and find out who. Nothing is touched yet.\n\n"
        )
    }

    fn position(&self, name: &DatabaseName) -> String {
        let heartbeat = self.workload.databases.get(name).is_some_and(|database| database.heartbeat);
        let heartbeat = if heartbeat { by_hand::HEARTBEAT } else { "" };
        format!("{}\n{}\n{heartbeat}", by_hand::IDENTITY, by_hand::POSITION)
    }

    fn must_be(&self, name: &DatabaseName, role: &str) -> String {
        match self.bound.clusters.get(name) {
            Some(cluster) => format!("It must show the role `{role}` and the cluster `{cluster}`.\n\n"),
            None => format!(
                "It must show the role `{role}`. Write the cluster down: `system_identifier` must be the same on every server \
                 of {name} (it is not in the configuration, and no agent has seen it).\n\n"
            ),
        }
    }

    fn check_standby(
        &self,
        primary: &RegionName,
        standby: &RegionName,
        databases: &BTreeSet<DatabaseName>,
    ) -> String {
        let mut text = String::new();
        for name in databases {
            text += &block(&self.ask(name, primary, by_hand::IDENTITY));
            text += &self.must_be(name, "primary");
            text += &block(&self.ask(name, standby, &self.position(name)));
            text += &self.must_be(name, "standby");
        }
        text += &self.replicates(primary, standby, databases);
        text + "If a role or a cluster is another one, or it stays `f`: this is not the day for a planned move. Nothing is touched \
                yet.\n\n"
    }

    /// That a standby replays what is committed on the primary now.
    fn replicates(
        &self,
        primary: &RegionName,
        standby: &RegionName,
        databases: &BTreeSet<DatabaseName>,
    ) -> String {
        let mut text = String::new();
        for name in databases {
            let (asked, other) = (self.function(name, primary), self.function(name, standby));
            text += &block(&format!(
                "MARK=$({asked} -Atc \"SELECT pg_logical_emit_message(true, 'lifeboat', '')\")\n\
                 {other} -c \"SELECT pg_last_wal_replay_lsn() >= '$MARK' AS replayed\""
            ));
        }
        text + "It must show `t`; ask again for some seconds while it shows `f`.\n\n"
    }

    fn fence(&self, region: &RegionName, databases: &BTreeSet<DatabaseName>, planned: bool) -> String {
        let mut text = String::new();
        // Nothing waits for the rest of its log: what only it has is salvaged.
        let returned = self.bound.plan.kind == Kind::Rejoin;
        for name in databases {
            let function = self.function(name, region);
            text += &block(&self.ask(name, region, &by_hand::fence(planned)));
            text += &block(&format!(
                "if {function} -c 'SELECT 1'; then echo 'NOT FENCED: a new session gets in'; else echo 'a new session is turned away'; fi"
            ));
            text += "The first must show `sessions_left` 0 and then fail with `ERROR:  25006` (read-only transaction); the second must \
                     say `could not access file \"fenced_by_lifeboat\"` and that a new session is turned away. A server that is \
                     fenced already turns the first away as well: to repeat it, type \
                     `export PGOPTIONS='-c session_preload_libraries='` before it and `unset PGOPTIONS` after it.\n\n";
            if planned && !returned {
                let goal = goal(function);
                let query = format!("{function} -Atc \"{}\"", by_hand::LAST_RECORD);
                // Without waiting for a standby: it writes down what is there, and nobody is told of it.
                let export = "export PGOPTIONS='-c session_preload_libraries= -c synchronous_commit=local'";
                text += "Where its log ends:\n\n";
                text += &block(&format!("{goal}=$({export}; {query}); echo \"${goal}\""));
                text += "It must show a log position, such as `0/3000060`.\n\n";
            }
        }
        if planned {
            return text
                + "If it stops half-way, take it back as below before anything else. Nothing has moved.\n\n";
        }
        text += &self.isolate(region);
        text + &format!(
            "To take a fence back, as long as nothing is promoted: {}.\n\n",
            by_hand::HOW_TO_LIFT.trim_start_matches("to lift it, ")
        )
    }

    /// What is left when a server does not answer.
    fn isolate(&self, region: &RegionName) -> String {
        let Some(fence) = self.workload.fences.get(region) else {
            return format!(
                "If a server does not answer, or it does not come to this: power {region} off or cut its network yourself, and \
                 see that it is done. No command for it is configured. Without it there may be two primaries: a person must accept \
                 that before you go on.\n\n"
            );
        };
        let argv = command(&fence.command, region.as_str());
        let region_word = word(region.as_str());
        // Not a block of commands: it is run only when the server was not fenced above.
        format!(
            "If a server does not answer, or it does not come to this, isolate the region instead:\n\n\
             ```console\nLIFEBOAT_REGION={region_word} LIFEBOAT_EPOCH=\"$EPOCH\" {argv}; echo \"exit $?\"\n```\n\n\
             It must show `exit 0`, within {}. Anything else is no proof: power the region off yourself, and see that it is done. \
             Afterwards a new session must not get in either.\n\n",
            length(fence.timeout)
        )
    }

    fn lift(&self, region: &RegionName, databases: &BTreeSet<DatabaseName>) -> String {
        let mut text = String::new();
        for name in databases {
            let function = self.function(name, region);
            let lift = past_the_fence(&self.ask(name, region, &by_hand::lift()));
            let proof = "SELECT pg_logical_emit_message(true, 'lifeboat', '')";
            text +=
                &block(&format!("{lift}\nsleep 1\n{function} -c \"{proof}\"")).replace("```sh", "```console");
        }
        text + "The last must show a log position: clients can write again.\n\n"
    }

    fn catch_up(&self, region: &RegionName, step: &PlannedStep) -> String {
        let mut text = String::new();
        for name in self.policy.databases.keys() {
            let (function, goal) =
                (self.function(name, region), goal(self.function(name, &self.bound.plan.from)));
            text += &block(&format!(
                "{function} -c \"SELECT pg_last_wal_replay_lsn() AS replayed, pg_last_wal_replay_lsn() >= '${goal}' AS caught_up\""
            ));
        }
        text + &format!(
            "Repeat it until `caught_up` is `t`. If it is not within {}: take the fence back as the step before says. Clients \
             can then write again and nothing has moved.\n\n",
            length(step.limit)
        )
    }

    fn promote(&self, region: &RegionName, databases: &BTreeSet<DatabaseName>) -> String {
        let mut text = String::new();
        for name in databases {
            let cluster = self.bound.clusters.get(name).copied();
            if cluster.is_none() {
                text += &block(&self.ask(name, region, by_hand::IDENTITY));
                text += "It must show the cluster that you wrote down.\n\n";
            }
            text += &block(&self.ask(name, region, &by_hand::promote(cluster)));
        }
        text + "It must show `t` for `pg_promote`, then `f` for `in_recovery`. If it shows `f` first, or `t` last: run it again; \
                `recovery is not in progress` means that it is done. If it still is in recovery, read the server's log. Do not lift \
                the fence of the old primary.\n\n"
    }

    fn serving(
        &self,
        region: &RegionName,
        databases: &BTreeSet<DatabaseName>,
        probes: &BTreeSet<ProbeName>,
    ) -> String {
        let mut text = String::new();
        for name in databases {
            let heartbeat = self.workload.databases.get(name).is_some_and(|database| database.heartbeat);
            text += &block(&self.ask(name, region, &by_hand::first_write(heartbeat)));
            text += if heartbeat {
                "It must show a row with your epoch. No row: somebody with a higher epoch was here; stop and find out who.\n\n"
            } else {
                "It must show a log position.\n\n"
            };
        }
        for probe in probes {
            let Some(written) = self.workload.probes.get(probe) else { continue };
            text += &format!("{probe}:\n\n");
            text += &self.probe(&written.look);
        }
        text + "If it does not serve, go on looking for why: the way back is closed. Do not move the names before it serves.\n\n"
    }

    fn probe(&self, look: &LookWiring) -> String {
        match look {
            LookWiring::Database(_) => String::new(),
            LookWiring::Http(http) => {
                let (status, body) = (http.status, http.body.as_deref());
                self.request(http.url.as_str(), http.ca_file.as_deref(), None, (status, body))
            }
            LookWiring::Tcp(place) => {
                let (host, port) = (word(&place.host), place.port);
                block(&format!("nc -z -w 10 {host} {port}; echo \"exit $?\"")) + "It must show `exit 0`.\n\n"
            }
            LookWiring::Dns(query) => {
                let (ip, port, kind) =
                    (query.server.ip(), query.server.port(), format!("{:?}", query.record));
                let line = format!("dig +short @{ip} -p {port} {} {}", query.query, kind.to_uppercase());
                let expect = query.expect.join(", ");
                let must = if expect.is_empty() { "an answer".to_owned() } else { format!("`{expect}`") };
                block(&line) + &format!("It must show {must}.\n\n")
            }
        }
    }

    fn own(&self, action: &Action, step: &PlannedStep) -> String {
        match action {
            Action::Run { argv, env } => {
                let env: Vec<String> =
                    env.iter().map(|(name, value)| format!("{name}={} ", word(value))).collect();
                let argv: Vec<String> = argv.iter().map(|part| word(part)).collect();
                block(&format!("{}{}; echo \"exit $?\"", env.concat(), argv.join(" ")))
                    + "It must show `exit 0`.\n\n"
            }
            Action::Http { method, url, body, expect } => {
                let body =
                    body.as_ref().map_or_else(String::new, |body| format!(" --data-binary {}", word(body)));
                let expect: Vec<String> = expect.iter().map(|status| format!("`{status}`")).collect();
                let line =
                    format!("curl -sS -o /dev/null -w '%{{http_code}}\\n' -X {method}{body} {}", word(url));
                block(&line) + &format!("It must show {}.\n\n", expect.join(" or "))
            }
            Action::Sql { region, database, statement, expect } => {
                let must = expect.as_ref().map_or("no error".to_owned(), |expect| format!("`{expect}`"));
                let statement = statement.trim_end().trim_end_matches(';');
                block(&self.ask(database, region, &format!("{statement};")))
                    + &format!("It must show {must}.\n\n")
            }
            Action::Wait { length: pause } => block(&format!("sleep {}", pause.as_secs_f64())),
            Action::Notify { text } => format!("Tell people: {text}\n\n"),
            _ => format!("Ask a person before you go on; stop here without a yes. ({})\n\n", step.title),
        }
    }
}

/// The shell's variable for the end of a server's log.
fn goal(function: &str) -> String {
    format!("END_{}", function.trim_start_matches("sql_"))
}
