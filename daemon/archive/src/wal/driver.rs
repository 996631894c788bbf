//! The task of a writer: begins to store what is due, and says how far all is durable.
//!
//! **Invariant:** how far it is durable only grows, and over nothing that is not.

use std::sync::Arc;

use lifeboat_core::{Lsn, Moment, SystemIdentifier, Timeline};
use lifeboat_engine::ports::ObjectName;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use super::collected::{Cut, Full, May, Next};
use super::names::{SegmentName, SegmentSize, piece_object, segment_object};
use super::objects::{Patience, Sealed, WalLabel, joined, put_once, seal_piece};
use super::sealing::{Buffers, seal_segment};
use super::writer::{Held, Shared, WalOptions};
use crate::archive::Archive;
use crate::object::Kind;
use crate::trouble::Trouble;

/// What is on its way, or arrived before what comes before it.
struct Flight {
    id: u64,
    from: Lsn,
    to: Lsn,
    received: Moment,
    kind: Kind,
    arrived: bool,
}

/// Which one has ended, and how.
type End = (u64, Result<(), Trouble>);

pub(super) struct Driver {
    archive: Archive,
    system: SystemIdentifier,
    timeline: Timeline,
    size: SegmentSize,
    options: WalOptions,
    shared: Arc<Shared>,
    held: watch::Sender<Held>,
    flights: Vec<Flight>,
    begun: u64,
    objects: Buffers,
    /// Who has it seals a segment.
    turn: Arc<Mutex<()>>,
    puts: JoinSet<Result<End, Trouble>>,
}

impl Driver {
    pub(super) fn new(
        archive: Archive,
        of: (SystemIdentifier, Timeline, SegmentSize),
        options: WalOptions,
        shared: Arc<Shared>,
        held: watch::Sender<Held>,
    ) -> Self {
        let (system, timeline, size) = of;
        let (flights, puts, objects, turn) = (Vec::new(), JoinSet::new(), Buffers::default(), Arc::default());
        Self {
            archive,
            system,
            timeline,
            size,
            options,
            shared,
            held,
            flights,
            begun: 0,
            objects,
            turn,
            puts,
        }
    }

    /// Until the writer is dropped, or something cannot be stored.
    pub(super) async fn run(mut self) {
        loop {
            let due = match self.begin_what_is_due() {
                Ok(due) => due,
                Err(trouble) => return self.shared.fail(trouble),
            };
            let clock = self.options.clock;
            let timer = async move {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(end) = self.puts.join_next() => match joined(end) {
                    Ok((id, Ok(()))) => self.arrived(id),
                    Ok((id, Err(trouble))) => if let Err(trouble) = self.lost(id, trouble) {
                        return self.shared.fail(trouble);
                    },
                    Err(trouble) => return self.shared.fail(trouble),
                },
                () = self.shared.wake.notified() => {}
                () = timer => {}
            }
        }
    }

    /// Begins all that may be; answers when the next may.
    fn begin_what_is_due(&mut self) -> Result<Option<Moment>, Trouble> {
        loop {
            let flying = |kind| self.flights.iter().filter(|f| f.kind == kind && !f.arrived).count();
            let may = May {
                piece: flying(Kind::Piece) < self.options.pieces_in_flight.max(1),
                segment: flying(Kind::Segment) < self.options.segments_in_flight.max(1),
                piece_every: self.options.piece_every,
                now: self.options.clock.now(),
            };
            let next = self.shared.collected().decide(may);
            match next {
                Next::Piece(cut) => self.begin_piece(cut)?,
                Next::Segment(full) => self.begin_segment(full)?,
                Next::Wait(due) => return Ok(due),
            }
        }
    }

    fn label(&self, from: Lsn, to: Lsn, received: Moment, before: Option<String>) -> WalLabel {
        WalLabel {
            system: self.system,
            timeline: self.timeline,
            segment_size: self.size.bytes(),
            start: from,
            end: to,
            received,
            sent: self.shared.sent(),
            held: self.held.borrow().lsn,
            before,
        }
    }

    fn begin_piece(&mut self, cut: Cut) -> Result<(), Trouble> {
        let segment = SegmentName::of(self.timeline, cut.start, self.size);
        let name = piece_object(self.system, segment, &cut.part)?;
        let at = |offset: usize| Lsn::new(cut.start.get() + offset as u64);
        let (from, to) = (at(cut.part.start), at(cut.part.end));
        let label = self.label(from, to, cut.received, Some(cut.before));
        let archive = self.archive.clone();
        let sealed_as = name.clone();
        let sealed = async move { seal_piece(&archive, &sealed_as, Kind::Piece, label, cut.bytes).await };
        self.begin(name, Kind::Piece, (from, to, cut.received), sealed);
        Ok(())
    }

    fn begin_segment(&mut self, full: Full) -> Result<(), Trouble> {
        let name = segment_object(self.system, SegmentName::of(self.timeline, full.start, self.size))?;
        let (from, to) = (full.start, Lsn::new(full.start.get() + self.size.bytes()));
        let label = self.label(from, to, full.received, None);
        let archive = self.archive.clone();
        let sealed_as = name.clone();
        let (plain, objects, turn) = (self.shared.buffers(), self.objects.clone(), self.turn.clone());
        let sealed = async move {
            // One after the other: each takes all cores.
            let _turn = turn.lock().await;
            let bytes = full.bytes.clone();
            let sealed = seal_segment(&archive, &sealed_as, label, bytes, &objects).await?;
            plain.give(full.bytes);
            Ok(sealed)
        };
        self.begin(name, Kind::Segment, (from, to, full.received), sealed);
        Ok(())
    }

    fn begin(
        &mut self,
        name: ObjectName,
        kind: Kind,
        (from, to, received): (Lsn, Lsn, Moment),
        sealed: impl Future<Output = Result<Sealed, Trouble>> + Send + 'static,
    ) {
        let id = self.begun;
        self.begun += 1;
        self.flights.push(Flight { id, from, to, received, kind, arrived: false });
        let (archive, shared, objects) = (self.archive.clone(), self.shared.clone(), self.objects.clone());
        let (clock, patience) = (self.options.clock, self.options.patience);
        self.puts.spawn(async move {
            let sealed = sealed.await?;
            let patience = Patience::new(clock, patience);
            let end = put_once(&archive, &name, kind, &sealed, patience, |error| shared.notice(error)).await;
            if kind == Kind::Segment {
                objects.give(sealed.object);
            }
            Ok((id, end))
        });
    }

    /// One was not stored. Under its name there is a damaged piece: its bytes go with the next ones, under another name.
    fn lost(&mut self, id: u64, trouble: Trouble) -> Result<(), Trouble> {
        let place = self.flights.iter().position(|flight| flight.id == id && flight.kind == Kind::Piece);
        match (trouble, place) {
            (Trouble::Damaged { name, why }, Some(place)) => {
                tracing::warn!(%name, why, "a damaged piece has the name of a new one; it is stored with what follows");
                let flight = self.flights.swap_remove(place);
                self.shared.collected().cut_again(flight.from);
                Ok(())
            }
            (trouble, _) => Err(trouble),
        }
    }

    /// One has arrived: what is durable reaches as far as those that have join.
    fn arrived(&mut self, id: u64) {
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.id == id) {
            flight.arrived = true;
        }
        let before = *self.held.borrow();
        let mut held = before;
        while let Some(flight) = self
            .flights
            .iter()
            .find(|flight| flight.arrived && flight.from <= held.lsn && flight.to > held.lsn)
        {
            held = Held { lsn: flight.to, received: flight.received, durable: self.options.clock.now() };
        }
        self.flights.retain(|flight| !flight.arrived || flight.to > held.lsn);
        let freed = held.lsn.ahead_of(before.lsn);
        if freed > 0 {
            self.shared.room.add_permits(usize::try_from(freed).unwrap_or_default());
            self.held.send_replace(held);
        }
    }
}
