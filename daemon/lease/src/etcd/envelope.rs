//! What one agent says to the others, with its seal.
//!
//! **Invariant:** a seal is on what is said, where it is said and to which lifeboat: it is not one on anything else.

use lifeboat_core::AgentName;
use lifeboat_engine::ports::Seal;
use serde::{Deserialize, Serialize};

use crate::seal::base64;

/// The most bytes that are looked at.
pub(super) const MOST: usize = 256 * 1024;

#[derive(Serialize, Deserialize)]
struct Envelope {
    /// JSON.
    body: String,
    /// Base64, over the key and the body.
    seal: String,
}

/// Seals a body, to be put under that key; none when it is larger than anybody would read.
pub(super) fn close(seal: &dyn Seal, key: &str, body: String) -> Option<Vec<u8>> {
    let seal = base64::text(&seal.sign(&sealed(key, &body)));
    serde_json::to_vec(&Envelope { body, seal }).ok().filter(|value| value.len() <= MOST)
}

/// The body of what was found under that key, as it was written; nothing is known of its seal yet.
pub(super) struct Opened {
    pub(super) body: String,
    seal: Vec<u8>,
    bytes: Vec<u8>,
}

impl Opened {
    /// Reads it, or says what is wrong.
    pub(super) fn read(key: &str, value: &[u8]) -> Result<Self, String> {
        if value.len() > MOST {
            return Err(format!("it has {} bytes; at most {MOST} are read", value.len()));
        }
        let Envelope { body, seal } =
            serde_json::from_slice(value).map_err(|error| format!("it is no sealed value: {error}"))?;
        let seal = base64::bytes(seal.as_bytes()).ok_or("its seal is not base64")?;
        Ok(Self { bytes: sealed(key, &body), body, seal })
    }

    /// Whether the seal is that agent's.
    pub(super) fn is_of(&self, seal: &dyn Seal, agent: &AgentName) -> Result<(), String> {
        let ours = seal.is_of(agent, &self.bytes, &self.seal);
        ours.then_some(()).ok_or_else(|| format!("the seal is not that of {agent}"))
    }
}

fn sealed(key: &str, body: &str) -> Vec<u8> {
    format!("{key}\n{body}").into_bytes()
}
