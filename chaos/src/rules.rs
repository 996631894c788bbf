//! What the network between places does: a rule for each pair of them, and each direction.
//!
//! **Invariant:** within a place nothing is cut.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::proxy::Fault;
use crate::region::Place;

/// All rules; those not set let everything pass.
#[derive(Debug, Default)]
pub struct Rules(Mutex<BTreeMap<(Place, Place), Fault>>);

impl Rules {
    /// Sets what happens to bytes from one place to another.
    pub fn set(&self, from: Place, to: Place, fault: Fault) {
        if from != to {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((from, to), fault);
        }
    }

    /// Lifts them all.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What a connection from one place to another obeys: there, and back.
    #[must_use]
    pub fn of(&self, from: Place, to: Place) -> (Fault, Fault) {
        let rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rule = |pair| rules.get(&pair).copied().unwrap_or_default();
        (rule((from, to)), rule((to, from)))
    }
}
