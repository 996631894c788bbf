//! What goes wrong, and where.

use lifeboat_core::FaultKind;

/// One thing that goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// Attempts at a step, or at taking it back, end with this fault.
    Fails {
        step: String,
        undo: bool,
        kind: FaultKind,
        /// How many of them.
        times: u32,
        /// Whether its effect is there nevertheless.
        acted: bool,
    },
    /// Each of its outcomes comes twice.
    ToldTwice { step: String },
    /// Each of its effects is applied twice.
    ActsTwice { step: String },
    /// Its first outcome never comes, and the agent is killed later.
    Lost { step: String, acted: bool },
    /// The agent is killed when this many records were written since the beginning.
    Killed { after: usize, how: Death },
    /// The region that is left dies when this many were written, and stays dead.
    RegionDies { after: usize },
    /// A person cancels then.
    Cancelled { after: usize },
}

/// How the agent dies, and what happens until it is back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Death {
    /// Whether what the last decision ordered was begun.
    pub(crate) begun: bool,
    /// Whether what was under way still has its effect.
    pub(crate) lands: bool,
    /// Whether somebody opens the old primary to writes meanwhile, when the target is surely no primary.
    pub(crate) reopens: bool,
}

impl Death {
    /// Every way.
    pub(crate) const ALL: [Self; 4] = [
        Self { begun: false, lands: false, reopens: false },
        Self { begun: true, lands: false, reopens: false },
        Self { begun: true, lands: true, reopens: false },
        Self { begun: true, lands: true, reopens: true },
    ];
}
