//! Seals for tests: each name has a secret that is easily guessed, and no other.

use std::hash::{DefaultHasher, Hash, Hasher};

use lifeboat_core::AgentName;
use lifeboat_engine::ports::Seal;

/// Signs as one name, and knows everybody's.
pub(crate) struct Named(AgentName);

impl Named {
    /// Signs as that name.
    pub(crate) fn new(name: AgentName) -> Self {
        Self(name)
    }
}

fn seal(name: &AgentName, bytes: &[u8]) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    ("the secret of", name.as_str(), bytes).hash(&mut hasher);
    hasher.finish().to_be_bytes().to_vec()
}

impl Seal for Named {
    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        seal(&self.0, bytes)
    }

    fn is_of(&self, agent: &AgentName, bytes: &[u8], found: &[u8]) -> bool {
        seal(agent, bytes) == found
    }
}
