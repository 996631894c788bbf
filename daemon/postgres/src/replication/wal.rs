//! The write-ahead log, as it is written.
//!
//! **Invariant:** what is given out is contiguous: a byte that was left out or came twice is an error with its
//! position, and nothing after it is given out.
//! **Invariant:** nothing is reported to the server that it has not sent.
//! **Invariant:** the server hears of a position only what the caller reported.

use bytes::{BufMut, Bytes};
use lifeboat_core::{Lsn, Moment, Timeline};
use lifeboat_engine::clock::Clock;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::error::Error;
use super::notice::Said;
use super::wire::{Next, Row, Wire};

const ACT: &str = "the log's stream";

/// Bytes of what comes before the log in a message: the letter, where it begins, where the server is, its time.
const HEAD: usize = 1 + 8 + 8 + 8;

/// Seconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const EPOCH_SECONDS: u64 = 946_684_800;

/// What comes next of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wal {
    /// Log, which continues what came before.
    Bytes {
        /// The position of its first byte.
        start: Lsn,
        /// Never empty. A part of a large buffer, which lives as long as it does.
        bytes: Bytes,
        /// The end of the server's log.
        server_end: Lsn,
        /// When the server sent it, by its clock.
        sent_at: Moment,
    },
    /// A sign of life.
    Keepalive {
        /// The end of the server's log.
        server_end: Lsn,
        /// When the server sent it, by its clock.
        sent_at: Moment,
        /// The server wants to know how far we are, soon. It was told at once what was reported last; a newer report
        /// helps it when it shuts down, or when a commit waits.
        reply_wanted: bool,
    },
    /// The server's log goes on along another timeline, which is what comes next.
    TimelineEnd {
        /// The next timeline.
        next_timeline: Timeline,
        /// The first byte of the log that is of the next timeline.
        switched_at: Lsn,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The command was sent, and not answered.
    Asked,
    Streaming,
    /// The server ended the copy, or never began it; what comes next is its word on why.
    Ending(Option<(Timeline, Lsn)>),
    /// The timeline ended.
    Switched(Timeline, Lsn),
}

/// The positions that the caller reported.
#[derive(Clone, Copy)]
struct Report {
    written: Lsn,
    flushed: Lsn,
    applied: Lsn,
}

/// A stream of the log. Dropping it ends it.
pub struct WalStream {
    wire: Wire,
    clock: Clock,
    slot: Option<String>,
    timeline: Timeline,
    /// The position of the next byte.
    next: Lsn,
    phase: Phase,
    /// Of the message whose log is given out: the server's end, and its time.
    head: (Lsn, Moment),
    reported: Report,
    /// What came before it was asked for: the end of a timeline that has no log after where it was begun.
    came: Option<Wal>,
    /// A sign of life was asked for, and did not come yet.
    asked: bool,
}

impl WalStream {
    /// Asks for the log; returns when the server sends it, or says that the timeline ends there.
    pub(super) async fn begin(
        wire: Wire,
        clock: Clock,
        slot: Option<&str>,
        timeline: Timeline,
        from: Lsn,
    ) -> Result<Self, Error> {
        let zero = Lsn::new(0);
        let mut stream = Self {
            wire,
            clock,
            slot: slot.map(str::to_owned),
            timeline,
            next: from,
            phase: Phase::Asked,
            head: (zero, Moment::default()),
            reported: Report { written: zero, flushed: zero, applied: zero },
            came: None,
            asked: false,
        };
        stream.ask()?;
        while matches!(stream.phase, Phase::Asked | Phase::Ending(_)) {
            stream.came = stream.message().await?;
        }
        Ok(stream)
    }

    /// The timeline of what comes.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// The position of the next byte that comes.
    pub fn position(&self) -> Lsn {
        self.next
    }

    /// What comes next. May be given up and asked again.
    ///
    /// # Errors
    /// Whatever ends the stream; what was given out before is good. A server that shuts down in order waits until
    /// all it sent is reported as flushed, then ends with [`Error::ShutDown`].
    pub async fn next(&mut self) -> Result<Wal, Error> {
        if let Some(came) = self.came.take() {
            return Ok(came);
        }
        loop {
            if let Phase::Switched(timeline, at) = self.phase {
                self.follow(timeline, at)?;
            }
            let came = if self.wire.left() > 0 { Some(self.log().await?) } else { self.message().await? };
            if let Some(came) = came {
                return Ok(came);
            }
        }
    }

    /// After [`Wal::TimelineEnd`]: goes on at `from`, at or before where the timelines part, instead of exactly there.
    /// The beginning of the segment makes the next timeline's file of it whole.
    ///
    /// # Errors
    /// [`Error::Misuse`] at any other time, or when `from` lies behind that position.
    pub fn go_on_from(&mut self, from: Lsn) -> Result<(), Error> {
        match self.phase {
            Phase::Switched(timeline, at) if from <= at => self.follow(timeline, from),
            _ => Err(Error::Misuse(
                "a stream goes on elsewhere only where a timeline ended, and not behind that",
            )),
        }
    }

    /// Tells the server how far we are: `written` by us, `flushed` to where it cannot be lost, `applied` (the same,
    /// for an archive). With `reply_now` the server answers at once, with a keepalive. Positions never go back.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a position that was not given out; otherwise as for [`Self::next`].
    pub async fn report(
        &mut self,
        written: Lsn,
        flushed: Lsn,
        applied: Lsn,
        reply_now: bool,
    ) -> Result<(), Error> {
        if written.max(flushed).max(applied) > self.next {
            return Err(Error::Misuse("a position is reported that was never sent"));
        }
        let last = self.reported;
        self.reported = Report {
            written: written.max(last.written),
            flushed: flushed.max(last.flushed),
            applied: applied.max(last.applied),
        };
        if self.phase == Phase::Streaming {
            self.put_report(reply_now)?;
        }
        self.wire.flush().await
    }

    fn put_report(&mut self, reply_now: bool) -> Result<(), Error> {
        let Report { written, flushed, applied } = self.reported;
        let millis = self.clock.now().millis().saturating_sub(EPOCH_SECONDS * 1000);
        self.wire.put(|out| {
            out.put_u8(b'd');
            out.put_i32(4 + 1 + 4 * 8 + 1);
            out.put_u8(b'r');
            for position in [written, flushed, applied] {
                out.put_u64(position.get());
            }
            out.put_u64(millis.saturating_mul(1000));
            out.put_u8(u8::from(reply_now));
            Ok(())
        })
    }

    fn ask(&mut self) -> Result<(), Error> {
        let slot = self.slot.as_ref().map(|slot| format!("SLOT {slot} ")).unwrap_or_default();
        let command = format!("START_REPLICATION {slot}PHYSICAL {} TIMELINE {}", self.next, self.timeline);
        self.wire.act = ACT;
        self.phase = Phase::Asked;
        self.wire.put(|out| frontend::query(&command, out))
    }

    fn follow(&mut self, timeline: Timeline, from: Lsn) -> Result<(), Error> {
        (self.timeline, self.next) = (timeline, from);
        self.ask()
    }

    /// More of the log of a message.
    async fn log(&mut self) -> Result<Wal, Error> {
        self.wire.await_copy().await?;
        let bytes = self.wire.give(self.wire.left());
        let start = self.next;
        self.next = Lsn::new(start.get().saturating_add(bytes.len() as u64));
        let (server_end, sent_at) = self.head;
        Ok(Wal::Bytes { start, bytes, server_end, sent_at })
    }

    async fn message(&mut self) -> Result<Option<Wal>, Error> {
        self.wire.flush().await?;
        let next = match self.wire.next(HEAD).await {
            // Half of the silence that is allowed has passed: it is asked whether anybody is there.
            Err(Error::TimedOut { .. }) if self.phase == Phase::Streaming && !self.asked => {
                self.asked = true;
                self.put_report(true)?;
                return Ok(None);
            }
            Err(Error::TimedOut { act, limit }) => return Err(Error::TimedOut { act, limit: limit * 2 }),
            next => next?,
        };
        self.asked = false;
        match (next, self.phase) {
            (Next::Copy, Phase::Streaming) => self.piece(),
            (Next::CopyBoth, Phase::Asked) => {
                self.phase = Phase::Streaming;
                Ok(None)
            }
            (Next::Message(message), phase) => self.word(message, phase),
            (Next::Copy | Next::CopyBoth, _) => Err(Error::Protocol("a copy that nobody asked for")),
        }
    }

    fn piece(&mut self) -> Result<Option<Wal>, Error> {
        let head = self.wire.ready();
        let letter = head.first().copied();
        let number =
            |at: usize| head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        match (letter, number(1), number(9), number(17)) {
            (Some(b'w'), Some(start), Some(end), Some(time)) => {
                let (expected, found) = (self.next, Lsn::new(start));
                if found > expected {
                    return Err(Error::Gap { expected, found });
                }
                if found < expected {
                    return Err(Error::Overlap { expected, found });
                }
                self.head = (Lsn::new(end), moment(time));
                self.wire.skip(HEAD);
                Ok(None)
            }
            (Some(b'k'), Some(end), Some(time), _) => {
                let reply_wanted = head.get(17).is_some_and(|byte| *byte != 0);
                self.wire.skip(18);
                if self.wire.left() > 0 {
                    return Err(Error::Protocol("a keepalive that is too long"));
                }
                if reply_wanted {
                    self.put_report(false)?;
                }
                let (server_end, sent_at) = (Lsn::new(end), moment(time));
                Ok(Some(Wal::Keepalive { server_end, sent_at, reply_wanted }))
            }
            _ => Err(Error::Protocol("a piece of the log's stream of an unknown kind")),
        }
    }

    fn word(&mut self, message: Message, phase: Phase) -> Result<Option<Wal>, Error> {
        match (message, phase) {
            (Message::NoticeResponse(_), _) => Ok(None),
            (Message::ErrorResponse(body), _) => Err(self.refusal(Said::read(body.fields()))),
            (Message::CopyDone, Phase::Streaming) => {
                self.phase = Phase::Ending(None);
                self.wire.put(|out| {
                    frontend::copy_done(out);
                    Ok(())
                })?;
                Ok(None)
            }
            // The copy was never begun when the timeline ends exactly where it was asked for.
            (Message::RowDescription(_), Phase::Asked) => {
                self.phase = Phase::Ending(None);
                Ok(None)
            }
            (Message::DataRow(body), Phase::Ending(None)) => {
                let row = Row::read(&body)?;
                let read = || Some((Timeline::new(row.number(0)?), Lsn::parse(row.text(1)?)?));
                let (timeline, at) = read().ok_or(Error::Protocol("an end of a timeline without a next"))?;
                self.check_switch(timeline, at)?;
                self.phase = Phase::Ending(Some((timeline, at)));
                Ok(None)
            }
            (Message::ReadyForQuery(_), Phase::Ending(Some((next_timeline, switched_at)))) => {
                self.phase = Phase::Switched(next_timeline, switched_at);
                Ok(Some(Wal::TimelineEnd { next_timeline, switched_at }))
            }
            (Message::RowDescription(_) | Message::CommandComplete(_), Phase::Ending(_)) => Ok(None),
            // Without a word on a next timeline: the server sent all it has, and goes.
            (Message::CommandComplete(_), Phase::Streaming)
            | (Message::ReadyForQuery(_), Phase::Ending(None)) => Err(Error::ShutDown { to: self.next }),
            _ => Err(Error::Protocol("not a part of the log's stream")),
        }
    }

    fn check_switch(&self, timeline: Timeline, at: Lsn) -> Result<(), Error> {
        if timeline <= self.timeline {
            return Err(Error::Protocol("a timeline that is followed by an older one"));
        }
        match at.cmp(&self.next) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(Error::Gap { expected: self.next, found: at }),
            std::cmp::Ordering::Less => Err(Error::Overlap { expected: self.next, found: at }),
        }
    }

    fn refusal(&self, said: Said) -> Error {
        let slot = || self.slot.clone().unwrap_or_default();
        match said.sqlstate.as_str() {
            // "undefined_file": the segment, or the history of the timeline.
            "58P01" => Error::WalRemoved { timeline: self.timeline, from: self.next, said },
            "42704" if self.slot.is_some() => Error::SlotMissing { slot: slot() },
            "55006" if self.slot.is_some() => Error::SlotBusy { slot: slot(), said },
            // 18 says so of a slot that was invalidated.
            "55000" if self.slot.is_some() => Error::SlotLost { slot: slot() },
            _ => Error::said(ACT, said),
        }
    }
}

/// PostgreSQL's microseconds since 2000.
fn moment(micros: u64) -> Moment {
    Moment::from_millis((micros / 1000).saturating_add(EPOCH_SECONDS * 1000))
}
