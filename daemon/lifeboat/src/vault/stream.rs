//! A server's WAL into an archive, as it is written.
//!
//! **Invariant:** where the archive goes on is where the archive ends, never where a slot or a server says.
//! **Invariant:** bytes that are not stored yet are held in bounded memory: a slow archive slows the stream, and the
//! server keeps what was not taken.

use std::pin::pin;
use std::time::Duration;

use lifeboat_archive::Archive;
use lifeboat_archive::wal::{Held, Pressure, SegmentSize, WalOptions, WalWriter, put_history, survey};
use lifeboat_core::{Lsn, Moment, SystemIdentifier, Timeline};
use lifeboat_engine::clock::Clock;
use lifeboat_postgres::replication::{Endpoint, Error, Replication, Wal, WalStream};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Trouble, segment_size};

/// A report goes to the server at least so often, also while the archive takes nothing.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// How long a history is tried to be stored.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where WAL comes from, and how it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Reception {
    /// The server.
    pub(crate) endpoint: Endpoint,
    /// The slot that keeps the WAL we do not have yet; made when there is none. None: a temporary one, while this lasts.
    pub(crate) slot: Option<String>,
    /// A piece is made at most so often; zero: at once.
    pub(crate) piece_every: Duration,
}

impl Reception {
    /// What stores that timeline; `oldest` is where it begins when the archive has nothing of it.
    async fn writer(
        &self,
        archive: &Archive,
        system: SystemIdentifier,
        timeline: Timeline,
        size: SegmentSize,
        oldest: Lsn,
    ) -> Result<WalWriter, Trouble> {
        let options = WalOptions {
            piece_every: self.piece_every,
            oldest: Some(oldest),
            clock: self.endpoint.clock,
            ..WalOptions::default()
        };
        Ok(WalWriter::open(archive, system, timeline, size, options).await?)
    }
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Received {
    /// The cluster.
    pub(crate) system: SystemIdentifier,
    /// The timeline that is received.
    pub(crate) timeline: Timeline,
    /// The end of the server's WAL, as it said last.
    pub(crate) server_end: Lsn,
    /// When it said so, on our clock.
    pub(crate) heard: Moment,
    /// The first byte that is not durable in the archive.
    pub(crate) durable: Lsn,
    /// When the byte before it was received, on our clock.
    pub(crate) received: Moment,
    /// Bytes received and not durable.
    pub(crate) waiting: u64,
    /// What the store said last, when it did not store.
    pub(crate) trouble: Option<String>,
    /// What had to be left out: the WAL from there to there is gone.
    pub(crate) left_out: Vec<(Lsn, Lsn)>,
}

impl Received {
    /// How old the newest byte is that is not lost with the server: what would be lost if it was lost now. Zero while all
    /// that the server has is durable, and as old as its last word.
    pub(crate) fn rpo_held(&self, now: Moment) -> Duration {
        let since = if self.durable >= self.server_end { self.heard } else { self.received };
        now.since(since)
    }
}

/// Receives until `stop`, or something ends it; `told` hears how far it is.
pub(crate) async fn receive(
    archive: &Archive,
    from: &Reception,
    told: &watch::Sender<Option<Received>>,
    stop: &CancellationToken,
) -> Result<(), Trouble> {
    let mut begun = Box::pin(begin(archive, from)).await?;
    loop {
        begun.tell(told, None);
        match Box::pin(begun.go_on(told, stop)).await? {
            Some(switch) => Box::pin(begun.switch(switch)).await?,
            None => return Ok(()),
        }
    }
}

/// Connected, with a writer that stands where the stream does.
struct Under<'a> {
    archive: &'a Archive,
    from: &'a Reception,
    system: SystemIdentifier,
    size: SegmentSize,
    timeline: Timeline,
    stream: WalStream,
    writer: WalWriter,
    server_end: (Lsn, Moment),
    left_out: Vec<(Lsn, Lsn)>,
}

async fn begin<'a>(archive: &'a Archive, from: &'a Reception) -> Result<Under<'a>, Trouble> {
    let clock = from.endpoint.clock;
    let mut server = Replication::connect(from.endpoint.clone()).await?;
    let identity = server.identify().await?;
    let (system, size) = (identity.system, segment_size(&mut server).await?);
    let slot = from.slot.clone().unwrap_or_else(|| format!("lifeboat_{}", std::process::id()));
    let found = server.slot(&slot).await?;
    match (&found, &from.slot) {
        (None, named) => server.create_slot(&slot, named.is_none()).await?,
        // It keeps nothing any more: what is missing is found below, by what the archive has.
        (Some(lost), Some(_)) if lost.kept_from.is_none() => {
            tracing::error!(slot, "the slot was invalidated: it is made anew");
            server.drop_slot(&slot).await?;
            server.create_slot(&slot, false).await?;
        }
        (Some(_), _) => {}
    }
    let kept = server.slot(&slot).await?.and_then(|slot| slot.kept_from).unwrap_or(identity.flushed);
    if identity.timeline.get() > 1 {
        let (_, text) = server.timeline_history(identity.timeline).await?;
        put_history(archive, system, identity.timeline, text, PATIENCE).await?;
    }
    let map = survey(archive, system).await?;
    let newest = map.timelines.values().rev().find(|timeline| timeline.newest.is_some());
    let timeline = newest.map_or(identity.timeline, |newest| newest.timeline);
    if timeline > identity.timeline {
        return Err(Trouble::Behind(format!(
            "the archive has WAL of timeline {timeline}, and the server is on timeline {}",
            identity.timeline
        )));
    }
    let mut left_out = Vec::new();
    let mut writer = from.writer(archive, system, timeline, size, kept).await?;
    if let Some(end) = newest.and_then(|timeline| timeline.newest).filter(|end| end.lsn < writer.next()) {
        left_out.push((end.lsn, writer.next()));
    }
    let (mut timeline, begin) = (timeline, writer.next());
    let stream = match server.wal(Some(&slot), timeline, begin).await {
        Ok(stream) => stream,
        // What comes after what we have is gone, or was never on this server: the archive goes on with what there is.
        Err(Error::WalRemoved { .. } | Error::Diverged { .. }) => {
            timeline = identity.timeline;
            let at = Lsn::new(kept.get() / size.bytes() * size.bytes());
            left_out.push((begin, at));
            writer = from.writer(archive, system, timeline, size, at.max(begin)).await?;
            let mut again = Replication::connect(from.endpoint.clone()).await?;
            if from.slot.is_none() {
                // The one before ended with its connection.
                again.create_slot(&format!("{slot}_2"), true).await?;
            }
            let slot = from.slot.clone().unwrap_or_else(|| format!("{slot}_2"));
            again.wal(Some(&slot), timeline, writer.next()).await?
        }
        Err(error) => return Err(error.into()),
    };
    let server_end = (identity.flushed, clock.now());
    for (from, to) in &left_out {
        tracing::error!(%from, %to, "WAL is missing for good: a new base backup is needed");
    }
    Ok(Under { archive, from, system, size, timeline, stream, writer, server_end, left_out })
}

/// The server goes on on another timeline.
struct Switch {
    next: Timeline,
    at: Lsn,
}

impl Under<'_> {
    fn clock(&self) -> Clock {
        self.from.endpoint.clock
    }

    async fn go_on(
        &mut self,
        told: &watch::Sender<Option<Received>>,
        stop: &CancellationToken,
    ) -> Result<Option<Switch>, Trouble> {
        let mut held = self.writer.watch();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    let durable = self.writer.flush().await?;
                    self.report(durable).await?;
                    self.tell(told, None);
                    return Ok(None);
                }
                changed = held.changed() => {
                    // A writer that has ended says why to whoever uses it next.
                    if changed.is_err() {
                        self.writer.flush().await?;
                    }
                    let durable = *held.borrow_and_update();
                    self.report(durable.lsn).await?;
                    self.tell(told, Some(durable));
                }
                () = tokio::time::sleep(SIGN_OF_LIFE) => {
                    // An idle server says nothing by itself for half a minute, and what it has is not known so long.
                    let (written, durable) = (self.stream.position(), self.writer.held().lsn);
                    let durable = durable.min(written);
                    self.stream.report(written, durable, durable, true).await?;
                    self.tell(told, None);
                }
                came = self.stream.next() => match came? {
                    Wal::Bytes { start, bytes, server_end, sent_at } => {
                        self.server_end = (server_end, self.clock().now());
                        self.writer.sent(sent_at);
                        self.store(start, bytes, &mut held).await?;
                    }
                    Wal::Keepalive { server_end, reply_wanted, .. } => {
                        self.server_end = (server_end, self.clock().now());
                        if reply_wanted {
                            // It may be shutting down, and waits for all of it to be safe.
                            self.writer.ask();
                            self.report(self.writer.held().lsn).await?;
                        }
                        self.tell(told, None);
                    }
                    Wal::TimelineEnd { next_timeline, switched_at } => {
                        let durable = self.writer.flush().await?;
                        self.report(durable).await?;
                        return Ok(Some(Switch { next: next_timeline, at: switched_at }));
                    }
                },
            }
        }
    }

    /// Hands bytes to the writer; while it takes none, the server hears from us all the same.
    async fn store(
        &mut self,
        start: Lsn,
        bytes: bytes::Bytes,
        held: &mut watch::Receiver<Held>,
    ) -> Result<(), Trouble> {
        loop {
            let taken = {
                let mut append = pin!(self.writer.append(start, bytes.clone()));
                tokio::select! {
                    biased;
                    taken = &mut append => Some(taken),
                    () = tokio::time::sleep(SIGN_OF_LIFE) => None,
                }
            };
            match taken {
                Some(taken) => return Ok(taken?),
                None => {
                    let durable = held.borrow().lsn;
                    self.report(durable).await?;
                }
            }
        }
    }

    async fn report(&mut self, durable: Lsn) -> Result<(), Trouble> {
        let written = self.stream.position();
        let durable = durable.min(written);
        Ok(self.stream.report(written, durable, durable, false).await?)
    }

    async fn switch(&mut self, Switch { next, at }: Switch) -> Result<(), Trouble> {
        tracing::info!(timeline = %next, %at, "the server goes on on another timeline");
        let mut server = Replication::connect(self.from.endpoint.clone()).await?;
        let (_, text) = server.timeline_history(next).await?;
        put_history(self.archive, self.system, next, text, PATIENCE).await?;
        self.writer = self.from.writer(self.archive, self.system, next, self.size, at).await?;
        self.timeline = next;
        let from = self.writer.next().min(at);
        Ok(self.stream.go_on_from(from)?)
    }

    fn tell(&self, told: &watch::Sender<Option<Received>>, held: Option<Held>) {
        let held = held.unwrap_or_else(|| self.writer.held());
        let Pressure { waiting, trouble, .. } = self.writer.pressure();
        let (server_end, heard) = self.server_end;
        told.send_replace(Some(Received {
            system: self.system,
            timeline: self.timeline,
            server_end,
            heard,
            durable: held.lsn,
            received: held.received,
            waiting,
            trouble,
            left_out: self.left_out.clone(),
        }));
    }
}
