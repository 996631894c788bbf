//! Who saw what, while the region was lost: a row for each vantage, a column for each region.
//!
//! **Invariant:** it is what one agent's status said at one moment; nothing is filled in.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::agent::WORKLOAD;

/// The matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sight {
    /// Whose status it was.
    pub told_by: String,
    /// When, in milliseconds since the loss.
    pub at_ms: u64,
    /// Each vantage.
    pub vantages: BTreeMap<String, Vantage>,
}

/// A row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Vantage {
    /// The place it fails with.
    pub place: String,
    /// How long ago it was last heard, in milliseconds; none: never.
    pub heard_ms: Option<u64>,
    /// What it said of each region.
    pub sees: BTreeMap<String, Seen>,
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Its verdict.
    pub verdict: String,
    /// Whether it counts as a vote for the loss of that region.
    pub vote: bool,
}

impl Sight {
    /// Reads what `status --json` says; none for an agent that is alone.
    #[must_use]
    pub fn read(status: &Value, at_ms: u64) -> Option<Sight> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rows = status["vantages"].as_object().filter(|rows| !rows.is_empty())?;
        let row = |vantage: &Value| Vantage {
            place: text(&vantage["place"]),
            heard_ms: vantage["heard"].as_u64(),
            sees: vantage["sees"][WORKLOAD]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(region, seen)| {
                    let vote = seen["verdict"] == "lost" && seen["abstains"].is_null();
                    (region.clone(), Seen { verdict: text(&seen["verdict"]), vote })
                })
                .collect(),
        };
        let vantages = rows.iter().map(|(name, vantage)| (name.clone(), row(vantage))).collect();
        Some(Sight { told_by: text(&status["agent"]), at_ms, vantages })
    }

    /// All regions that anyone said something of.
    #[must_use]
    pub fn regions(&self) -> Vec<&str> {
        let mut regions: Vec<&str> =
            self.vantages.values().flat_map(|vantage| vantage.sees.keys().map(String::as_str)).collect();
        regions.sort_unstable();
        regions.dedup();
        regions
    }

    /// A cell as people read it.
    #[must_use]
    pub fn cell(&self, vantage: &str, region: &str) -> String {
        let seen = self.vantages.get(vantage).and_then(|vantage| vantage.sees.get(region));
        match seen {
            None => "not heard".to_owned(),
            Some(seen) if seen.vote => format!("{}, a vote", seen.verdict),
            Some(seen) if seen.verdict == "lost" => "lost, no vote".to_owned(),
            Some(seen) => seen.verdict.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_matrix_is_read_off_the_status_and_an_agent_alone_has_none() {
        let seen = |verdict: &str, abstains: Value| json!({ "verdict": verdict, "abstains": abstains });
        let status = json!({ "agent": "witness", "vantages": {
            "east": { "place": "east", "heard": 4100, "sees": {} },
            "west": { "place": "west", "heard": 90, "sees": { "shop": {
                "east": seen("lost", Value::Null), "west": seen("healthy", json!({ "kind": "x" })) } } },
            "witness": { "place": "witness", "heard": 0, "sees": { "shop": {
                "east": seen("lost", json!({ "kind": "unproven" })) } } },
        } });
        let sight = Sight::read(&status, 3000).unwrap();
        assert_eq!(sight.regions(), ["east", "west"]);
        assert_eq!(sight.cell("west", "east"), "lost, a vote");
        assert_eq!(sight.cell("west", "west"), "healthy");
        assert_eq!(sight.cell("witness", "east"), "lost, no vote");
        assert_eq!(sight.cell("east", "west"), "not heard");
        assert_eq!((sight.told_by.as_str(), sight.vantages["east"].heard_ms), ("witness", Some(4100)));
        assert_eq!(Sight::read(&json!({ "agent": "bastion", "vantages": {} }), 0), None);
    }
}
