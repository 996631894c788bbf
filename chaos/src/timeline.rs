//! What happened when, from lifeboat's own record.
//!
//! The lab reads the records as any program could: `lifeboat explain RUN --json` at the end, the control
//! socket's `/v1/records` while it happens. Unknown kinds of record are passed over.
//!
//! **Invariant:** a milestone is a success on record, never an attempt; nothing here is measured by the lab.

use serde::Serialize;
use serde_json::Value;

/// The moments of a run that people look for, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Milestone {
    /// The run was opened: the primary is taken as lost.
    Detected,
    /// The loss that a promotion means is known.
    Measured,
    /// The old primary is proven to accept no more writes.
    Fenced,
    /// The standby has replayed all that the closed primary ever wrote.
    CaughtUp,
    /// What only a returned primary has is kept.
    Salvaged,
    /// The standby is a primary.
    Promoted,
    /// It commits.
    Serving,
    /// The name says the new address.
    Switched,
    /// Name servers and lifeboat's own client agree.
    Verified,
    /// The old primary is a standby.
    Rejoined,
    /// It replays what the new primary commits.
    Replicating,
    /// The run is over and well.
    Ended,
}

impl Milestone {
    /// What people read.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Milestone::Detected => "detected",
            Milestone::Measured => "loss measured",
            Milestone::Fenced => "fenced",
            Milestone::CaughtUp => "caught up",
            Milestone::Salvaged => "salvaged",
            Milestone::Promoted => "promoted",
            Milestone::Serving => "serving",
            Milestone::Switched => "DNS moved",
            Milestone::Verified => "verified",
            Milestone::Rejoined => "rejoined",
            Milestone::Replicating => "replicating",
            Milestone::Ended => "run ended",
        }
    }

    fn of_step(step: &str) -> Option<Milestone> {
        Some(match step {
            "measure-loss" => Milestone::Measured,
            "fence" => Milestone::Fenced,
            "catch-up" => Milestone::CaughtUp,
            "salvage" => Milestone::Salvaged,
            "promote" => Milestone::Promoted,
            "await-serving" => Milestone::Serving,
            "switch-dns" => Milestone::Switched,
            "verify" => Milestone::Verified,
            "rejoin" => Milestone::Rejoined,
            "await-replication" => Milestone::Replicating,
            _ => return None,
        })
    }
}

/// One milestone of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reached {
    /// Which.
    pub milestone: Milestone,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A part of the time without service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// detect, fence, promote, switch or verify.
    pub name: &'static str,
    /// How long, in milliseconds. Phases follow each other without gaps.
    pub ms: u64,
}

/// A run, as far as it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// Its name.
    pub run: Option<String>,
    /// Its milestones, in the order of the record.
    pub reached: Vec<Reached>,
    /// What stands in its way, in lifeboat's words: a question, or why it is stranded.
    pub stuck: Option<String>,
    /// What proved the fence, in lifeboat's word for it.
    pub proof: Option<String>,
    /// The agent that decided; none where there is but one.
    pub decided_by: Option<String>,
    /// When the promote step began, in milliseconds since the Unix epoch.
    pub promote_began_ms: Option<u64>,
}

impl Timeline {
    /// Reads records, oldest first: objects with `at` (milliseconds since the Unix epoch) and `record`.
    #[must_use]
    pub fn read(records: &[Value]) -> Timeline {
        let mut timeline = Timeline::default();
        for stamped in records {
            let (Some(at_ms), record) = (stamped["at"].as_u64(), &stamped["record"]) else { continue };
            timeline.note(at_ms, record);
        }
        timeline
    }

    fn note(&mut self, at_ms: u64, record: &Value) {
        let step = record["step"].as_str().unwrap_or_default();
        let milestone = match record["kind"].as_str().unwrap_or_default() {
            "run-opened" => {
                let decided_by = self.decided_by.take();
                let run = record["run"].as_str().map(str::to_owned);
                *self = Timeline { run, decided_by, ..Timeline::default() };
                Some(Milestone::Detected)
            }
            "elected" => {
                // With a run open it is another agent that goes on with it.
                self.decided_by = record["agent"].as_str().map(str::to_owned);
                None
            }
            "step-started" => {
                if step == "promote" {
                    self.promote_began_ms.get_or_insert(at_ms);
                }
                None
            }
            "step-ended" => record["outcome"].get("succeeded").and_then(|gave| {
                let mut proofs = gave["proofs"].as_object().into_iter().flat_map(|proofs| proofs.values());
                if let Some(kind) = proofs.find_map(|proof| proof["kind"].as_str()) {
                    self.proof = Some(kind.to_owned());
                }
                Milestone::of_step(step)
            }),
            "asked" => {
                self.stuck = Some(format!("it asks a person: {}", record["question"]));
                None
            }
            "approved" | "continued" => {
                self.stuck = None;
                None
            }
            "stranded" => {
                self.stuck = Some(format!("stranded at {step}: {}", record["reason"]));
                None
            }
            "run-ended" => match record["ending"].as_str() {
                Some("done") => Some(Milestone::Ended),
                ending => {
                    self.stuck = Some(format!("the run ended: {}", ending.unwrap_or("without success")));
                    None
                }
            },
            _ => None,
        };
        if let Some(milestone) = milestone {
            self.reached.push(Reached { milestone, at_ms });
        }
    }

    /// Whether the run is over, or stands still until a person acts.
    #[must_use]
    pub fn over(&self) -> bool {
        self.at(Milestone::Ended).is_some() || self.stuck.is_some()
    }

    /// When a milestone was reached, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn at(&self, milestone: Milestone) -> Option<u64> {
        self.reached.iter().find(|reached| reached.milestone == milestone).map(|reached| reached.at_ms)
    }

    /// How long each phase took after a loss at `lost_ms`: detect until the run was opened, fence (with the
    /// measurement of the loss) until the proof, promote until the new primary commits, switch until the name
    /// moved, verify until name servers and lifeboat's client agreed. Only phases that ended.
    #[must_use]
    pub fn phases(&self, lost_ms: u64) -> Vec<Phase> {
        let ends = [
            ("detect", Milestone::Detected),
            ("fence", Milestone::Fenced),
            ("promote", Milestone::Serving),
            ("switch", Milestone::Switched),
            ("verify", Milestone::Verified),
        ];
        let mut from = lost_ms;
        let mut phases = Vec::new();
        for (name, end) in ends {
            let Some(at) = self.at(end) else { break };
            phases.push(Phase { name, ms: at.saturating_sub(from) });
            from = at.max(from);
        }
        phases
    }

    /// From the start of the promotion until the new primary committed, in milliseconds.
    #[must_use]
    pub fn promotion_ms(&self) -> Option<u64> {
        Some(self.at(Milestone::Serving)?.saturating_sub(self.promote_began_ms?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ended(at: u64, step: &str, outcome: &str) -> Value {
        json!({ "at": at, "record": { "kind": "step-ended", "step": step, "outcome": { outcome: {} } } })
    }

    fn records() -> Vec<Value> {
        vec![
            json!({ "at": 400, "record": { "kind": "elected", "agent": "witness", "term": 3 } }),
            json!({ "at": 500, "record": { "kind": "verdict-changed", "region": "east", "verdict": "lost" } }),
            json!({ "at": 3000, "record": { "kind": "run-opened", "run": "r-1" } }),
            ended(3010, "measure-loss", "succeeded"),
            ended(3050, "fence", "failed"),
            ended(3100, "fence", "succeeded"),
            json!({ "at": 3101, "record": { "kind": "step-started", "step": "promote" } }),
            ended(3220, "promote", "succeeded"),
            ended(3250, "await-serving", "succeeded"),
            ended(3260, "switch-dns", "succeeded"),
            ended(4000, "verify", "succeeded"),
            json!({ "at": 4001, "record": { "kind": "run-ended", "ending": "done" } }),
        ]
    }

    #[test]
    fn phases_are_the_time_between_successes_on_record() {
        let timeline = Timeline::read(&records());
        let phases: Vec<_> = timeline.phases(1000).into_iter().map(|phase| (phase.name, phase.ms)).collect();
        assert_eq!(
            phases,
            [("detect", 2000), ("fence", 100), ("promote", 150), ("switch", 10), ("verify", 740)]
        );
        assert_eq!(timeline.promotion_ms(), Some(149));
        assert_eq!(timeline.run.as_deref(), Some("r-1"));
        assert_eq!(timeline.at(Milestone::Ended), Some(4001));
    }

    #[test]
    fn who_decided_and_what_proved_the_fence_are_on_record() {
        let mut records = records();
        let proofs = json!({ "proofs": { "orders": { "kind": "expired" } } });
        records[5]["record"]["outcome"] = json!({ "succeeded": proofs });
        let timeline = Timeline::read(&records);
        assert_eq!(timeline.proof.as_deref(), Some("expired"));
        assert_eq!(timeline.decided_by.as_deref(), Some("witness"), "elected before the run was opened");
        let took_over = json!({ "at": 3020, "record": { "kind": "elected", "agent": "west", "term": 4 } });
        records.insert(3, took_over);
        assert_eq!(Timeline::read(&records).decided_by.as_deref(), Some("west"));
    }

    #[test]
    fn a_failed_attempt_is_no_milestone_and_later_phases_wait_for_it() {
        let timeline = Timeline::read(&records()[..5]);
        assert_eq!(timeline.at(Milestone::Fenced), None);
        assert_eq!(timeline.phases(1000).len(), 1);
    }

    #[test]
    fn what_stands_in_the_way_is_said() {
        let mut records = records()[..4].to_vec();
        records.push(
            json!({ "at": 3011, "record": { "kind": "asked", "question": { "kind": "accept-loss" } } }),
        );
        assert!(Timeline::read(&records).stuck.unwrap().contains("accept-loss"));
        records.push(json!({ "at": 3012, "record": { "kind": "approved" } }));
        assert_eq!(Timeline::read(&records).stuck, None);
    }
}
