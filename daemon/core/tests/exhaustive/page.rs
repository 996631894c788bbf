//! The page of the machine: its table, and the changes of phase that the exploration saw, drawn from both.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_core::ledger::Ledger;
use lifeboat_core::machine::{Happening, Reaction};
use lifeboat_core::order::Order;
use lifeboat_core::status::PhaseName;
use lifeboat_core::{Event, Moment, Record};

/// A change of phase.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Transition {
    pub(crate) from: PhaseName,
    pub(crate) to: PhaseName,
    pub(crate) by: String,
    pub(crate) happening: Happening,
}

/// What kind of event it is to the machine.
pub(crate) fn happening(event: &Event) -> Happening {
    match event {
        Event::Started | Event::Elected { .. } => Happening::Started,
        Event::StepEnded { .. } => Happening::StepEnded,
        Event::Ordered(order) => match order {
            Order::Failover { .. } => Happening::FailoverOrdered,
            Order::Switchover { .. } | Order::Failback { .. } | Order::Rejoin { .. } => {
                Happening::PlannedOrdered
            }
            Order::Approve { .. } => Happening::Approved,
            Order::Abandon { .. } => Happening::GiveUpOrdered,
            Order::Cancel { .. } => Happening::CancelOrdered,
            Order::Skip { .. } => Happening::SkipOrdered,
            Order::Pause { .. } => Happening::PauseOrdered,
            Order::Resume { .. } => Happening::ResumeOrdered,
        },
        Event::Tick
        | Event::Sighted(_)
        | Event::Witnessed(_)
        | Event::Testified(_)
        | Event::Silenced(_)
        | Event::Deposed
        | Event::Beaten(_)
        | Event::Recorded(_)
        | Event::Written(_)
        | Event::Coordinated(_)
        | Event::Guarded { .. } => Happening::Assessed,
    }
}

/// The changes of phase that records make, one after the other.
pub(crate) fn transitions(
    before: &Ledger,
    at: Moment,
    happening: Happening,
    records: &[Record],
) -> Vec<Transition> {
    let mut ledger = before.clone();
    let mut all = Vec::new();
    for record in records {
        let from = ledger.phase.name();
        ledger.apply(at, record);
        let to = ledger.phase.name();
        if from != to {
            all.push(Transition { from, to, by: by(record), happening });
        }
    }
    all
}

fn by(record: &Record) -> String {
    match record {
        Record::VerdictChanged { verdict, .. } => format!("the primary region is {verdict}"),
        Record::RunOpened { plan, .. } => format!("a {} opens", plan.kind),
        Record::RunEnded { ending, .. } => format!("it ends, {ending}"),
        Record::Stranded { .. } => "only a person can say how it goes on".to_owned(),
        Record::Continued { .. } => "a person lets it go on".to_owned(),
        Record::Unwinding { .. } => "a person has it taken back".to_owned(),
        Record::StepSkipped { .. } => "a person lets it go on without a step".to_owned(),
        other => other.to_string(),
    }
}

/// All that was seen of the machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chart {
    pub(crate) transitions: BTreeSet<Transition>,
    /// What the one who decides was told, in which phase, and the row of the table that applies.
    pub(crate) reactions: BTreeMap<(PhaseName, Happening), Reaction>,
    /// What came of each kind of order in each phase: the names of the reasons it was refused for, and whether it was taken.
    pub(crate) answers: BTreeMap<(PhaseName, Happening), (BTreeSet<String>, bool)>,
}

/// The phases of the table's columns.
const COLUMNS: [(&str, PhaseName); 3] = [
    ("guarding, doubting", PhaseName::Guarding),
    ("a run is under way", PhaseName::FailingOver),
    ("stranded", PhaseName::Stranded),
];

const PHASES: [PhaseName; 7] = [
    PhaseName::Guarding,
    PhaseName::Doubting,
    PhaseName::FailingOver,
    PhaseName::SwitchingOver,
    PhaseName::FailingBack,
    PhaseName::Rejoining,
    PhaseName::Stranded,
];

impl Chart {
    pub(crate) fn take(&mut self, other: &Self) {
        self.transitions.extend(other.transitions.iter().cloned());
        self.reactions.extend(other.reactions.iter().map(|(at, reaction)| (*at, *reaction)));
    }

    /// What of the table was not met, or not as its row says.
    pub(crate) fn lacks(&self) -> Vec<String> {
        let cells = PHASES.iter().flat_map(|phase| Happening::ALL.map(|happening| (*phase, happening)));
        cells
            .filter_map(|cell| {
                self.lacks_cell(cell).map(|why| format!("{} / {}: {why}", cell.0, cell.1.says()))
            })
            .collect()
    }

    fn lacks_cell(&self, cell: (PhaseName, Happening)) -> Option<String> {
        let Some(reaction) = self.reactions.get(&cell) else { return Some("never met".to_owned()) };
        let refuses = matches!(
            reaction,
            Reaction::RefuseRunOpen | Reaction::RefuseNothingAsked | Reaction::RefuseNotStranded
        );
        let ordered = !matches!(cell.1, Happening::Started | Happening::Assessed | Happening::StepEnded);
        let answers = self.answers.get(&cell);
        if ordered && answers.is_none() {
            return Some("nobody ordered it".to_owned());
        }
        match answers {
            Some((_, true)) if refuses => Some("taken, where it is refused".to_owned()),
            Some((reasons, false)) if refuses && reasons.is_empty() => {
                Some("refused without a reason".to_owned())
            }
            _ => None,
        }
    }

    /// The page: what was seen, and the table.
    pub(crate) fn drawing(&self) -> String {
        let mut page = String::from("```\n");
        for phase in PHASES {
            page.push_str(&format!("{phase}\n"));
            let mut ways: BTreeMap<&str, (BTreeSet<PhaseName>, BTreeSet<Happening>)> = BTreeMap::new();
            for seen in self.transitions.iter().filter(|seen| seen.from == phase) {
                let (to, when) = ways.entry(&seen.by).or_default();
                to.insert(seen.to);
                when.insert(seen.happening);
            }
            let mut ways: Vec<_> = ways.into_iter().collect();
            ways.sort_by_key(|(_, (to, _))| to.first().copied());
            for (by, (to, when)) in ways {
                let to: Vec<String> = to.iter().map(ToString::to_string).collect();
                let when: Vec<&str> = when.into_iter().map(Happening::says).collect();
                page.push_str(&format!("  ─► {:<20} {by:<54}({})\n", to.join(", "), when.join("; ")));
            }
        }
        page.push_str("```\n\nWhat each kind of event does in each phase:\n\n```\n");
        let named = |reaction: &Reaction| format!("{reaction:?}");
        page.push_str(&format!("{:<24}", ""));
        COLUMNS.iter().for_each(|(name, _)| page.push_str(&format!("{name:<20}")));
        let mut met = BTreeSet::new();
        for happening in Happening::ALL {
            page.push_str(&format!("\n{:<24}", happening.says()));
            for (_, phase) in COLUMNS {
                let reaction = self.reactions.get(&(phase, happening));
                met.extend(reaction);
                page.push_str(&format!("{:<20}", reaction.map(named).unwrap_or_default()));
            }
        }
        page.push_str("\n\n");
        met.into_iter()
            .for_each(|reaction| page.push_str(&format!("{:<20}{}\n", named(reaction), reaction.says())));
        page.push_str("```\n");
        page.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

const BEGIN: &str = "<!-- drawn by daemon/core/tests/exhaustive, from here -->\n";
const END: &str = "<!-- to here -->\n";

/// Compares the drawing with the one on the page, or writes it there.
pub(crate) fn compare(drawing: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ARCHITECTURE.md");
    let page = std::fs::read_to_string(path).expect("the map is there");
    let (before, rest) = page.split_once(BEGIN).expect("the map has a place for the drawing");
    let (drawn, after) = rest.split_once(END).expect("the place for the drawing has an end");
    if std::env::var_os("LIFEBOAT_BLESS").is_some() {
        let page = format!("{before}{BEGIN}{drawing}{END}{after}");
        return std::fs::write(path, page).expect("the map can be written");
    }
    assert!(
        drawn == drawing,
        "the map is not the machine: LIFEBOAT_BLESS=1 draws it anew. It would say:\n{drawing}"
    );
}
