//! An object that is written part by part.
//!
//! One that is shorter than a part is put whole, in one call. An upload that is begun and never ended, because the machine
//! was lost, cannot be seen, and costs what its parts take: a bucket should have a lifecycle rule that ends it.
//!
//! **Invariant:** one part is filled and two are under way, never more.
//! **Invariant:** an upload that failed or was dropped is ended at the other side.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use lifeboat_engine::ports::{ObjectName, StoreError, Upload};
use tokio::task::JoinSet;

use super::fault::{Trouble, of};
use super::{Inner, MARK, patient};

/// The length of every part but the last. An upload has ten thousand parts at most, and so 80 GB.
pub(super) const PART: usize = 8 << 20;

/// So many parts are under way.
const UNDER_WAY: usize = 2;

/// An upload into a bucket.
pub(super) struct Parts {
    inner: Arc<Inner>,
    name: ObjectName,
    mark: String,
    /// What is not sent yet.
    rest: BytesMut,
    begun: Option<String>,
    sent: i32,
    sending: JoinSet<Result<CompletedPart, Trouble>>,
    done: Vec<CompletedPart>,
    failed: Option<StoreError>,
}

impl Parts {
    pub(super) fn new(inner: Arc<Inner>, name: ObjectName) -> Self {
        let mark = inner.mark();
        Self {
            inner,
            name,
            mark,
            rest: BytesMut::new(),
            begun: None,
            sent: 0,
            sending: JoinSet::new(),
            done: Vec::new(),
            failed: None,
        }
    }

    /// The upload at the other side, begun when there is none.
    async fn upload(&mut self) -> Result<String, StoreError> {
        if let Some(upload) = &self.begun {
            return Ok(upload.clone());
        }
        let begun = self
            .inner
            .client
            .create_multipart_upload()
            .bucket(&self.inner.bucket)
            .key(self.inner.key(&self.name))
            .metadata(MARK, &self.mark)
            .send()
            .await
            .map_err(|error| self.inner.error(&self.name, of(error)))?;
        let upload = begun
            .upload_id
            .ok_or_else(|| StoreError::Unusable("an upload was begun, and has no name".to_owned()))?;
        self.begun = Some(upload.clone());
        Ok(upload)
    }

    async fn send(&mut self, part: Bytes) -> Result<(), StoreError> {
        let upload = self.upload().await?;
        while self.sending.len() >= UNDER_WAY {
            self.sent_one().await?;
        }
        self.sent += 1;
        let (number, inner, key) = (self.sent, self.inner.clone(), self.inner.key(&self.name));
        self.sending.spawn(async move {
            let sent = inner
                .client
                .upload_part()
                .bucket(&inner.bucket)
                .key(key)
                .upload_id(upload)
                .part_number(number)
                .body(ByteStream::from(part))
                .customize()
                .config_override(patient())
                .send()
                .await
                .map_err(of)?;
            Ok(CompletedPart::builder()
                .part_number(number)
                .set_e_tag(sent.e_tag)
                .set_checksum_crc32(sent.checksum_crc32)
                .set_checksum_crc64_nvme(sent.checksum_crc64_nvme)
                .build())
        });
        Ok(())
    }

    /// Waits for one part.
    async fn sent_one(&mut self) -> Result<(), StoreError> {
        match self.sending.join_next().await {
            None => Ok(()),
            Some(Ok(Ok(part))) => {
                self.done.push(part);
                Ok(())
            }
            // Somebody has ended the upload: a rule of the bucket's, or a person.
            Some(Ok(Err(Trouble::NotThere))) => {
                Err(StoreError::Unusable(format!("{}: its upload was ended by somebody else", self.name)))
            }
            Some(Ok(Err(trouble))) => Err(self.inner.error(&self.name, trouble)),
            Some(Err(error)) => Err(StoreError::Unusable(format!("{}: sending ended: {error}", self.name))),
        }
    }

    async fn written(&mut self, mut part: Bytes) -> Result<(), StoreError> {
        while !part.is_empty() {
            if self.rest.capacity() == 0 {
                self.rest.reserve(part.len().min(PART));
            }
            let more = part.len().min(PART - self.rest.len());
            self.rest.extend_from_slice(&part.split_to(more));
            if self.rest.len() == PART {
                let full = std::mem::take(&mut self.rest).freeze();
                self.send(full).await?;
            }
        }
        Ok(())
    }

    async fn finished(&mut self) -> Result<(), StoreError> {
        let rest = std::mem::take(&mut self.rest).freeze();
        if self.begun.is_none() {
            return self.inner.put(&self.name, rest).await;
        }
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        while !self.sending.is_empty() {
            self.sent_one().await?;
        }
        self.done.sort_unstable_by_key(|part| part.part_number);
        let parts =
            CompletedMultipartUpload::builder().set_parts(Some(std::mem::take(&mut self.done))).build();
        let done = self
            .inner
            .client
            .complete_multipart_upload()
            .bucket(&self.inner.bucket)
            .key(self.inner.key(&self.name))
            .set_upload_id(self.begun.clone())
            .multipart_upload(parts)
            .if_none_match("*")
            .customize()
            .config_override(patient())
            .send()
            .await;
        match done.map_err(of) {
            Ok(_) => {}
            // It may be done, and the answer to that lost.
            Err(trouble) => self.inner.came_to(&self.name, &self.mark, trouble).await?,
        }
        self.begun = None;
        Ok(())
    }
}

#[async_trait]
impl Upload for Parts {
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

impl Drop for Parts {
    fn drop(&mut self) {
        let Some(upload) = self.begun.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (inner, key) = (self.inner.clone(), self.inner.key(&self.name));
        let mut sending = std::mem::take(&mut self.sending);
        runtime.spawn(async move {
            // A part that arrives after the end would stay.
            sending.shutdown().await;
            let end = inner.client.abort_multipart_upload().bucket(&inner.bucket).key(key);
            // The bucket's own rule ends what this does not.
            let _ = end.upload_id(upload).send().await;
        });
    }
}
