//! What was received and is not stored yet, and what to store of it next.
//!
//! **Invariant:** the segment that is being received is held from its first byte on, until all of it is handed on.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lifeboat_core::{Lsn, Moment};

use super::names::SegmentSize;
use super::sealing::Buffers;
use crate::object::LONGEST_FRAME;

/// A segment that fills within this time at its present speed is not cut into pieces first: that would be the same work
/// twice.
const SOON: Duration = Duration::from_millis(100);

/// Slower than this within [`SOON`], it is not worth waiting for.
const FAST: u64 = 8 << 20;

/// What is left of a full segment is stored as a piece first when it is shorter than this and somebody waits for it.
const SHORT_TAIL: usize = 1 << 20;

/// A piece is one frame at most.
const LONGEST_PIECE: usize = LONGEST_FRAME;

/// A segment from its first byte on.
pub(crate) struct Filling {
    pub(crate) start: Lsn,
    bytes: BytesMut,
    /// Pieces were made up to here.
    cut: usize,
    /// Of everything up to there.
    hasher: blake3::Hasher,
    /// When the first byte after it was received.
    waiting_since: Option<Moment>,
}

/// A piece to be stored.
pub(crate) struct Cut {
    pub(crate) start: Lsn,
    pub(crate) part: Range<usize>,
    pub(crate) bytes: Bytes,
    pub(crate) before: String,
    pub(crate) received: Moment,
}

/// A whole segment to be stored.
pub(crate) struct Full {
    pub(crate) start: Lsn,
    pub(crate) bytes: Bytes,
    pub(crate) received: Moment,
}

/// What to do now.
pub(crate) enum Next {
    Piece(Cut),
    Segment(Full),
    /// Nothing before that moment, if ever, unless something happens.
    Wait(Option<Moment>),
}

/// What may be begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct May {
    pub(crate) piece: bool,
    pub(crate) segment: bool,
    pub(crate) piece_every: Duration,
    pub(crate) now: Moment,
}

pub(crate) struct Collected {
    size: SegmentSize,
    /// What segments are filled into.
    pub(crate) buffers: Buffers,
    filling: Filling,
    /// Full, and not handed on; with what is still to be cut from it.
    full: VecDeque<(Filling, Moment)>,
    received: Moment,
    /// Everything before is wanted durable at once.
    pub(crate) asked: Lsn,
    last_piece: Option<Moment>,
    recent: Recent,
}

impl Filling {
    fn new(start: Lsn, bytes: BytesMut) -> Self {
        Self { start, bytes, cut: 0, hasher: blake3::Hasher::new(), waiting_since: None }
    }

    fn at(&self, offset: usize) -> Lsn {
        Lsn::new(self.start.get() + offset as u64)
    }

    fn cut(&mut self, received: Moment) -> Cut {
        let part = self.cut..self.bytes.len().min(self.cut + LONGEST_PIECE);
        let bytes = Bytes::copy_from_slice(&self.bytes[part.clone()]);
        let before = self.hasher.finalize().to_hex().to_string();
        self.hasher.update(&bytes);
        self.cut = part.end;
        if self.cut == self.bytes.len() {
            self.waiting_since = None;
        }
        Cut { start: self.start, part, bytes, before, received }
    }
}

impl Collected {
    /// `there` is what the segment that begins at `start` has already, `cut` how much of it is stored.
    pub(crate) fn new(start: Lsn, there: &[u8], cut: usize, size: SegmentSize, now: Moment) -> Self {
        let buffers = Buffers::default();
        let mut filling = Filling::new(start, buffers.take(size.length()));
        filling.bytes.extend_from_slice(there);
        filling.hasher.update(&there[..cut]);
        filling.cut = cut;
        filling.waiting_since = (cut < there.len()).then_some(now);
        Self {
            size,
            buffers,
            filling,
            full: VecDeque::new(),
            received: now,
            asked: Lsn::default(),
            last_piece: None,
            recent: Recent::default(),
        }
    }

    /// The first byte that is not here.
    pub(crate) fn next(&self) -> Lsn {
        self.filling.at(self.filling.bytes.len())
    }

    /// Whether these bytes at `start` are what is held there; none when it is not held any more.
    pub(crate) fn holds(&self, start: Lsn, bytes: &[u8]) -> Option<bool> {
        let from = usize::try_from(start.get().checked_sub(self.filling.start.get())?).ok()?;
        Some(self.filling.bytes.get(from..from + bytes.len()).is_some_and(|held| held == bytes))
    }

    /// Where the segment begins that is being received.
    pub(crate) fn start(&self) -> Lsn {
        self.filling.start
    }

    /// The next bytes.
    pub(crate) fn take(&mut self, mut bytes: &[u8], now: Moment) {
        self.recent.add(bytes.len() as u64, now);
        self.received = now;
        while !bytes.is_empty() {
            let room = self.size.length() - self.filling.bytes.len();
            let (part, rest) = bytes.split_at(room.min(bytes.len()));
            self.filling.bytes.extend_from_slice(part);
            self.filling.waiting_since.get_or_insert(now);
            bytes = rest;
            if self.filling.bytes.len() == self.size.length() {
                let next = Filling::new(self.next(), self.buffers.take(self.size.length()));
                self.full.push_back((std::mem::replace(&mut self.filling, next), now));
            }
        }
    }

    /// The piece that began there was not stored: the next one begins there, as soon as there is more. Once its segment is
    /// full, that will hold it.
    pub(crate) fn cut_again(&mut self, from: Lsn) {
        let filling = &mut self.filling;
        if filling.start <= from && from < filling.at(filling.cut) {
            filling.cut = self.size.offset(from);
            filling.hasher = blake3::Hasher::new();
            filling.hasher.update(&filling.bytes[..filling.cut]);
            filling.waiting_since = None;
        }
    }

    /// What to do now.
    pub(crate) fn decide(&mut self, may: May) -> Next {
        if let Some((full, received)) = self.full.front_mut() {
            let tail = full.bytes.len() - full.cut;
            let wanted = may.piece_every.is_zero() || self.asked > full.at(full.cut);
            // Of a segment that never had a piece nobody waits for the end only.
            if may.piece && wanted && full.cut > 0 && (1..=SHORT_TAIL).contains(&tail) {
                return Next::Piece(full.cut(*received));
            }
            if !may.segment {
                return Next::Wait(None);
            }
            return match self.full.pop_front() {
                Some((full, received)) => {
                    Next::Segment(Full { start: full.start, bytes: full.bytes.freeze(), received })
                }
                None => Next::Wait(None),
            };
        }
        let Some(since) = self.filling.waiting_since else { return Next::Wait(None) };
        if !may.piece {
            return Next::Wait(None);
        }
        let asked = self.asked > self.filling.at(self.filling.cut);
        let mut due = if asked {
            since
        } else {
            self.last_piece.map_or(since, |last| (last + may.piece_every).max(since))
        };
        let left = (self.size.length() - self.filling.bytes.len()) as u64;
        if !asked && self.recent.count(may.now) >= left.max(FAST) {
            due = due.max(since + SOON);
        }
        if may.now < due {
            return Next::Wait(Some(due));
        }
        let cut = self.filling.cut(self.received);
        // What did not fit into it is the next one, and that is due at once.
        if self.filling.waiting_since.is_none() {
            self.last_piece = Some(may.now);
        }
        Next::Piece(cut)
    }
}

/// How much was received lately.
#[derive(Default)]
struct Recent {
    began: Moment,
    now: u64,
    before: u64,
}

impl Recent {
    fn turn(&mut self, now: Moment) {
        let age = now.since(self.began);
        if age >= SOON {
            self.before = if age < SOON * 2 { self.now } else { 0 };
            (self.now, self.began) = (0, now);
        }
    }

    fn add(&mut self, bytes: u64, now: Moment) {
        self.turn(now);
        self.now += bytes;
    }

    /// In the time before this, [`SOON`] long, or a little more.
    fn count(&mut self, now: Moment) -> u64 {
        self.turn(now);
        self.now.max(self.before)
    }
}
