//! Messages out of bytes: whole ones where they are short, in pieces where they carry a copy.
//!
//! **Invariant:** a length that a server gives is never allocated for: a short message has a bound, and a copy is
//! given out as it comes.
//! **Invariant:** whatever waits here can be given up and asked again: nothing is taken before it is complete.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use futures::FutureExt;
use postgres_protocol::message::backend::{COPY_DATA_TAG, DataRowBody, Header, Message};
use postgres_protocol::message::frontend;

use super::error::Error;
use super::inbox::Inbox;
use super::notice::Said;
use super::socket::Socket;

/// Bytes of a message that is taken whole, at most. The longest honest one has the history of a cluster's timelines,
/// some 50 bytes for each promotion.
const LONGEST_MESSAGE: usize = 256 << 10;

/// Bytes of one answer to a command, at most.
const LONGEST_ANSWER: usize = 4 << 20;

/// The tag of `CopyBothResponse`, which only the replication protocol has.
const COPY_BOTH_TAG: u8 = b'W';

/// What comes next.
pub(super) enum Next {
    /// A message of its own.
    Message(Message),
    /// Both sides may now send copies.
    CopyBoth,
    /// A piece of a copy: as many bytes. Nothing of it is taken yet but its header.
    Copy,
}

/// A row of an answer. It keeps no more than its own bytes, whatever it came among.
pub(super) struct Row {
    cells: Vec<Option<Bytes>>,
}

/// The rows of one answer.
#[derive(Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
    size: usize,
}

impl Rows {
    pub(super) fn push(&mut self, body: &DataRowBody) -> Result<(), Error> {
        let row = Row::read(body)?;
        self.size += size_of::<Row>() + body.buffer().len() + row.cells.len() * size_of::<Option<Bytes>>();
        if self.size > LONGEST_ANSWER {
            return Err(Error::Protocol("an answer that is too long"));
        }
        self.rows.push(row);
        Ok(())
    }

    pub(super) fn done(self) -> Vec<Row> {
        self.rows
    }
}

impl Row {
    pub(super) fn read(body: &DataRowBody) -> Result<Self, Error> {
        let storage = Bytes::copy_from_slice(body.buffer());
        let cells = body.ranges().map(|range| Ok(range.map(|range| storage.slice(range)))).collect();
        Ok(Self { cells: cells.map_err(|_| Error::Protocol("a row that is cut short"))? })
    }

    pub(super) fn bytes(&self, column: usize) -> Option<&Bytes> {
        self.cells.get(column)?.as_ref()
    }

    pub(super) fn text(&self, column: usize) -> Option<&str> {
        std::str::from_utf8(self.bytes(column)?).ok()
    }

    pub(super) fn number<T: std::str::FromStr>(&self, column: usize) -> Option<T> {
        self.text(column)?.parse().ok()
    }
}

/// A connection, with what was received and what is to be sent.
pub(super) struct Wire {
    socket: Socket,
    inbox: Inbox,
    outbox: BytesMut,
    /// Bytes of the copy's present message that are still to come out of the inbox.
    left: usize,
    /// What is under way.
    pub(super) act: &'static str,
    /// How long nothing may come.
    pub(super) patience: Duration,
}

/// Takes its leave, so that the server's log does not call it lost; without waiting, when there is room for it.
impl Drop for Wire {
    fn drop(&mut self) {
        if self.outbox.is_empty() {
            frontend::terminate(&mut self.outbox);
            let leaving = async {
                self.socket.write(&mut self.outbox).await?;
                self.socket.flush().await
            };
            leaving.now_or_never();
        }
    }
}

impl Wire {
    pub(super) fn new(socket: Socket, patience: Duration) -> Self {
        Self { socket, inbox: Inbox::new(), outbox: BytesMut::new(), left: 0, act: "the login", patience }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Puts a message into what is sent next.
    pub(super) fn put(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), Error> {
        write(&mut self.outbox).map_err(|_| Error::Misuse("a text with a zero byte cannot be sent"))
    }

    fn lost(&self, source: io::Error) -> Error {
        Error::Lost { act: self.act, source }
    }

    /// Sends what is to be sent.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let (socket, outbox) = (&mut self.socket, &mut self.outbox);
        let sending = async {
            while !outbox.is_empty() {
                socket.write(outbox).await?;
            }
            socket.flush().await
        };
        match tokio::time::timeout(self.patience, sending).await {
            Ok(sent) => sent.map_err(|source| self.lost(source)),
            Err(_) => Err(Error::TimedOut { act: self.act, limit: self.patience }),
        }
    }

    /// Reads more.
    async fn fill(&mut self) -> Result<(), Error> {
        let reading = self.socket.read(self.inbox.room());
        match tokio::time::timeout(self.patience, reading).await {
            Ok(Ok(0)) => Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(self.lost(source)),
            Err(_) => Err(Error::TimedOut { act: self.act, limit: self.patience }),
        }
    }

    async fn await_bytes(&mut self, length: usize) -> Result<(), Error> {
        while self.inbox.len() < length {
            self.fill().await?;
        }
        Ok(())
    }

    /// What comes next. Of a copy's message, as many bytes as it has and `glance` asks for are there to be looked at.
    pub(super) async fn next(&mut self, glance: usize) -> Result<Next, Error> {
        loop {
            self.await_bytes(5).await?;
            let header = Header::parse(self.inbox.bytes()).ok().flatten();
            let header = header.ok_or(Error::Protocol("a message of a negative length"))?;
            let body = usize::try_from(header.len()).unwrap_or(0).saturating_sub(4);
            if header.tag() == COPY_DATA_TAG {
                self.await_bytes(5 + body.min(glance)).await?;
                self.inbox.skip(5);
                self.left = body;
                return Ok(Next::Copy);
            }
            if body > LONGEST_MESSAGE {
                return Err(Error::Protocol("a message that is too long"));
            }
            self.await_bytes(5 + body).await?;
            let mut whole = self.inbox.take(5 + body);
            if header.tag() == COPY_BOTH_TAG {
                return Ok(Next::CopyBoth);
            }
            let message = Message::parse(&mut whole).ok().flatten();
            match message.ok_or(Error::Protocol("a message that is not of the protocol"))? {
                // Said whenever a setting changes or somebody notifies; nothing to us.
                Message::ParameterStatus(_) | Message::NotificationResponse(_) => {}
                message => return Ok(Next::Message(message)),
            }
        }
    }

    /// A message that is not of a copy.
    pub(super) async fn message(&mut self) -> Result<Message, Error> {
        match self.next(0).await? {
            Next::Message(message) => Ok(message),
            Next::Copy | Next::CopyBoth => Err(Error::Protocol("a copy that nobody asked for")),
        }
    }

    /// Bytes of the copy's message that were not taken yet.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// The bytes of the copy's message that are here.
    pub(super) fn ready(&self) -> &[u8] {
        let bytes = self.inbox.bytes();
        &bytes[..self.left.min(bytes.len())]
    }

    /// Waits for bytes of the copy's message: for all of it, unless the buffer is full before.
    pub(super) async fn await_copy(&mut self) -> Result<(), Error> {
        while self.inbox.len() < self.left && (self.inbox.len() == 0 || !self.inbox.cramped()) {
            self.fill().await?;
        }
        Ok(())
    }

    /// Passes over bytes of the copy's message that are here.
    pub(super) fn skip(&mut self, length: usize) {
        let length = length.min(self.ready().len());
        self.inbox.skip(length);
        self.left -= length;
    }

    /// Gives out bytes of the copy's message that are here.
    pub(super) fn give(&mut self, length: usize) -> Bytes {
        let length = length.min(self.ready().len());
        self.left -= length;
        self.inbox.give(length)
    }

    /// Sends a command.
    pub(super) async fn command(&mut self, act: &'static str, command: &str) -> Result<(), Error> {
        self.act = act;
        self.put(|out| frontend::query(command, out))?;
        self.flush().await
    }

    /// Sends a command, and takes its rows. The connection is as good as before, also when the server says no.
    pub(super) async fn ask(&mut self, act: &'static str, command: &str) -> Result<Vec<Row>, Error> {
        self.command(act, command).await?;
        self.settle(act).await
    }

    /// The rows of the command that was sent, when the server is ready for the next.
    pub(super) async fn settle(&mut self, act: &'static str) -> Result<Vec<Row>, Error> {
        let (mut rows, mut refused) = (Rows::default(), None);
        loop {
            match self.message().await {
                Ok(Message::DataRow(body)) => rows.push(&body)?,
                Ok(Message::ErrorResponse(body)) => {
                    refused = Some(Error::said(act, Said::read(body.fields())))
                }
                Ok(Message::ReadyForQuery(_)) => return refused.map_or(Ok(rows.done()), Err),
                Ok(Message::RowDescription(_) | Message::CommandComplete(_) | Message::NoticeResponse(_)) => {
                }
                Ok(_) => return Err(Error::Protocol("not an answer to a command")),
                // After a fatal error the server hangs up: its word is the better answer.
                Err(error) => return Err(refused.unwrap_or(error)),
            }
        }
    }
}
