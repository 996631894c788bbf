//! What was received and not given out yet.
//!
//! **Invariant:** bytes are read once, into a large buffer, and given out as parts of it; nothing is copied but the
//! few bytes that are left over when a buffer is full.
//! **Invariant:** a buffer is written to again only when every part of it that was given out is gone.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of one buffer. Whoever keeps one part keeps the whole.
pub(super) const BUFFER: usize = 512 << 10;

/// Room that a read must find; with less, the next buffer is begun.
const LEAST_ROOM: usize = 64 << 10;

/// Buffers that were filled and are waited for. The parts of a fifth are still good, but it is not used again.
const MOST_LENT: usize = 4;

/// The buffers of a connection.
pub(super) struct Inbox {
    current: BytesMut,
    lent: VecDeque<BytesMut>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { current: BytesMut::with_capacity(BUFFER), lent: VecDeque::with_capacity(MOST_LENT) }
    }

    /// What is there.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.current
    }

    pub(super) fn len(&self) -> usize {
        self.current.len()
    }

    /// Gives out the next `length` bytes, or all when there are fewer.
    pub(super) fn take(&mut self, length: usize) -> BytesMut {
        self.current.split_to(length.min(self.current.len()))
    }

    /// The same, for good.
    pub(super) fn give(&mut self, length: usize) -> Bytes {
        self.take(length).freeze()
    }

    /// Passes over the next `length` bytes.
    pub(super) fn skip(&mut self, length: usize) {
        self.current.advance(length.min(self.current.len()));
    }

    /// Whether the buffer is about full, so that reading more would copy what is there.
    pub(super) fn cramped(&self) -> bool {
        self.current.capacity() - self.current.len() < LEAST_ROOM
    }

    /// Where to read to: a buffer with room.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        if self.cramped() && !self.current.try_reclaim(BUFFER.saturating_sub(self.current.len())) {
            let next = self.next();
            let mut full = std::mem::replace(&mut self.current, next);
            self.current.extend_from_slice(&full);
            full.clear();
            self.lend(full);
        }
        &mut self.current
    }

    fn lend(&mut self, full: BytesMut) {
        if self.lent.len() == MOST_LENT {
            self.lent.pop_front();
        }
        self.lent.push_back(full);
    }

    fn next(&mut self) -> BytesMut {
        let free = self.lent.iter_mut().position(|buffer| buffer.try_reclaim(BUFFER));
        free.and_then(|at| self.lent.remove(at)).unwrap_or_else(|| BytesMut::with_capacity(BUFFER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a read would: fills all room there is with `byte`. Where the buffer begins.
    fn fill(inbox: &mut Inbox, byte: u8) -> usize {
        let room = inbox.room();
        let length = room.capacity() - room.len();
        room.resize(room.len() + length, byte);
        room.as_ptr().addr()
    }

    #[test]
    fn a_buffer_whose_parts_are_gone_is_used_again() {
        let mut inbox = Inbox::new();
        let first = fill(&mut inbox, 1);
        for round in 2..50 {
            assert_eq!(inbox.give(BUFFER).len(), BUFFER);
            assert_eq!(fill(&mut inbox, round), first);
        }
        assert!(inbox.lent.is_empty());
    }

    #[test]
    fn parts_that_are_kept_keep_their_bytes_and_no_more_buffers_than_allowed_are_held() {
        let mut inbox = Inbox::new();
        let kept: Vec<(u8, Bytes)> = (0..20)
            .map(|round| {
                fill(&mut inbox, round);
                (round, inbox.give(BUFFER))
            })
            .collect();
        assert!(inbox.lent.len() <= MOST_LENT);
        for (round, bytes) in &kept {
            assert!(bytes.len() == BUFFER && bytes.iter().all(|byte| byte == round), "{round}");
        }
        let last = kept[19].1.as_ptr().addr();
        drop(kept);
        assert_eq!(fill(&mut inbox, 99), last);
    }

    #[test]
    fn what_is_left_over_goes_along_to_the_next_buffer() {
        let mut inbox = Inbox::new();
        fill(&mut inbox, 1);
        let kept = inbox.give(BUFFER - 5);
        assert!(inbox.cramped());
        fill(&mut inbox, 2);
        assert_eq!(inbox.len(), BUFFER);
        assert_eq!(&inbox.bytes()[..7], &[1, 1, 1, 1, 1, 2, 2]);
        inbox.skip(5);
        assert!(kept.iter().all(|byte| *byte == 1) && inbox.give(BUFFER).iter().all(|byte| *byte == 2));
    }
}
