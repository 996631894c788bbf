//! An archive in a bucket of Google Cloud Storage, by its JSON interface
//! (<https://cloud.google.com/storage/docs/json_api/v1>).
//!
//! Storage classes, encryption, versions and retention are the bucket's own: nothing here sets them.
//!
//! **Invariant:** every write is made on the condition that there is no such object (`ifGenerationMatch=0`).
//! **Invariant:** a write that was sent twice, because its answer was lost, is told from another writer's: each carries a
//! mark of its own, which is looked at before "it exists" is said.

mod account;
mod fault;
mod http;
mod upload;

use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use hyper::{Method, header};
use lifeboat_core::Moment;
use lifeboat_engine::ports::{Abilities, Listed, ObjectName, Store, StoreError, Upload, examine};
use serde::Deserialize;
use serde_json::json;

use self::account::Account;
use self::http::{ANSWER, Ask, CONTENT, Http};
use self::upload::Chunks;

/// Google's own address.
const GOOGLE: &str = "https://storage.googleapis.com";

/// The key under which an object says whose it is.
const MARK: &str = "lifeboat-writer";

/// The longest description of an object, or list of a thousand.
const DESCRIPTION: usize = 4 << 20;

/// Who we are to the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// The service account of this instance, told by the metadata server; none: the address every instance knows.
    Instance(Option<String>),
    /// A file of a service account, as the console gives it out (JSON).
    File(PathBuf),
    /// Nobody: for a public bucket, or a pretend server.
    #[default]
    Nobody,
}

/// Where a bucket is, and how it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What the names of all objects begin with; a slash is added. Empty: nothing.
    pub prefix: String,
    /// The address of the service, with its scheme; none: Google's own.
    pub endpoint: Option<String>,
    /// Who we are.
    pub identity: Identity,
}

/// An archive in a bucket.
#[derive(Clone)]
pub struct Gcs {
    inner: Arc<Inner>,
}

struct Inner {
    http: Http,
    endpoint: String,
    bucket: String,
    /// Empty, or ends with a slash.
    prefix: String,
    /// This process, and no other.
    mark: u64,
    count: AtomicU64,
}

/// An object as the service describes it; its numbers are text.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Described {
    name: String,
    size: String,
    updated: String,
    metadata: std::collections::BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Page {
    items: Vec<Described>,
    next_page_token: Option<String>,
}

impl Gcs {
    /// Makes a client for the bucket; nothing is sent before the first call.
    ///
    /// # Errors
    /// The system's trust anchors, or the file of the account, cannot be read.
    pub fn open(bucket: &Bucket) -> Result<Self, StoreError> {
        let account = Account::new(&bucket.identity)?;
        let prefix = match bucket.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let endpoint = bucket.endpoint.as_deref().unwrap_or(GOOGLE).trim_end_matches('/').to_owned();
        let inner = Inner {
            http: Http::new(account)?,
            endpoint,
            bucket: bucket.name.clone(),
            prefix,
            mark: RandomState::new().hash_one(std::process::id()),
            count: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// Text as a part of an address.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

impl Inner {
    fn key(&self, name: &ObjectName) -> String {
        format!("{}{name}", self.prefix)
    }

    fn object(&self, name: &ObjectName) -> String {
        let (endpoint, bucket) = (&self.endpoint, escaped(&self.bucket));
        format!("{endpoint}/storage/v1/b/{bucket}/o/{}", escaped(&self.key(name)))
    }

    /// Where an object that must not be there is written to.
    fn new_object(&self, kind: &str, name: &ObjectName) -> String {
        let (endpoint, bucket, key) = (&self.endpoint, escaped(&self.bucket), escaped(&self.key(name)));
        format!("{endpoint}/upload/storage/v1/b/{bucket}/o?uploadType={kind}&ifGenerationMatch=0&name={key}")
    }

    /// A mark that no other write has.
    fn mark(&self) -> String {
        format!("{:016x}-{}", self.mark, self.count.fetch_add(1, Ordering::Relaxed))
    }

    async fn describe(&self, name: &ObjectName) -> Result<Option<Described>, StoreError> {
        let address = format!("{}?fields=name,size,updated,metadata", self.object(name));
        let answer = self.http.ask(&Ask::get(address, DESCRIPTION)).await?;
        match answer.status {
            200 => described(&answer.body).map(Some),
            404 => Ok(None),
            _ => Err(fault::of(&answer)),
        }
    }

    /// What a write that was refused came to: perhaps it was ours that made the object exist.
    async fn came_to(&self, name: &ObjectName, mark: &str) -> Result<(), StoreError> {
        match self.describe(name).await? {
            Some(found) if found.metadata.get(MARK).is_some_and(|found| found == mark) => Ok(()),
            Some(_) => Err(StoreError::Exists(name.clone())),
            None => Err(StoreError::Unreachable(format!("{name}: others write it, and none is done"))),
        }
    }

    async fn put(&self, name: &ObjectName, content: &Bytes) -> Result<(), StoreError> {
        let mark = self.mark();
        // The mark says where the parts end, too: content that it does not know cannot hold it.
        let about = json!({ "metadata": { MARK: mark } });
        let mut body = BytesMut::with_capacity(content.len() + 512);
        body.extend_from_slice(
            format!(
                "--{mark}\r\ncontent-type: application/json\r\n\r\n{about}\r\n--{mark}\r\ncontent-type: \
                 application/octet-stream\r\n\r\n"
            )
            .as_bytes(),
        );
        body.extend_from_slice(content);
        body.extend_from_slice(format!("\r\n--{mark}--\r\n").as_bytes());
        let ask = Ask {
            method: Method::POST,
            address: self.new_object("multipart", name),
            headers: vec![(header::CONTENT_TYPE, format!("multipart/related; boundary={mark}"))],
            body: body.freeze(),
            most: DESCRIPTION,
            limit: CONTENT,
        };
        let answer = self.http.ask(&ask).await?;
        match answer.status {
            200 => Ok(()),
            412 => self.came_to(name, &mark).await,
            _ => Err(fault::of(&answer)),
        }
    }

    async fn get(&self, name: &ObjectName, range: &Range<u64>) -> Result<Bytes, StoreError> {
        let ask = Ask {
            headers: vec![(header::RANGE, format!("bytes={}-{}", range.start, range.end - 1))],
            ..Ask::get(
                format!("{}?alt=media", self.object(name)),
                usize::try_from(range.end - range.start).unwrap_or(usize::MAX),
            )
        };
        let answer = self.http.ask(&ask).await?;
        match answer.status {
            206 => Ok(answer.body),
            200 if range.start == 0 => Ok(answer.body),
            200 => Err(StoreError::Unusable(format!("{name}: a part was asked for, and all was sent"))),
            404 => Err(StoreError::Missing(name.clone())),
            416 => Ok(Bytes::new()),
            _ => Err(fault::of(&answer)),
        }
    }
}

fn described<'j, T: Deserialize<'j>>(body: &'j [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(body)
        .map_err(|error| StoreError::Unusable(format!("an answer is not as documented: {error}")))
}

/// A number that is written as text.
fn number(text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_| StoreError::Unusable("a length is no number".to_owned()))
}

/// A moment as RFC 3339 writes it, in UTC; the beginning of time when it is not one.
fn moment(text: &str) -> Moment {
    let part = |range: Range<usize>| text.get(range).and_then(|digits| digits.parse::<u64>().ok());
    let parts = [part(0..4), part(5..7), part(8..10), part(11..13), part(14..16), part(17..19)];
    let [Some(year), Some(month @ 1..=12), Some(day), Some(hour), Some(minute), Some(second)] = parts else {
        return Moment::default();
    };
    if !text.ends_with('Z') || year < 1970 {
        return Moment::default();
    }
    // Days before a year and before a month, counted from March, so that the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let days = days.saturating_sub(719_468);
    let millis: u64 = text
        .get(20..text.len() - 1)
        .map(|digits| digits.chars().chain("000".chars()).take(3).collect::<String>())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_default();
    Moment::from_millis((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis)
}

#[async_trait]
impl Store for Gcs {
    fn place(&self) -> String {
        format!("gs://{}/{}", self.inner.bucket, self.inner.prefix.trim_end_matches('/'))
    }

    async fn examine(&self) -> Result<Abilities, StoreError> {
        examine(self).await
    }

    async fn put(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError> {
        self.inner.put(name, &content).await
    }

    async fn begin(&self, name: &ObjectName) -> Result<Box<dyn Upload>, StoreError> {
        Ok(Box::new(Chunks::new(self.inner.clone(), name.clone())))
    }

    async fn get(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            let found = self.inner.describe(name).await?;
            return found.map(|_| Bytes::new()).ok_or_else(|| StoreError::Missing(name.clone()));
        }
        self.inner.get(name, &range).await
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        match self.inner.describe(name).await? {
            Some(found) => number(&found.size).map(Some),
            None => Ok(None),
        }
    }

    async fn list(&self, under: &str, after: Option<&ObjectName>) -> Result<Vec<Listed>, StoreError> {
        let inner = &self.inner;
        let (bucket, prefix) = (escaped(&inner.bucket), escaped(&format!("{}{under}", inner.prefix)));
        let mut address = format!(
            "{}/storage/v1/b/{bucket}/o?fields=nextPageToken,items(name,size,updated)&prefix={prefix}",
            inner.endpoint
        );
        let after = after.map(|name| inner.key(name));
        if let Some(after) = &after {
            // From there on, itself included.
            let _ = write!(address, "&startOffset={}", escaped(after));
        }
        let mut token: Option<String> = None;
        loop {
            let page = token.as_ref().map(|token| format!("&pageToken={}", escaped(token)));
            let asked = format!("{address}{}", page.unwrap_or_default());
            let answer = inner.http.ask(&Ask::get(asked, DESCRIPTION)).await?;
            if answer.status != 200 {
                return Err(fault::of(&answer));
            }
            let page: Page = described(&answer.body)?;
            let mut found = Vec::new();
            for object in page.items {
                if after.as_deref().is_some_and(|after| object.name.as_str() <= after) {
                    continue;
                }
                let Some(Ok(name)) = object.name.strip_prefix(&inner.prefix).map(str::parse) else {
                    continue;
                };
                found.push(Listed { name, size: number(&object.size)?, written: moment(&object.updated) });
            }
            // A whole answer of what is not ours is not the end.
            if !found.is_empty() || page.next_page_token.is_none() {
                return Ok(found);
            }
            token = page.next_page_token;
        }
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        let ask = Ask { method: Method::DELETE, ..Ask::get(self.inner.object(name), DESCRIPTION) };
        let answer = self.inner.http.ask(&Ask { limit: ANSWER, ..ask }).await?;
        match answer.status {
            200 | 204 | 404 => Ok(()),
            _ => Err(fault::of(&answer)),
        }
    }

    async fn settle(&self) -> Result<(), StoreError> {
        // A bucket answers when it is durable.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        for text in [
            "1970-01-01T00:00:00.000Z",
            "2024-02-29T23:59:59.999Z",
            "2026-11-21T09:14:46.120Z",
            "2100-03-01T00:00:00.001Z",
        ] {
            assert_eq!(moment(text).to_string(), text);
        }
        assert_eq!(moment("2026-11-21T09:14:46Z").to_string(), "2026-11-21T09:14:46.000Z");
        assert_eq!(moment("2026-11-21T09:14:46.12Z").to_string(), "2026-11-21T09:14:46.120Z");
        for wrong in ["", "yesterday", "2026-13-21T09:14:46Z", "2026-11-21T09:14:46+01:00"] {
            assert_eq!(moment(wrong), Moment::default(), "{wrong}");
        }
    }

    #[test]
    fn a_key_leads_nowhere_else() {
        assert_eq!(escaped("a/b c?d=é&x"), "a%2Fb%20c%3Fd%3D%C3%A9%26x");
    }
}
