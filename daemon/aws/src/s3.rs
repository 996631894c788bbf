//! An archive in a bucket of S3, or of anything that speaks like it.
//!
//! Storage classes, encryption, versions and object lock are the bucket's own: nothing here sets them.
//!
//! **Invariant:** every write carries `If-None-Match: *`. Whether the other side honours it is found out by
//! [`Store::examine`], never assumed: some take the header and ignore it.
//! **Invariant:** a write that was sent twice, because its answer was lost, is told from another writer's: each carries a
//! mark of its own, which is looked at before "it exists" is said.

mod fault;
mod identity;
mod upload;

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::{AppName, BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};
use lifeboat_core::Moment;
use lifeboat_engine::ports::{Abilities, Listed, ObjectName, Store, StoreError, Upload, examine};

use self::fault::{TooMuchAsked, Trouble, of};
use self::identity::FromFiles;
use self::upload::Parts;

/// The header in which a write says whose it is.
const MARK: &str = "lifeboat-writer";

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take to begin, and to go on.
const ANSWER: Duration = Duration::from_secs(20);
/// The same for a call that carries content: eight megabytes over a line of half a megabit a second.
const CONTENT: Duration = Duration::from_secs(130);
/// So often is a call made that may pass, in all.
const ATTEMPTS: u32 = 4;

/// Who we are to the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// What Amazon's tools find: environment, profile, web identity, container, instance.
    #[default]
    Found,
    /// A profile of the shared configuration.
    Profile(String),
    /// Files that hold one value each; read again every few minutes, so that they may be changed.
    Files {
        /// The access key's id.
        id: PathBuf,
        /// The secret access key.
        secret: PathBuf,
        /// The session token, where keys are temporary.
        token: Option<PathBuf>,
    },
}

/// Where a bucket is, and how it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What the names of all objects begin with; a slash is added. Empty: nothing.
    pub prefix: String,
    /// Its region; none: what Amazon's tools find.
    pub region: Option<String>,
    /// The address of what speaks like S3, with its scheme; none: Amazon's own.
    pub endpoint: Option<String>,
    /// `https://host/bucket/…` in place of `https://bucket.host/…`; most that are not Amazon want it.
    pub path_style: bool,
    /// Who we are.
    pub identity: Identity,
}

/// An archive in a bucket.
#[derive(Clone)]
pub struct S3 {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    bucket: String,
    /// Empty, or ends with a slash.
    prefix: String,
    /// This process, and no other.
    mark: u64,
    count: AtomicU64,
}

impl S3 {
    /// Makes a client for the bucket; nothing is sent before the first call, except to find out who we are and where.
    pub async fn open(bucket: &Bucket) -> Self {
        let mut found =
            aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts(ANSWER)).retry_config(
                RetryConfig::standard()
                    .with_max_attempts(ATTEMPTS)
                    .with_initial_backoff(Duration::from_millis(100))
                    .with_max_backoff(Duration::from_secs(3)),
            );
        if let Ok(name) = AppName::new("lifeboat") {
            found = found.app_name(name);
        }
        if let Some(region) = &bucket.region {
            found = found.region(Region::new(region.clone()));
        }
        found = match &bucket.identity {
            Identity::Found => found,
            Identity::Profile(profile) => found.profile_name(profile),
            Identity::Files { id, secret, token } => {
                found.credentials_provider(FromFiles::new(id, secret, token.as_deref()))
            }
        };
        let found = found.load().await;
        let mut config = aws_sdk_s3::config::Builder::from(&found)
            .force_path_style(bucket.path_style)
            .retry_classifier(TooMuchAsked);
        if found.region().is_none() && bucket.endpoint.is_some() {
            // Those that are not Amazon take any, and the signature needs one.
            config = config.region(Region::from_static("us-east-1"));
        }
        if let Some(endpoint) = &bucket.endpoint {
            // Checksums that Amazon added late are refused by others; content is checked by the archive anyway.
            config = config
                .endpoint_url(endpoint)
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        }
        let prefix = match bucket.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let inner = Inner {
            client: Client::from_conf(config.build()),
            bucket: bucket.name.clone(),
            prefix,
            mark: RandomState::new().hash_one(std::process::id()),
            count: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }
}

/// A call may take as long as all its attempts, and the pauses between them.
fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .read_timeout(attempt)
        .operation_attempt_timeout(attempt)
        .operation_timeout(attempt * 3)
        .build()
}

/// For calls that carry content.
fn patient() -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::config::Builder::new().timeout_config(timeouts(CONTENT))
}

impl Inner {
    fn key(&self, name: &ObjectName) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The name of an object of ours; none for what is not.
    fn name(&self, key: &str) -> Option<ObjectName> {
        key.strip_prefix(&self.prefix)?.parse().ok()
    }

    /// A mark that no other write has.
    fn mark(&self) -> String {
        format!("{:016x}-{}", self.mark, self.count.fetch_add(1, Ordering::Relaxed))
    }

    fn error(&self, name: &ObjectName, trouble: Trouble) -> StoreError {
        match trouble {
            Trouble::NotThere => StoreError::Missing(name.clone()),
            Trouble::There => StoreError::Exists(name.clone()),
            Trouble::Conflict(text) => StoreError::Unreachable(text),
            Trouble::Behind(text) => StoreError::Unusable(text),
            Trouble::Other(error) => error,
        }
    }

    /// How long an object is, and whose mark it carries.
    async fn head(&self, name: &ObjectName) -> Result<Option<(u64, Option<String>)>, StoreError> {
        let asked = self.client.head_object().bucket(&self.bucket).key(self.key(name)).send().await;
        match asked.map_err(of) {
            Ok(found) => {
                let size = u64::try_from(found.content_length.unwrap_or_default()).unwrap_or_default();
                Ok(Some((size, found.metadata.and_then(|mut all| all.remove(MARK)))))
            }
            Err(Trouble::NotThere) => Ok(None),
            Err(trouble) => Err(self.error(name, trouble)),
        }
    }

    /// What a write that was refused, or not understood, came to: perhaps it was ours that made it exist.
    async fn came_to(&self, name: &ObjectName, mark: &str, trouble: Trouble) -> Result<(), StoreError> {
        match trouble {
            Trouble::There | Trouble::Conflict(_) | Trouble::NotThere => match self.head(name).await? {
                Some((_, found)) if found.as_deref() == Some(mark) => Ok(()),
                Some(_) => Err(StoreError::Exists(name.clone())),
                None => Err(StoreError::Unreachable(format!("{name}: others write it, and none is done"))),
            },
            trouble => Err(self.error(name, trouble)),
        }
    }

    async fn put(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError> {
        let mark = self.mark();
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(name))
            .metadata(MARK, &mark)
            .if_none_match("*")
            .body(ByteStream::from(content))
            .customize()
            .config_override(patient())
            .send()
            .await;
        match put.map_err(of) {
            Ok(_) => Ok(()),
            Err(trouble) => self.came_to(name, &mark, trouble).await,
        }
    }

    async fn get(&self, name: &ObjectName, range: &Range<u64>) -> Result<Bytes, StoreError> {
        let asked = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.key(name))
            .range(format!("bytes={}-{}", range.start, range.end - 1))
            .send()
            .await;
        match asked.map_err(of) {
            Ok(answer) => read(name, range, answer).await,
            Err(Trouble::Behind(_)) => Ok(Bytes::new()),
            Err(trouble) => Err(self.error(name, trouble)),
        }
    }

    /// One answer: the objects, the last key in it, and whether there is more.
    async fn page(
        &self,
        under: &str,
        after: Option<&str>,
    ) -> Result<(Vec<Listed>, Option<String>), StoreError> {
        let asked = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(format!("{}{under}", self.prefix))
            .set_start_after(after.map(str::to_owned))
            .send()
            .await;
        let answer = asked.map_err(|error| match of(error) {
            Trouble::Other(error) => error,
            Trouble::Conflict(text) => StoreError::Unreachable(text),
            Trouble::There | Trouble::NotThere => StoreError::Unusable("a list of nothing".to_owned()),
            Trouble::Behind(text) => StoreError::Unusable(text),
        })?;
        let more = answer.is_truncated.unwrap_or_default();
        let mut last = after.map(str::to_owned);
        let mut found = Vec::new();
        for object in answer.contents.unwrap_or_default() {
            let Some(key) = object.key else { continue };
            if last.as_deref().is_some_and(|last| last >= key.as_str()) {
                // A list that is not in order, or begins anew, could not be followed to its end.
                return Err(StoreError::Unusable(format!("{} lists out of order", self.bucket)));
            }
            if let Some(name) = self.name(&key) {
                let written = object.last_modified.and_then(|moment| moment.to_millis().ok());
                found.push(Listed {
                    name,
                    size: u64::try_from(object.size.unwrap_or_default()).unwrap_or_default(),
                    written: Moment::from_millis(
                        u64::try_from(written.unwrap_or_default()).unwrap_or_default(),
                    ),
                });
            }
            last = Some(key);
        }
        Ok((found, last.filter(|_| more)))
    }
}

/// Reads what was asked for, and not a byte more, whatever is sent.
async fn read(
    name: &ObjectName,
    range: &Range<u64>,
    mut answer: GetObjectOutput,
) -> Result<Bytes, StoreError> {
    if range.start > 0 && answer.content_range.is_none() {
        return Err(StoreError::Unusable(format!("{name}: a part was asked for, and all was sent")));
    }
    let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let said = answer.content_length.and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    let mut content = BytesMut::with_capacity(said.min(wanted).min(upload::PART));
    loop {
        let next = tokio::time::timeout(ANSWER, answer.body.next()).await;
        let next = next.map_err(|_| StoreError::Unreachable(format!("{name}: the answer stopped")))?;
        match next {
            None => break,
            Some(Ok(part)) if content.len() + part.len() <= wanted => content.extend_from_slice(&part),
            Some(Ok(_)) => {
                return Err(StoreError::Unusable(format!("{name}: more was sent than asked for")));
            }
            Some(Err(error)) => {
                return Err(StoreError::Unreachable(format!("{name}: the answer broke off: {error}")));
            }
        }
    }
    if content.len() < said.min(wanted) {
        return Err(StoreError::Unreachable(format!("{name}: the answer broke off")));
    }
    Ok(content.freeze())
}

#[async_trait]
impl Store for S3 {
    fn place(&self) -> String {
        format!("s3://{}/{}", self.inner.bucket, self.inner.prefix.trim_end_matches('/'))
    }

    async fn examine(&self) -> Result<Abilities, StoreError> {
        examine(self).await
    }

    async fn put(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError> {
        self.inner.put(name, content).await
    }

    async fn begin(&self, name: &ObjectName) -> Result<Box<dyn Upload>, StoreError> {
        Ok(Box::new(Parts::new(self.inner.clone(), name.clone())))
    }

    async fn get(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            let found = self.inner.head(name).await?;
            return found.map(|_| Bytes::new()).ok_or_else(|| StoreError::Missing(name.clone()));
        }
        let mut attempt = 1;
        loop {
            match self.inner.get(name, &range).await {
                // The client tries again until an answer begins; one that breaks off is ours to ask for again.
                Err(error) if error.passing() && attempt < ATTEMPTS / 2 => attempt += 1,
                end => return end,
            }
        }
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        Ok(self.inner.head(name).await?.map(|(size, _)| size))
    }

    async fn list(&self, under: &str, after: Option<&ObjectName>) -> Result<Vec<Listed>, StoreError> {
        let mut after = after.map(|name| self.inner.key(name));
        loop {
            let (found, more) = self.inner.page(under, after.as_deref()).await?;
            // A whole answer of what is not ours is not the end.
            if !found.is_empty() || more.is_none() {
                return Ok(found);
            }
            after = more;
        }
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        let inner = &self.inner;
        let removed = inner.client.delete_object().bucket(&inner.bucket).key(inner.key(name)).send().await;
        match removed.map_err(of) {
            Ok(_) | Err(Trouble::NotThere) => Ok(()),
            Err(trouble) => Err(inner.error(name, trouble)),
        }
    }

    async fn settle(&self) -> Result<(), StoreError> {
        // A bucket answers when it is durable.
        Ok(())
    }
}
