//! A file that is being written: a thread of its own takes the parts.
//!
//! The system is asked to write back what is behind, early and again, so that little is left for the settling, and that a
//! backup does not push what a database has read out of the system's cache.
//!
//! **Invariant:** a few parts and one block are in memory, never more: who writes faster than the disk waits.

use std::fs::File;
use std::io::Write;
use std::num::NonZeroU64;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use lifeboat_engine::ports::{ObjectName, StoreError, Upload};
use rustix::fs::Advice;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fault::of_io;
use super::{Draft, joined};

/// Parts that wait for the disk: one that is taken next, one that is made meanwhile.
const WAITING: usize = 2;

/// Parts smaller than this are put together.
const BLOCK: usize = 1 << 20;

/// The system is asked to write back each time so many bytes were written.
const BEHIND: u64 = 8 << 20;

enum Order {
    Write(Bytes),
    Finish,
}

/// An upload into a folder. When it is dropped, the thread finds no more orders, and removes the file.
pub(super) struct Writing {
    orders: mpsc::Sender<Order>,
    end: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Writing {
    pub(super) fn new(name: ObjectName, draft: Draft) -> Self {
        let (orders, inbox) = mpsc::channel(WAITING);
        let end = tokio::task::spawn_blocking(move || work(&name, draft, inbox));
        Self { orders, end: Some(end) }
    }

    async fn end(&mut self) -> Result<(), StoreError> {
        match self.end.take() {
            Some(end) => joined(end.await),
            None => Err(StoreError::Unusable("the upload has failed already".to_owned())),
        }
    }
}

#[async_trait]
impl Upload for Writing {
    async fn write(&mut self, part: Bytes) -> Result<(), StoreError> {
        if self.orders.send(Order::Write(part)).await.is_ok() {
            return Ok(());
        }
        self.end().await
    }

    async fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        let _ = self.orders.send(Order::Finish).await;
        self.end().await
    }
}

fn work(name: &ObjectName, mut draft: Draft, mut inbox: mpsc::Receiver<Order>) -> Result<(), StoreError> {
    let inner = draft.inner.clone();
    let shown = inner.shown(name);
    let failed = |error: std::io::Error| of_io(&error, &shown);
    let mut pen = Pen { file: draft.file(), block: BytesMut::new(), written: 0, asked: 0 };
    loop {
        match inbox.blocking_recv() {
            Some(Order::Write(part)) => pen.write(part).map_err(failed)?,
            Some(Order::Finish) => break,
            None => return Err(StoreError::Unusable(format!("{shown}: dropped unfinished"))),
        }
    }
    pen.flush().map_err(failed)?;
    pen.behind(pen.written);
    let (folder, file) = draft.publish(name)?;
    inner.finished(name, file, folder)
}

struct Pen<'f> {
    file: &'f File,
    block: BytesMut,
    written: u64,
    asked: u64,
}

impl Pen<'_> {
    fn write(&mut self, part: Bytes) -> std::io::Result<()> {
        if self.block.is_empty() && part.len() >= BLOCK {
            return self.out(&part);
        }
        if self.block.capacity() == 0 {
            self.block.reserve(2 * BLOCK);
        }
        let mut rest = part;
        while !rest.is_empty() {
            let more = rest.len().min(BLOCK - self.block.len());
            self.block.extend_from_slice(&rest.split_to(more));
            if self.block.len() == BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let mut block = std::mem::take(&mut self.block);
        self.out(&block)?;
        block.clear();
        self.block = block;
        Ok(())
    }

    fn out(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        if self.written - self.asked >= BEHIND {
            self.behind(self.written);
        }
        Ok(())
    }

    /// "Not needed" starts the writing back of what was written since last time, and drops from the cache what is written
    /// back of the piece before it.
    fn behind(&mut self, to: u64) {
        let from = self.asked.saturating_sub(2 * BEHIND);
        if let Some(length) = NonZeroU64::new(to - from) {
            let _ = rustix::fs::fadvise(self.file, from, Some(length), Advice::DontNeed);
        }
        self.asked = to;
    }
}
