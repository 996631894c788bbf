//! What agents say to each other, sealed: each has an Ed25519 key of its own, and knows the others' public keys.
//!
//! **Invariant:** a private key is in a file that only its owner can read, or it is not used.
//! **Invariant:** who a seal is of is decided by the key that is configured for that agent, never by what came with it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use lifeboat_core::AgentName;
use lifeboat_engine::ports::Seal;
use thiserror::Error;

pub(crate) mod base64;

/// The first line of the file of a key: PKCS #8 as RFC 7468 writes it, so that the usual tools can read it.
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// A private key's file is 119 bytes long; more than this is something else.
const MOST: u64 = 4096;

/// The length of an Ed25519 public key, in bytes (RFC 8032, section 5.1.5).
const PUBLIC: usize = 32;

/// Why a key cannot be used.
#[derive(Debug, Error)]
pub enum SealError {
    /// The file of the private key cannot be made, read or written.
    #[error("cannot use the key file {path}", path = path.display())]
    File {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Others can read the file.
    #[error("the key file {path} has mode {mode:04o}: others can read it. Run: chmod 0600 {path}", path = path.display())]
    Open {
        /// Where it is.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds something else.
    #[error("the key file {path} does not hold an Ed25519 private key", path = path.display())]
    NoKey {
        /// Where it is.
        path: PathBuf,
    },
    /// A public key is not one.
    #[error("the public key of {agent} is not the base64 text of an Ed25519 public key")]
    NoPublicKey {
        /// Whose it should be.
        agent: AgentName,
    },
    /// The system gave no random numbers.
    #[error("a key could not be made")]
    Unmade,
}

/// An agent's own key.
pub struct KeyPair(Ed25519KeyPair);

impl KeyPair {
    /// Reads the key from its file; makes both, with mode 0600, when there is no file yet. Two that start at once on one
    /// file end up with one key.
    ///
    /// # Errors
    /// When the file cannot be used, others can read it, or it holds something else.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        match Self::read(path) {
            Err(SealError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Self::make(path)?;
                Self::read(path)
            }
            read => read,
        }
    }

    /// The public key, as it is written in the configuration of the other agents.
    pub fn public(&self) -> String {
        base64::text(self.0.public_key().as_ref())
    }

    fn read(path: &Path) -> Result<Self, SealError> {
        let failed = |source| SealError::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SealError::Open { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        let nothing = || SealError::NoKey { path: path.to_owned() };
        file.take(MOST).read_to_string(&mut text).map_err(failed)?;
        let body = text.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
        let body: String = body.ok_or_else(nothing)?.split_whitespace().collect();
        let bytes = base64::bytes(body.as_bytes()).ok_or_else(nothing)?;
        Ed25519KeyPair::from_pkcs8(&bytes).map(Self).map_err(|_| nothing())
    }

    fn make(path: &Path) -> Result<(), SealError> {
        let failed = |source| SealError::File { path: path.to_owned(), source };
        let pair = Ed25519KeyPair::generate().map_err(|_| SealError::Unmade)?;
        let document = pair.to_pkcs8v1().map_err(|_| SealError::Unmade)?;
        let text = format!("{BEGIN}\n{}\n{END}\n", base64::text(document.as_ref()));
        // Written beside it and linked into place: a file of this name is always a whole key, and the first one stays.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", base64::word().ok_or(SealError::Unmade)?));
        let beside = PathBuf::from(beside);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let linked = written.and_then(|()| match std::fs::hard_link(&beside, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
        let removed = std::fs::remove_file(&beside);
        linked.and(removed).map_err(failed)
    }
}

/// The public key of the private key in that file, which is made when it is missing.
///
/// # Errors
/// Those of [`KeyPair::open`].
pub fn public_key(path: &Path) -> Result<String, SealError> {
    Ok(KeyPair::open(path)?.public())
}

/// This agent's key, and what it knows of the others'.
pub struct Seals {
    own: KeyPair,
    agents: BTreeMap<AgentName, Vec<u8>>,
}

impl Seals {
    /// With the public keys of all agents whose seal can be believed, this one's own included if it should be.
    ///
    /// # Errors
    /// When a public key is not one.
    pub fn new(own: KeyPair, agents: &BTreeMap<AgentName, String>) -> Result<Self, SealError> {
        let key = |(agent, text): (&AgentName, &String)| {
            let bytes = base64::bytes(text.trim().as_bytes()).filter(|bytes| bytes.len() == PUBLIC);
            let bytes = bytes.ok_or_else(|| SealError::NoPublicKey { agent: agent.clone() })?;
            Ok((agent.clone(), bytes))
        };
        Ok(Self { own, agents: agents.iter().map(key).collect::<Result<_, _>>()? })
    }
}

impl Seal for Seals {
    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.own.0.sign(bytes).as_ref().to_vec()
    }

    fn is_of(&self, agent: &AgentName, bytes: &[u8], seal: &[u8]) -> bool {
        self.agents
            .get(agent)
            .is_some_and(|key| UnparsedPublicKey::new(&ED25519, key).verify(bytes, seal).is_ok())
    }
}

#[cfg(test)]
mod tests;
