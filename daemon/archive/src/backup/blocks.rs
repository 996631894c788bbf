//! Fingerprints of blocks: which of them are what they were?
//!
//! A fingerprint is the beginning of GMAC over the block, under a key that is derived for this alone, with one nonce for all.
//! One nonce would be wrong for what others see: here nobody sees a fingerprint, they are stored sealed. What is left is a
//! keyed polynomial hash (NIST SP 800-38D, section 6.4): whoever chooses two blocks of 8 KiB without the key makes them collide
//! with a probability of at most 513 in 2^64. And a collision would not go unseen: the digest of the whole file would be
//! another one at restore.
//!
//! **Invariant:** fingerprints of two backups are compared only when they were taken with the same key.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::archive::Archive;
use crate::keys::DataKey;
use crate::manifest::Manifest;
use crate::trouble::Trouble;

/// How long a block is; the last one of a file may be shorter. It is PostgreSQL's page.
pub(crate) const BLOCK: usize = 8192;

/// How long a fingerprint is.
pub(crate) const PRINT: usize = 8;

/// So many fingerprints are referenced, or stored, together.
pub(crate) const GROUP: usize = 128;

/// Takes fingerprints.
pub(crate) struct Fingerprints {
    key: String,
    cipher: LessSafeKey,
}

impl Fingerprints {
    /// With the key of an earlier backup, when there is one and the key is at hand; else with the newest.
    pub(crate) fn new(archive: &Archive, like: Option<&Manifest>) -> Result<Self, Trouble> {
        let same = |key: &&DataKey| like.is_some_and(|like| key.id().to_string() == like.prints_key);
        Self::of(archive.keys().iter().find(same).unwrap_or_else(|| archive.keys().newest()))
    }

    fn of(key: &DataKey) -> Result<Self, Trouble> {
        let secret = key.secret("lifeboat block fingerprints 1")?;
        let broken = |_| Trouble::Broken("a cipher cannot be made".to_owned());
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &secret).map_err(broken)?);
        Ok(Self { key: key.id().to_string(), cipher })
    }

    /// The data key they are taken with.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Appends the fingerprint of each block.
    pub(crate) fn take(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Trouble> {
        for block in bytes.chunks(BLOCK) {
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            let tag = self.cipher.seal_in_place_separate_tag(nonce, Aad::from(block), &mut []);
            let tag = tag.map_err(|_| Trouble::Broken("a fingerprint cannot be taken".to_owned()))?;
            out.extend_from_slice(&tag.as_ref()[..PRINT]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_of_the_block_its_length_and_the_key() {
        let [one, other] = [DataKey::make().unwrap(), DataKey::make().unwrap()];
        let print = |key: &DataKey, bytes: &[u8]| {
            let mut out = Vec::new();
            Fingerprints::of(key).unwrap().take(bytes, &mut out).unwrap();
            out
        };
        let block = [7_u8; BLOCK];
        let mut changed = block;
        changed[BLOCK - 1] ^= 1;
        assert_eq!(print(&one, &block), print(&one, &block));
        assert_ne!(print(&one, &block), print(&other, &block));
        assert_ne!(print(&one, &block), print(&one, &changed));
        assert_ne!(print(&one, &block), print(&one, &block[1..]));
        assert_ne!(print(&one, &[0; 16]), print(&one, &[0; 32]));
        assert_eq!(print(&one, &[block, changed].concat()).len(), 2 * PRINT);
        assert_eq!(print(&one, &[&block[..], &changed[..5]].concat()).len(), 2 * PRINT);
    }
}
