//! What a store does is found out by trying it, with objects of its own under `probe/`.
//!
//! A store that takes a conditional write and ignores the condition looks like any other until two write at once: some do
//! (garage), and some honour it only when the two are far enough apart (s3s-fs).
//!
//! **Invariant:** what was tried with is removed again, whatever came of it.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use futures::future::join_all;

use super::{Abilities, ObjectName, Store, StoreError};

/// So many write one name at once.
const RACERS: u8 = 8;

/// Writes, reads, lists and removes, and lets several write one name: one after the other, at once, whole and in parts.
///
/// # Errors
/// What the store answered when it did not do one of them; `Unusable` when it did it, and wrongly.
pub async fn examine(store: &dyn Store) -> Result<Abilities, StoreError> {
    // Nobody else's, on any host.
    let mark = RandomState::new().hash_one(std::process::id());
    let name = |part: &str| format!("probe/{mark:016x}/{part}").parse::<ObjectName>().expect("a name");
    let names = [name("one-by-one"), name("at-once"), name("in-parts")];
    let found = tried(store, &names).await;
    let mut removed = Ok(());
    for name in &names {
        removed = removed.and(store.remove(name).await);
    }
    let found = found?;
    removed?;
    match store.size(&names[0]).await? {
        None => Ok(found),
        Some(_) => Err(wrong(&names[0], "was removed, and is there")),
    }
}

async fn tried(store: &dyn Store, names: &[ObjectName; 3]) -> Result<Abilities, StoreError> {
    let [one_by_one, at_once, in_parts] = names;
    let content = Bytes::from_static(b"lifeboat was here");
    store.put(one_by_one, content.clone()).await?;
    let mut exclusive = refused(store.put(one_by_one, Bytes::from_static(b"somebody was here")).await)?;
    if exclusive && store.get(one_by_one, 0..64).await? != content {
        return Err(wrong(one_by_one, "was written, and reads otherwise"));
    }
    if store.get(one_by_one, 4..6).await?.len() != 2 {
        return Err(wrong(one_by_one, "is read whole when a part is asked for"));
    }
    let listed = store.list(one_by_one.as_str(), None).await?;
    if !matches!(&listed[..], [only] if only.name == *one_by_one) {
        return Err(wrong(one_by_one, "was written, and is not listed"));
    }

    let racers = (0..RACERS).map(|racer| store.put(at_once, Bytes::from(vec![racer; 16])));
    let mut winners = 0;
    for end in join_all(racers).await {
        winners += u8::from(!refused(end)?);
    }
    exclusive &= winners == 1;

    for winner in [true, false] {
        let written = in_parts_of(store, in_parts, &content).await;
        exclusive &= refused(written)? != winner;
    }
    store.settle().await?;
    Ok(Abilities { exclusive })
}

async fn in_parts_of(store: &dyn Store, name: &ObjectName, content: &Bytes) -> Result<(), StoreError> {
    let mut upload = store.begin(name).await?;
    upload.write(content.clone()).await?;
    upload.finish().await
}

/// Whether a write was refused because the name is taken.
fn refused(end: Result<(), StoreError>) -> Result<bool, StoreError> {
    match end {
        Ok(()) => Ok(false),
        Err(StoreError::Exists(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

fn wrong(name: &ObjectName, what: &str) -> StoreError {
    StoreError::Unusable(format!("{name} {what}"))
}
