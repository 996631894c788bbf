//! An object that is written part by part, by a resumable upload
//! (<https://cloud.google.com/storage/docs/resumable-uploads>).
//!
//! One that is shorter than a part is put whole, in one call. An upload that is begun and never ended, because the machine
//! was lost, cannot be seen, and ends by itself after a week.
//!
//! **Invariant:** one part is filled and one is under way, never more.
//! **Invariant:** a part is kept until the other side says that it has it; what it says it lacks is sent again.
//! **Invariant:** the address of an upload is used only when it is the service's own: the token goes there.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use hyper::{Method, Uri, header};
use lifeboat_engine::ports::{ObjectName, StoreError, Upload};
use serde_json::json;
use tokio::task::JoinHandle;

use super::http::{ATTEMPTS, Answer, Ask, CONTENT};
use super::{DESCRIPTION, Inner, MARK, fault};

/// The length of every part but the last: a multiple of 256 KiB, as the service wants it.
const PART: usize = 8 << 20;

/// An upload into a bucket.
pub(super) struct Chunks {
    inner: Arc<Inner>,
    name: ObjectName,
    mark: String,
    /// What is not sent yet.
    rest: BytesMut,
    /// Where parts go, once there is more than one.
    session: Option<String>,
    /// So much was given to be sent.
    sent: u64,
    sending: Option<JoinHandle<Result<(), StoreError>>>,
    failed: Option<StoreError>,
}

/// What became of a part.
enum Came {
    /// The other side has so much of the object, and waits for more.
    To(u64),
    /// The object is there.
    Done,
    /// There is another object of that name.
    Refused,
}

impl Chunks {
    pub(super) fn new(inner: Arc<Inner>, name: ObjectName) -> Self {
        let mark = inner.mark();
        Self { inner, name, mark, rest: BytesMut::new(), session: None, sent: 0, sending: None, failed: None }
    }

    /// The session, begun when there is none.
    async fn session(&mut self) -> Result<String, StoreError> {
        if let Some(session) = &self.session {
            return Ok(session.clone());
        }
        let ask = Ask {
            method: Method::POST,
            address: self.inner.new_object("resumable", &self.name),
            headers: vec![(header::CONTENT_TYPE, "application/json".to_owned())],
            body: Bytes::from(json!({ "metadata": { MARK: self.mark } }).to_string()),
            ..Ask::get(String::new(), DESCRIPTION)
        };
        let answer = self.inner.http.ask(&ask).await?;
        match answer.status {
            200 | 201 => {}
            412 => return Err(StoreError::Exists(self.name.clone())),
            _ => return Err(fault::of(&answer)),
        }
        let session = answer.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let session = session.filter(|session| same_place(session, &self.inner.endpoint));
        let session = session
            .ok_or_else(|| StoreError::Unusable("an upload was begun elsewhere".to_owned()))?
            .to_owned();
        self.session = Some(session.clone());
        Ok(session)
    }

    /// Waits for the part that is under way.
    async fn arrived(&mut self) -> Result<(), StoreError> {
        match self.sending.take() {
            None => Ok(()),
            Some(sending) => sending.await.unwrap_or_else(|error| {
                Err(StoreError::Unusable(format!("{}: sending ended: {error}", self.name)))
            }),
        }
    }

    async fn send(&mut self, part: Bytes) -> Result<(), StoreError> {
        let session = self.session().await?;
        self.arrived().await?;
        let (inner, name, from) = (self.inner.clone(), self.name.clone(), self.sent);
        self.sent += part.len() as u64;
        self.sending = Some(tokio::spawn(async move {
            match carried(&inner, &name, &session, &part, from, false).await? {
                Came::To(_) => Ok(()),
                Came::Refused => Err(StoreError::Exists(name)),
                Came::Done => Err(StoreError::Unusable(format!("{name}: it ended before its end"))),
            }
        }));
        Ok(())
    }

    async fn written(&mut self, mut part: Bytes) -> Result<(), StoreError> {
        while !part.is_empty() {
            // A full part is sent when there is more: the last one must say that it is.
            if self.rest.len() == PART {
                let full = std::mem::take(&mut self.rest).freeze();
                self.send(full).await?;
            }
            if self.rest.capacity() == 0 {
                self.rest.reserve(part.len().min(PART));
            }
            let more = part.len().min(PART - self.rest.len());
            self.rest.extend_from_slice(&part.split_to(more));
        }
        Ok(())
    }

    async fn finished(&mut self) -> Result<(), StoreError> {
        let rest = std::mem::take(&mut self.rest).freeze();
        let Some(session) = self.session.clone() else {
            return self.inner.put(&self.name, &rest).await;
        };
        self.arrived().await?;
        match carried(&self.inner, &self.name, &session, &rest, self.sent, true).await? {
            Came::Done => {}
            Came::Refused => self.inner.came_to(&self.name, &self.mark).await?,
            Came::To(_) => {
                return Err(StoreError::Unusable(format!("{}: it has not ended at its end", self.name)));
            }
        }
        self.session = None;
        Ok(())
    }
}

/// Sends a part until the other side has all of it.
async fn carried(
    inner: &Inner,
    name: &ObjectName,
    session: &str,
    part: &Bytes,
    from: u64,
    last: bool,
) -> Result<Came, StoreError> {
    let end = from + part.len() as u64;
    let total = if last { end.to_string() } else { "*".to_owned() };
    let (mut at, mut attempt, mut known) = (from, 1, true);
    loop {
        let rest = usize::try_from(at - from).map_or(Bytes::new(), |done| part.slice(done..));
        let (range, body) = match known {
            // What it has is asked for first: an answer was lost.
            false => (format!("bytes */{total}"), Bytes::new()),
            true if rest.is_empty() => (format!("bytes */{total}"), rest),
            true => (format!("bytes {at}-{}/{total}", end - 1), rest),
        };
        let ask = Ask {
            method: Method::PUT,
            address: session.to_owned(),
            headers: vec![(header::CONTENT_RANGE, range)],
            body,
            most: DESCRIPTION,
            limit: CONTENT,
        };
        let came = match inner.http.once(&ask).await {
            Ok(answer) => came(name, &answer),
            Err(error) => Err(error),
        };
        match came {
            Ok(Came::To(has)) if has < at || has > end => {
                return Err(StoreError::Unusable(format!("{name}: of {at} bytes sent, it has {has}")));
            }
            Ok(Came::To(has)) if has == end && !last => return Ok(Came::To(has)),
            // Progress, or the answer to what it has.
            Ok(Came::To(has)) if has > at || !known => (at, known) = (has, true),
            Ok(Came::To(_)) if attempt < ATTEMPTS => attempt += 1,
            Ok(Came::To(has)) => {
                return Err(StoreError::Unreachable(format!("{name}: it stays at {has} bytes")));
            }
            Err(error) if error.passing() && attempt < ATTEMPTS => {
                tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
                (attempt, known) = (attempt + 1, false);
            }
            end => return end,
        }
    }
}

fn came(name: &ObjectName, answer: &Answer) -> Result<Came, StoreError> {
    match answer.status {
        200 | 201 => Ok(Came::Done),
        308 => {
            let range = answer.headers.get(header::RANGE).map(|value| value.to_str().unwrap_or_default());
            let Some(range) = range else { return Ok(Came::To(0)) };
            let last = range.strip_prefix("bytes=0-").and_then(|last| last.parse::<u64>().ok());
            last.map(|last| Came::To(last.saturating_add(1)))
                .ok_or_else(|| StoreError::Unusable(format!("{name}: what it has is no range")))
        }
        412 => Ok(Came::Refused),
        404 | 410 => Err(StoreError::Unusable(format!("{name}: its upload was ended by somebody else"))),
        _ => Err(fault::of(answer)),
    }
}

/// Whether an address is at the same scheme, host and port.
fn same_place(address: &str, other: &str) -> bool {
    let place = |text: &str| {
        let uri: Uri = text.parse().ok()?;
        Some((uri.scheme_str()?.to_owned(), uri.authority()?.to_string()))
    };
    place(address).is_some_and(|found| place(other) == Some(found))
}

#[async_trait]
impl Upload for Chunks {
    async fn write(&mut self, part: Bytes) -> Result<(), StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let written = self.written(part).await;
        if let Err(error) = &written {
            self.failed = Some(error.clone());
        }
        written
    }

    async fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.finished().await,
        }
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        let sending = self.sending.take();
        let Some(session) = self.session.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let inner = self.inner.clone();
        runtime.spawn(async move {
            if let Some(sending) = sending {
                sending.abort();
                let _ = sending.await;
            }
            let ask = Ask { method: Method::DELETE, ..Ask::get(session, DESCRIPTION) };
            // What this does not end, ends by itself.
            let _ = inner.http.once(&ask).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::same_place;

    #[test]
    fn a_token_goes_to_the_service_alone() {
        let service = "https://storage.googleapis.com";
        assert!(same_place("https://storage.googleapis.com/upload/storage/v1/b/a/o?upload_id=x", service));
        for other in [
            "http://storage.googleapis.com/upload",
            "https://storage.googleapis.com:8443/upload",
            "https://storage.googleapis.com@evil.example/upload",
            "https://evil.example/storage.googleapis.com",
            "/upload",
        ] {
            assert!(!same_place(other, service), "{other}");
        }
    }
}
