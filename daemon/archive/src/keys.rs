//! The keys of an archive: a key file that people keep, and data keys that it opens.
//!
//! What is stored is sealed under keys that are derived, one for each object, from a data key. The data key is in the
//! archive itself, sealed by the key file. So a new key file seals the data keys again and rewrites no data; and whoever
//! has the archive and one of its key files has everything.
//!
//! **Invariant:** no key leaves this module but to the ciphers, and to the file that is made for it.
//! **Invariant:** a key file that others can read is not used.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};

use crate::trouble::Trouble;

/// The length of every key, in bytes.
const KEY: usize = 32;

/// The first word of a key file.
const WORD: &str = "lifeboat-archive-key-1";

/// A key file is one short line; more than this is something else.
const MOST: u64 = 4096;

/// What seals a data key is bound to this.
const WRAPPED: &[u8] = b"lifeboat archive data key 1";

/// The name of a key, which says nothing about it: the beginning of a digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

impl KeyId {
    fn of(context: &str, key: &[u8]) -> Self {
        let digest = blake3::derive_key(context, key);
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        Self(id)
    }

    pub(crate) const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// What a person keeps: it opens the archive's data keys.
pub struct KeyFile {
    key: [u8; KEY],
}

impl KeyFile {
    /// Reads one.
    ///
    /// # Errors
    /// It is not there, others can read it, or it is none.
    pub fn open(path: &Path) -> Result<Self, Trouble> {
        let wrong = |why: String| Trouble::KeyFile { path: path.to_owned(), why };
        let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
        let mode = file.metadata().map_err(|error| wrong(error.to_string()))?.mode();
        if mode & 0o077 != 0 {
            return Err(wrong(format!(
                "has mode {:04o}, others can read it. Run: chmod 0600 {}",
                mode & 0o7777,
                path.display()
            )));
        }
        let mut text = String::new();
        file.take(MOST).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
        let mut words = text.split_whitespace();
        let key = match (words.next(), words.next(), words.next()) {
            (Some(WORD), Some(key), None) => BASE64.decode(key.as_bytes()).ok(),
            _ => None,
        };
        let key = key.and_then(|key| <[u8; KEY]>::try_from(key).ok());
        key.map(|key| Self { key }).ok_or_else(|| wrong("does not hold an archive key".to_owned()))
    }

    /// Makes one, in a new file with mode 0600.
    ///
    /// # Errors
    /// There is a file already, or it cannot be written.
    pub fn make(path: &Path) -> Result<Self, Trouble> {
        let wrong = |why: String| Trouble::KeyFile { path: path.to_owned(), why };
        let made = Self { key: random()? };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = file.map_err(|error| wrong(error.to_string()))?;
        let line = format!("{WORD} {}\n", BASE64.encode(&made.key));
        file.write_all(line.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|error| wrong(error.to_string()))?;
        Ok(made)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::of("lifeboat 2026 archive key file id", &self.key)
    }

    fn cipher(&self) -> Result<LessSafeKey, Trouble> {
        cipher(&self.key)
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({})", self.id())
    }
}

/// A data key as the archive keeps it: sealed by a key file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wrapped {
    /// The data key's name.
    pub(crate) key: String,
    /// The key file's name.
    pub(crate) by: String,
    /// The public half of what signs manifests, in base64.
    pub(crate) public: String,
    nonce: String,
    sealed: String,
}

/// What an archive's data is sealed and signed with.
pub struct DataKey {
    id: KeyId,
    data: [u8; KEY],
    seed: [u8; KEY],
    signing: Ed25519KeyPair,
}

impl DataKey {
    /// A new one.
    ///
    /// # Errors
    /// There are no random numbers.
    pub(crate) fn make() -> Result<Self, Trouble> {
        Self::of(random()?, random()?)
    }

    fn of(data: [u8; KEY], seed: [u8; KEY]) -> Result<Self, Trouble> {
        let signing = Ed25519KeyPair::from_seed_unchecked(&seed);
        let signing = signing.map_err(|_| Trouble::Broken("a signing key cannot be made".to_owned()))?;
        let id = KeyId::of("lifeboat 2026 archive data key id", &data);
        Ok(Self { id, data, seed, signing })
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Sealed by that key file.
    pub(crate) fn wrap(&self, by: &KeyFile) -> Result<Wrapped, Trouble> {
        let nonce: [u8; 12] = random()?;
        let mut sealed = [self.data, self.seed].concat();
        let broken = |_| Trouble::Broken("a data key cannot be sealed".to_owned());
        let aad = Aad::from(WRAPPED);
        let unique = Nonce::assume_unique_for_key(nonce);
        by.cipher()?.seal_in_place_append_tag(unique, aad, &mut sealed).map_err(broken)?;
        Ok(Wrapped {
            key: self.id.to_string(),
            by: by.id().to_string(),
            public: BASE64.encode(self.signing.public_key().as_ref()),
            nonce: BASE64.encode(&nonce),
            sealed: BASE64.encode(&sealed),
        })
    }

    /// Opened with that key file; none when another one sealed it, or it was changed.
    pub(crate) fn unwrap(wrapped: &Wrapped, with: &KeyFile) -> Option<Self> {
        let nonce = BASE64.decode(wrapped.nonce.as_bytes()).ok()?.try_into().ok()?;
        let mut sealed = BASE64.decode(wrapped.sealed.as_bytes()).ok()?;
        let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(WRAPPED));
        let opened = with.cipher().ok()?.open_in_place(nonce, aad, &mut sealed).ok()?;
        let (data, seed) = opened.split_first_chunk::<KEY>()?;
        let opened = Self::of(*data, seed.try_into().ok()?).ok()?;
        (opened.id.to_string() == wrapped.key).then_some(opened)
    }

    /// The cipher of the object that has that salt.
    pub(crate) fn cipher(&self, salt: &[u8; KEY]) -> Result<LessSafeKey, Trouble> {
        let mut key = [0; KEY];
        self.derive(salt, b"lifeboat archive object 1", &mut key)?;
        cipher(&key)
    }

    /// A key for something else than a cipher, always the same for one purpose.
    pub(crate) fn secret(&self, purpose: &str) -> Result<[u8; KEY], Trouble> {
        let mut key = [0; KEY];
        self.derive(&[0; KEY], purpose.as_bytes(), &mut key)?;
        Ok(key)
    }

    fn derive(&self, salt: &[u8; KEY], purpose: &[u8], key: &mut [u8; KEY]) -> Result<(), Trouble> {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                KEY
            }
        }
        let broken = |_| Trouble::Broken("a key cannot be derived".to_owned());
        let prk = Salt::new(HKDF_SHA256, salt).extract(&self.data);
        prk.expand(&[purpose], Length).map_err(broken)?.fill(key).map_err(broken)
    }

    /// Signs what is in `digest`.
    pub(crate) fn sign(&self, digest: &[u8]) -> Vec<u8> {
        self.signing.sign(digest).as_ref().to_vec()
    }

    /// Whether `signature` is this key's over `digest`.
    pub(crate) fn signed(&self, digest: &[u8], signature: &[u8]) -> bool {
        let public = self.signing.public_key().as_ref();
        UnparsedPublicKey::new(&ED25519, public).verify(digest, signature).is_ok()
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({})", self.id)
    }
}

/// All data keys that are open; one of them seals what is new.
#[derive(Debug)]
pub struct KeyRing {
    newest: KeyId,
    keys: BTreeMap<KeyId, DataKey>,
}

impl KeyRing {
    /// Of these; the last one seals what is new. None when there is none.
    pub(crate) fn of(keys: Vec<DataKey>) -> Option<Self> {
        let newest = keys.last()?.id();
        Some(Self { newest, keys: keys.into_iter().map(|key| (key.id(), key)).collect() })
    }

    /// What seals what is new.
    pub(crate) fn newest(&self) -> &DataKey {
        &self.keys[&self.newest]
    }

    /// The one of that name.
    pub(crate) fn get(&self, id: KeyId) -> Option<&DataKey> {
        self.keys.get(&id)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &DataKey> {
        self.keys.values()
    }
}

fn cipher(key: &[u8; KEY]) -> Result<LessSafeKey, Trouble> {
    let key = UnboundKey::new(&AES_256_GCM, key);
    Ok(LessSafeKey::new(key.map_err(|_| Trouble::Broken("a cipher cannot be made".to_owned()))?))
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Trouble> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Trouble::Broken("no random numbers".to_owned()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_read_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive.key");
        let made = KeyFile::make(&path).unwrap();
        assert_eq!(KeyFile::open(&path).unwrap().id(), made.id());
        assert!(KeyFile::make(&path).unwrap_err().to_string().contains("exists"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(KeyFile::open(&path).unwrap_err().to_string().contains("chmod 0600"));
        let other = folder.path().join("other");
        std::fs::write(&other, "something else").unwrap();
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(KeyFile::open(&other).unwrap_err().to_string().contains("does not hold"));
    }

    #[test]
    fn a_data_key_is_opened_by_the_key_file_that_sealed_it_and_by_no_other() {
        let [ours, theirs] = [1, 2].map(|byte| KeyFile { key: [byte; KEY] });
        let key = DataKey::make().unwrap();
        let wrapped = key.wrap(&ours).unwrap();
        let opened = DataKey::unwrap(&wrapped, &ours).unwrap();
        assert_eq!((opened.id, opened.data, opened.seed), (key.id, key.data, key.seed));
        assert!(DataKey::unwrap(&wrapped, &theirs).is_none());
        let mut changed = wrapped.clone();
        changed.key = key.id().to_string().replace(|_: char| true, "0");
        assert!(DataKey::unwrap(&changed, &ours).is_none(), "not under another name");
        assert!(opened.signed(b"digest", &key.sign(b"digest")));
        assert!(!opened.signed(b"digest", &DataKey::make().unwrap().sign(b"digest")));
    }
}
