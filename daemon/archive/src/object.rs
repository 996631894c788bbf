//! One object: a prologue that says what it is, sealed frames, and a trailer that says how many there are.
//!
//! ```text
//! prologue   "lifeboat" · format u16 · kind u8 · 0 · data key 8 · salt 32 · length of the label u32 · label (JSON)
//! frame      length of what is sealed u32 · length of what it opens to u32 (bit 31: as it is, not compressed) · sealed
//! trailer    a frame like the others, but sealed as the trailer: a JSON object
//! footer     length of the trailer's frame u32 · "end\n"
//! ```
//!
//! Numbers are little-endian. Each frame is AES-256-GCM under a key of this object alone, with its place as the nonce, and
//! bound to the digest of the prologue and of the object's name: no frame opens in another place, in another object, under
//! another label or another name.
//!
//! **Invariant:** a length that was read is compared with a limit before anything is made of that length.
//! **Invariant:** an object whose trailer does not open is not whole.

use std::cell::RefCell;
use std::io::Cursor;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use bytes::Bytes;
use lifeboat_engine::ports::ObjectName;
use serde::{Deserialize, Serialize};
use zstd::bulk::{Compressor, Decompressor};

use crate::keys::{DataKey, KeyId, KeyRing, random};
use crate::trouble::Trouble;

/// The format that is written, and the newest that is read.
pub const FORMAT: u32 = 1;

/// What every object begins with.
const MAGIC: &[u8; 8] = b"lifeboat";

/// What every object ends with.
const END: &[u8; 4] = b"end\n";

/// The part of the prologue before the label.
const FIXED: usize = 8 + 2 + 1 + 1 + 8 + 32 + 4;

/// The part of a frame before what is sealed.
pub(crate) const FRAME_HEAD: usize = 8;

/// The tag of a sealed frame.
const TAG: usize = 16;

/// The footer.
const FOOTER: usize = 8;

/// The longest label.
const LONGEST_LABEL: usize = 16 * 1024;

/// The most a frame opens to.
pub const LONGEST_FRAME: usize = 4 * 1024 * 1024;

/// The most a frame takes: what does not get smaller is stored as it is.
pub(crate) const LONGEST_SEALED: usize = LONGEST_FRAME + TAG;

/// Marks a frame that is not compressed.
const PLAIN: u32 = 1 << 31;

/// What an object is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Kind {
    /// A part of what a backup stores.
    Pack = 1,
    /// What a restore point is made of.
    Manifest = 2,
    /// A whole WAL segment.
    Segment = 3,
    /// A part of a WAL segment.
    Piece = 4,
    /// The history of a timeline.
    History = 5,
    /// What is to be removed, and when it was said.
    Mark = 6,
    /// What an agent needs to be built again: configuration, runbooks.
    Outfit = 7,
    /// What was found out: reports, evidence.
    Report = 8,
}

impl Kind {
    fn read(byte: u8) -> Option<Self> {
        use Kind::{History, Manifest, Mark, Outfit, Pack, Piece, Report, Segment};
        [Pack, Manifest, Segment, Piece, History, Mark, Outfit, Report]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// What the trailer says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// How long each frame is in the object, its head included.
    pub frames: Vec<u32>,
    /// How much they open to, together.
    pub plain: u64,
    /// The BLAKE3 digest of what they open to, in hexadecimal, where it was taken: in objects of one piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

thread_local! {
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    static OPENED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Seals the frames of one new object. Frames may be sealed by several threads at once.
pub struct Sealer {
    cipher: LessSafeKey,
    bound: [u8; 32],
    level: i32,
}

impl Sealer {
    /// For a new object of that name, with that label; with its prologue.
    ///
    /// # Errors
    /// The label is too long, or there are no random numbers.
    pub fn begin(
        key: &DataKey,
        name: &ObjectName,
        kind: Kind,
        label: &impl Serialize,
        level: i32,
    ) -> Result<(Self, Bytes), Trouble> {
        let broken =
            |error: serde_json::Error| Trouble::Broken(format!("a label cannot be written: {error}"));
        let label = serde_json::to_vec(label).map_err(broken)?;
        if label.len() > LONGEST_LABEL {
            return Err(Trouble::Broken(format!("a label of {} bytes", label.len())));
        }
        let salt: [u8; 32] = random()?;
        let mut prologue = Vec::with_capacity(FIXED + label.len());
        prologue.extend_from_slice(MAGIC);
        prologue.extend_from_slice(&u16::try_from(FORMAT).unwrap_or(u16::MAX).to_le_bytes());
        prologue.extend_from_slice(&[kind as u8, 0]);
        prologue.extend_from_slice(&key.id().bytes());
        prologue.extend_from_slice(&salt);
        prologue.extend_from_slice(&u32::try_from(label.len()).unwrap_or(u32::MAX).to_le_bytes());
        prologue.extend_from_slice(&label);
        let bound = bound(&prologue, name);
        Ok((Self { cipher: key.cipher(&salt)?, bound, level }, prologue.into()))
    }

    /// The frame at that place, as it is stored; appended to `out`.
    ///
    /// # Errors
    /// It is too long, or a library failed.
    pub fn frame(&self, place: u32, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Trouble> {
        self.seal(u64::from(place), plain, out)
    }

    fn seal(&self, place: u64, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Trouble> {
        if plain.len() > LONGEST_FRAME {
            return Err(Trouble::Broken(format!("a frame of {} bytes", plain.len())));
        }
        let start = out.len();
        let body = start + FRAME_HEAD;
        out.extend_from_slice(&[0; FRAME_HEAD]);
        let plain_length = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        let word = if compress(self.level, plain, out) {
            plain_length
        } else {
            out.extend_from_slice(plain);
            plain_length | PLAIN
        };
        let (nonce, aad) = (nonce(place), self.aad(word));
        let sealed = self.cipher.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut out[body..]);
        let tag = sealed.map_err(|_| Trouble::Broken("a frame cannot be sealed".to_owned()))?;
        out.extend_from_slice(tag.as_ref());
        let length = u32::try_from(out.len() - body).unwrap_or(u32::MAX);
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        out[start + 4..body].copy_from_slice(&word.to_le_bytes());
        Ok(())
    }

    fn aad(&self, word: u32) -> [u8; 36] {
        bound_to(&self.bound, word)
    }

    /// What comes after the last frame.
    ///
    /// # Errors
    /// It is too long.
    pub fn end(&self, trailer: &Trailer) -> Result<Bytes, Trouble> {
        let broken =
            |error: serde_json::Error| Trouble::Broken(format!("a trailer cannot be written: {error}"));
        let text = serde_json::to_vec(trailer).map_err(broken)?;
        let mut out = Vec::with_capacity(text.len() + FRAME_HEAD + TAG + FOOTER);
        self.seal(TRAILER, &text, &mut out)?;
        let length = u32::try_from(out.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(END);
        Ok(out.into())
    }
}

/// The place of the trailer: no frame has it.
const TRAILER: u64 = u64::MAX;

fn nonce(place: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&place.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn bound(prologue: &[u8], name: &ObjectName) -> [u8; 32] {
    *blake3::Hasher::new().update(prologue).update(name.as_str().as_bytes()).finalize().as_bytes()
}

fn bound_to(prologue: &[u8; 32], word: u32) -> [u8; 36] {
    let mut aad = [0; 36];
    aad[..32].copy_from_slice(prologue);
    aad[32..].copy_from_slice(&word.to_le_bytes());
    aad
}

/// Appends it, compressed; or nothing, when that gains nothing.
fn compress(level: i32, plain: &[u8], out: &mut Vec<u8>) -> bool {
    COMPRESSOR.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(have, _)| *have != level) {
            *kept = Compressor::new(level).ok().map(|compressor| (level, compressor));
        }
        let Some((_, compressor)) = kept.as_mut() else { return false };
        let Some(less) = plain.len().checked_sub(plain.len() / 64 + 1) else { return false };
        let start = out.len();
        // Into the room behind what is there: to clear it first would cost as much as to seal it.
        out.reserve(plain.len() + TAG);
        let mut behind = Cursor::new(std::mem::take(out));
        behind.set_position(start as u64);
        let packed = compressor.compress_to_buffer(plain, &mut behind);
        *out = behind.into_inner();
        let gains = packed.is_ok_and(|packed| packed <= less);
        if !gains {
            out.truncate(start);
        }
        gains
    })
}

/// Opens the frames of one object that exists.
pub struct Opener {
    name: ObjectName,
    kind: Kind,
    label: Bytes,
    cipher: LessSafeKey,
    bound: [u8; 32],
    prologue: usize,
}

impl Opener {
    /// How many bytes from the beginning of an object are enough for its prologue.
    pub const PROLOGUE: usize = FIXED + LONGEST_LABEL;

    /// From the first bytes of an object.
    ///
    /// # Errors
    /// They are no prologue, or need a key that is not there.
    pub fn begin(keys: &KeyRing, name: &ObjectName, bytes: &[u8]) -> Result<Self, Trouble> {
        let wrong = |why: &str| Trouble::damaged(name, why);
        let (fixed, rest) = bytes.split_first_chunk::<FIXED>().ok_or_else(|| wrong("it is cut off"))?;
        if !fixed.starts_with(MAGIC) {
            return Err(wrong("it is no object of an archive"));
        }
        let format = u32::from(u16::from_le_bytes([fixed[8], fixed[9]]));
        if format > FORMAT {
            return Err(Trouble::Newer { place: name.to_string(), format, ours: FORMAT });
        }
        let kind = Kind::read(fixed[10]).ok_or_else(|| wrong("it is of no known kind"))?;
        let mut id = [0; 8];
        id.copy_from_slice(&fixed[12..20]);
        let mut salt = [0; 32];
        salt.copy_from_slice(&fixed[20..52]);
        let length = word(&fixed[52..56]) as usize;
        if length > LONGEST_LABEL {
            return Err(wrong("its label is too long"));
        }
        let label = rest.get(..length).ok_or_else(|| wrong("it is cut off"))?;
        let id = KeyId::from_bytes(id);
        let key = keys.get(id).ok_or_else(|| Trouble::NoKey { name: name.clone(), key: id.to_string() })?;
        let prologue = FIXED + length;
        let bound = bound(&bytes[..prologue], name);
        let (cipher, label) = (key.cipher(&salt)?, Bytes::copy_from_slice(label));
        Ok(Self { name: name.clone(), kind, label, cipher, bound, prologue })
    }

    /// What the object is for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How long the prologue is: where the first frame begins.
    #[must_use]
    pub fn prologue(&self) -> usize {
        self.prologue
    }

    /// The label. It is only known to be right once a frame has opened.
    ///
    /// # Errors
    /// It is none of that form.
    pub fn label<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Trouble> {
        serde_json::from_slice(&self.label)
            .map_err(|error| Trouble::damaged(&self.name, format!("its label: {error}")))
    }

    /// What the frame at that place opens to, its head included in `stored`.
    ///
    /// # Errors
    /// It is not that frame, or was changed.
    pub fn frame(&self, place: u32, stored: &[u8]) -> Result<Vec<u8>, Trouble> {
        self.open(u64::from(place), stored)
    }

    /// The same, into a buffer that is used again: what is in it is replaced.
    ///
    /// # Errors
    /// It is not that frame, or was changed.
    pub fn frame_into(&self, place: u32, stored: &[u8], out: &mut Vec<u8>) -> Result<(), Trouble> {
        self.open_into(u64::from(place), stored, out)
    }

    fn open(&self, place: u64, stored: &[u8]) -> Result<Vec<u8>, Trouble> {
        let mut out = Vec::new();
        self.open_into(place, stored, &mut out)?;
        Ok(out)
    }

    fn open_into(&self, place: u64, stored: &[u8], out: &mut Vec<u8>) -> Result<(), Trouble> {
        let which = || if place == TRAILER { "its trailer".to_owned() } else { format!("frame {place}") };
        let wrong = |why: &str| Trouble::damaged(&self.name, format!("{} {why}", which()));
        let (head, sealed) = stored.split_first_chunk::<FRAME_HEAD>().ok_or_else(|| wrong("is cut off"))?;
        let (length, word_) = (word(&head[..4]) as usize, word(&head[4..]));
        let plain = (word_ & !PLAIN) as usize;
        if length != sealed.len() || length > LONGEST_SEALED || plain > LONGEST_FRAME {
            return Err(wrong("does not have the length it says"));
        }
        let aad = Aad::from(bound_to(&self.bound, word_));
        let unseal = |room: &mut Vec<u8>| -> Result<(), Trouble> {
            room.clear();
            room.extend_from_slice(sealed);
            let opened = self.cipher.open_in_place(nonce(place), aad, room);
            let opened = opened.map_err(|_| wrong("does not open: it was changed, or is another one"))?.len();
            room.truncate(opened);
            Ok(())
        };
        let whole = if word_ & PLAIN == 0 {
            OPENED.with_borrow_mut(|room| unseal(room).map(|()| decompress(room, plain, out)))?
        } else {
            unseal(out)?;
            out.len() == plain
        };
        if whole { Ok(()) } else { Err(wrong("does not have the length it says")) }
    }

    /// The trailer, from the last bytes of the object, and where it begins, counted from the end.
    ///
    /// # Errors
    /// It is cut off, or is not this object's.
    pub fn end(&self, tail: &[u8]) -> Result<(Trailer, usize), Trouble> {
        let wrong = |why: &str| Trouble::damaged(&self.name, why);
        let length = trailer_length(tail).ok_or_else(|| wrong("it is cut off, or was never finished"))?;
        let from_end = length + FOOTER;
        let frame = tail.len().checked_sub(from_end).map(|start| &tail[start..tail.len() - FOOTER]);
        let text =
            self.open(TRAILER, frame.ok_or_else(|| wrong("its trailer is longer than what was read"))?)?;
        let trailer: Trailer =
            serde_json::from_slice(&text).map_err(|error| wrong(&format!("its trailer: {error}")))?;
        Ok((trailer, from_end))
    }

    /// All that a whole object opens to, at most `most` bytes, its digest compared where there is one.
    ///
    /// # Errors
    /// It is not whole, was changed, or is longer.
    pub fn whole(&self, object: &[u8], most: usize) -> Result<Vec<u8>, Trouble> {
        let wrong = |why: &str| Trouble::damaged(&self.name, why);
        let (trailer, from_end) = self.end(object)?;
        if trailer.plain > most as u64 {
            return Err(wrong("it is longer than it may be"));
        }
        let mut frames = &object[self.prologue..object.len() - from_end];
        let mut out = Vec::with_capacity(usize::try_from(trailer.plain).unwrap_or_default());
        for (place, length) in (0_u32..).zip(&trailer.frames) {
            let (frame, rest) =
                frames.split_at_checked(*length as usize).ok_or_else(|| wrong("a frame is missing"))?;
            out.extend_from_slice(&self.frame(place, frame)?);
            frames = rest;
        }
        if !frames.is_empty() || out.len() as u64 != trailer.plain {
            return Err(wrong("it does not hold what its trailer says"));
        }
        match trailer.digest {
            Some(digest) if digest != blake3::hash(&out).to_hex().as_str() => {
                Err(wrong("its digest is another one"))
            }
            _ => Ok(out),
        }
    }
}

/// How long the trailer's frame is, by the footer at the end of these bytes.
pub(crate) fn trailer_length(tail: &[u8]) -> Option<usize> {
    let (length, end) = tail.last_chunk::<FOOTER>()?.split_at(4);
    let length = word(length) as usize;
    (end == END && length <= LONGEST_SEALED + FRAME_HEAD).then_some(length)
}

/// How many bytes from the end of an object are enough for its trailer, in nearly all cases.
pub(crate) const TAIL: u64 = 64 * 1024;

fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Whether it opens to exactly `plain` bytes, which are in `out` then.
fn decompress(packed: &[u8], plain: usize, out: &mut Vec<u8>) -> bool {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Decompressor::new().ok();
        }
        out.clear();
        out.reserve_exact(plain);
        let opened = kept.as_mut().and_then(|kept| kept.decompress_to_buffer(packed, out).ok());
        opened == Some(plain)
    })
}

/// One object that fits into memory, whole: its bytes.
///
/// # Errors
/// See [`Sealer`].
pub fn seal_whole(
    key: &DataKey,
    name: &ObjectName,
    kind: Kind,
    label: &impl Serialize,
    level: i32,
    plain: &[u8],
) -> Result<Bytes, Trouble> {
    let (sealer, prologue) = Sealer::begin(key, name, kind, label, level)?;
    let mut object = prologue.to_vec();
    let mut trailer =
        Trailer { digest: Some(blake3::hash(plain).to_hex().to_string()), ..Trailer::default() };
    for (place, part) in (0_u32..).zip(plain.chunks(LONGEST_FRAME)) {
        let before = object.len();
        sealer.frame(place, part, &mut object)?;
        trailer.frames.push(u32::try_from(object.len() - before).unwrap_or(u32::MAX));
        trailer.plain += part.len() as u64;
    }
    object.extend_from_slice(&sealer.end(&trailer)?);
    Ok(object.into())
}

#[cfg(test)]
mod tests;
