//! The paths between places, and who is dead or stands still. Faults may overlap: each is counted.
//!
//! **Invariant:** a fault that ends takes back its own effect and no other's.

use crate::scenario::{Part, Site};

/// What is dead, frozen and cut, in counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    cut: [[u8; 3]; 3],
    isolated: [u8; 3],
    killed: [u8; 3],
    frozen: [u8; 3],
    members_killed: [u8; 3],
    members_frozen: [u8; 3],
    /// So many of a hundred messages are lost.
    pub(crate) lose: u64,
}

fn count(counter: &mut u8, begins: bool) {
    *counter = if begins { counter.saturating_add(1) } else { counter.saturating_sub(1) };
}

impl Network {
    pub(crate) fn cut(&mut self, from: Site, to: Site, begins: bool) {
        count(&mut self.cut[from.index()][to.index()], begins);
    }

    pub(crate) fn isolate(&mut self, site: Site, begins: bool) {
        count(&mut self.isolated[site.index()], begins);
    }

    /// Kills or revives a place or a member of the coordinator; says whether anything changed.
    pub(crate) fn kill(&mut self, part: Part, begins: bool) {
        match part {
            Part::Site(site) => count(&mut self.killed[site.index()], begins),
            Part::Member(site) => count(&mut self.members_killed[site.index()], begins),
            Part::Coordinator => self.members_killed.iter_mut().for_each(|c| count(c, begins)),
            Part::Agent(_) | Part::Database(_) | Part::Sentry(_) => {}
        }
    }

    /// The same for standing still.
    pub(crate) fn freeze(&mut self, part: Part, begins: bool) {
        match part {
            Part::Site(site) => count(&mut self.frozen[site.index()], begins),
            Part::Member(site) => count(&mut self.members_frozen[site.index()], begins),
            Part::Coordinator => self.members_frozen.iter_mut().for_each(|c| count(c, begins)),
            Part::Agent(_) | Part::Database(_) | Part::Sentry(_) => {}
        }
    }

    /// Whether a place has its machines.
    pub(crate) const fn alive(&self, site: usize) -> bool {
        self.killed[site] == 0
    }

    /// Whether its machines stand still.
    pub(crate) const fn still(&self, site: usize) -> bool {
        self.frozen[site] > 0
    }

    /// Whether its machines run.
    pub(crate) const fn awake(&self, site: usize) -> bool {
        self.alive(site) && !self.still(site)
    }

    /// Whether a place reaches the rest of the world.
    pub(crate) const fn outside(&self, site: usize) -> bool {
        self.isolated[site] == 0
    }

    /// Whether packets go both ways between two places.
    pub(crate) const fn talk(&self, a: usize, b: usize) -> bool {
        a == b
            || (self.isolated[a] == 0 && self.isolated[b] == 0 && self.cut[a][b] == 0 && self.cut[b][a] == 0)
    }

    const fn member(&self, site: usize) -> bool {
        self.awake(site) && self.members_killed[site] == 0 && self.members_frozen[site] == 0
    }

    /// Whether an agent in a place can use the coordinator: it reaches a member that is one of a majority.
    pub(crate) fn coordinated(&self, site: usize) -> bool {
        const PAIRS: [(usize, usize); 3] = [(0, 1), (1, 2), (0, 2)];
        PAIRS.into_iter().any(|(a, b)| {
            self.member(a) && self.member(b) && self.talk(a, b) && (self.talk(site, a) || self.talk(site, b))
        })
    }
}
