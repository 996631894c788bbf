//! What every store must do, once, for the tests of all of them.
//!
//! **Invariant:** all it asserts is promised by [`Store`]; a store that fails here would lose or mix up backups.

use bytes::Bytes;
use futures::future::join_all;

use crate::ports::{ObjectName, Store, StoreError};

/// More than comes in one answer of a bucket, which is a thousand.
const MANY: usize = 1_010;

/// More than two parts of an upload to a bucket, and no multiple of anything.
const LONG: usize = 21_000_001;

/// Writes, reads, lists and removes objects under `conformance/`, which must be empty, and leaves it empty.
///
/// # Panics
/// When the store does not do what [`Store`] says.
pub async fn conformance(store: &dyn Store) {
    let before = all(store, "conformance/").await;
    assert_eq!(before, Vec::<String>::new(), "conformance/ is not empty");
    an_object_is_read_as_it_was_written(store).await;
    an_object_is_never_replaced(store).await;
    a_long_object_is_whole_or_not_there(store).await;
    an_upload_comes_second_like_a_put(store).await;
    of_many_that_write_one_name_one_wins(store).await;
    names_are_listed_in_their_order(store).await;
    long_lists_are_whole(store).await;
    for left in all(store, "conformance/").await {
        store.remove(&name(&left)).await.expect("removed");
    }
    assert_eq!(all(store, "conformance/").await, Vec::<String>::new(), "what was removed is gone");
}

fn name(text: &str) -> ObjectName {
    text.parse().expect("a name of an object")
}

/// Bytes that are not the same anywhere near.
fn bytes(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut content = Vec::with_capacity(length + 8);
    while content.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.truncate(length);
    content.into()
}

async fn all(store: &dyn Store, under: &str) -> Vec<String> {
    let mut names: Vec<ObjectName> = Vec::new();
    loop {
        let page = store.list(under, names.last()).await.expect("listed");
        if page.is_empty() {
            return names.iter().map(ToString::to_string).collect();
        }
        names.extend(page.into_iter().map(|listed| listed.name));
    }
}

async fn an_object_is_read_as_it_was_written(store: &dyn Store) {
    let object = name("conformance/one/object.z");
    assert_eq!(store.size(&object).await, Ok(None));
    assert_eq!(store.get(&object, 0..10).await, Err(StoreError::Missing(object.clone())));
    store.remove(&object).await.expect("well, when there is none");

    let content = bytes(100_000, 1);
    store.put(&object, content.clone()).await.expect("put");
    assert_eq!(store.size(&object).await, Ok(Some(100_000)));
    for range in [0..100_000, 0..1, 99_999..100_000, 4_096..70_000] {
        let expected = content.slice(range.start..range.end);
        assert_eq!(store.get(&object, range.start as u64..range.end as u64).await, Ok(expected), "{range:?}");
    }
    assert_eq!(store.get(&object, 99_000..u64::MAX).await, Ok(content.slice(99_000..)), "past the end");
    assert_eq!(store.get(&object, 100_000..100_001).await, Ok(Bytes::new()), "behind the end");
    assert_eq!(store.get(&object, 1 << 40..1 << 41).await, Ok(Bytes::new()), "far behind the end");
    assert_eq!(store.get(&object, 5..5).await, Ok(Bytes::new()), "nothing is asked for");

    let empty = name("conformance/one/empty");
    store.put(&empty, Bytes::new()).await.expect("put");
    assert_eq!(store.size(&empty).await, Ok(Some(0)));
    assert_eq!(store.get(&empty, 0..10).await, Ok(Bytes::new()));

    let listed = store.list("conformance/one/", None).await.expect("listed");
    let shown: Vec<(&str, u64)> = listed.iter().map(|one| (one.name.as_str(), one.size)).collect();
    assert_eq!(shown, [("conformance/one/empty", 0), ("conformance/one/object.z", 100_000)]);
    // The store's clock may be off, but not by decades.
    assert!(listed.iter().all(|one| one.written.millis() > 1_600_000_000_000), "{listed:?}");

    store.remove(&object).await.expect("removed");
    assert_eq!(store.size(&object).await, Ok(None));
    assert_eq!(store.get(&object, 0..10).await, Err(StoreError::Missing(object.clone())));
    store.put(&object, bytes(10, 2)).await.expect("what was removed may be written again");
    assert_eq!(store.get(&object, 0..100).await, Ok(bytes(10, 2)));
}

async fn an_object_is_never_replaced(store: &dyn Store) {
    let object = name("conformance/once");
    store.put(&object, bytes(100, 3)).await.expect("put");
    assert_eq!(store.put(&object, bytes(100, 4)).await, Err(StoreError::Exists(object.clone())));
    assert_eq!(store.put(&object, bytes(100, 3)).await, Err(StoreError::Exists(object.clone())));
    assert_eq!(store.get(&object, 0..200).await, Ok(bytes(100, 3)));
}

async fn a_long_object_is_whole_or_not_there(store: &dyn Store) {
    let content = bytes(LONG, 5);
    let (object, dropped, empty) =
        (name("conformance/long/a"), name("conformance/long/b"), name("conformance/long/c"));
    let mut upload = store.begin(&object).await.expect("begun");
    let mut rest = content.clone();
    for (count, length) in [1, 1_000, 3_000_000, 70_000, 9_000_000].into_iter().cycle().enumerate() {
        if rest.is_empty() {
            break;
        }
        upload.write(rest.split_to(length.min(rest.len()))).await.expect("written");
        if count == 5 {
            assert_eq!(store.size(&object).await, Ok(None), "an object is not seen before it is whole");
            assert_eq!(all(store, "conformance/long").await, Vec::<String>::new(), "nor listed");
        }
    }
    assert_eq!(store.size(&object).await, Ok(None), "an object is not seen before it is finished");
    upload.finish().await.expect("finished");
    store.settle().await.expect("settled");
    assert_eq!(store.size(&object).await, Ok(Some(LONG as u64)));
    let whole = store.get(&object, 0..u64::MAX).await.expect("read");
    assert!(whole == content, "a long object reads otherwise than it was written");
    let middle = store.get(&object, 8_388_600..8_388_700).await;
    assert_eq!(middle, Ok(content.slice(8_388_600..8_388_700)), "over the seam of two parts");

    for length in [10, LONG] {
        let mut upload = store.begin(&dropped).await.expect("begun");
        upload.write(content.slice(..length)).await.expect("written");
        drop(upload);
        assert_eq!(store.size(&dropped).await, Ok(None), "what is dropped is not seen");
    }
    store.put(&dropped, bytes(10, 6)).await.expect("and its name is free");

    store.begin(&empty).await.expect("begun").finish().await.expect("an upload may be empty");
    assert_eq!(store.size(&empty).await, Ok(Some(0)));
    assert_eq!(
        all(store, "conformance/long").await,
        ["conformance/long/a", "conformance/long/b", "conformance/long/c"]
    );
}

/// Begins, writes and finishes; a store may tell at each of them that the name is taken.
async fn uploaded(store: &dyn Store, object: &ObjectName, content: Bytes) -> Result<(), StoreError> {
    let mut upload = store.begin(object).await?;
    upload.write(content).await?;
    upload.finish().await
}

async fn an_upload_comes_second_like_a_put(store: &dyn Store) {
    let object = name("conformance/second");
    let mut late = store.begin(&object).await.expect("begun");
    late.write(bytes(100, 7)).await.expect("written");
    store.put(&object, bytes(100, 8)).await.expect("put while another one writes");
    assert_eq!(late.finish().await, Err(StoreError::Exists(object.clone())));
    assert_eq!(uploaded(store, &object, bytes(100, 9)).await, Err(StoreError::Exists(object.clone())));
    let long = bytes(LONG, 9);
    assert_eq!(
        uploaded(store, &object, long).await,
        Err(StoreError::Exists(object.clone())),
        "in many parts"
    );
    assert_eq!(store.get(&object, 0..200).await, Ok(bytes(100, 8)));
}

async fn of_many_that_write_one_name_one_wins(store: &dyn Store) {
    let object = name("conformance/race/put");
    let ends = join_all((0..16).map(|racer| store.put(&object, bytes(1_000, 100 + racer)))).await;
    one_won(store, &object, &ends, |racer| bytes(1_000, 100 + racer)).await;

    let object = name("conformance/race/upload");
    let ends = join_all((0..8).map(|racer| uploaded(store, &object, bytes(100_000, 200 + racer)))).await;
    one_won(store, &object, &ends, |racer| bytes(100_000, 200 + racer)).await;
}

async fn one_won(
    store: &dyn Store,
    object: &ObjectName,
    ends: &[Result<(), StoreError>],
    content: impl Fn(u64) -> Bytes,
) {
    let winners: Vec<u64> = (0..).zip(ends).filter(|(_, end)| end.is_ok()).map(|(racer, _)| racer).collect();
    assert_eq!(winners.len(), 1, "one wins: {ends:?}");
    let others = ends.iter().filter(|end| **end == Err(StoreError::Exists(object.clone())));
    assert_eq!(others.count(), ends.len() - 1, "the others are told so: {ends:?}");
    let kept = store.get(object, 0..1 << 20).await.expect("read");
    assert!(kept == content(winners[0]), "what is kept is the winner's");
}

async fn names_are_listed_in_their_order(store: &dyn Store) {
    let parts =
        ["a-b", "a.b", "a/b", "a/b-c/d", "a/b.c", "a0", "aa/a", "b/-", "b/_", "b/A", "b/a", "b/c/d/e"];
    let mut names: Vec<String> = parts.iter().map(|part| format!("conformance/order/{part}")).collect();
    for one in &names {
        store.put(&name(one), Bytes::new()).await.expect("put");
    }
    names.sort_unstable();
    assert_eq!(all(store, "conformance/order/").await, names);
    for under in [
        "conformance/order/a",
        "conformance/order/a/",
        "conformance/order/b/c/",
        "conformance/ord",
        "conformance/order/zz",
    ] {
        let expected: Vec<_> = names.iter().filter(|one| one.starts_with(under)).cloned().collect();
        assert_eq!(all(store, under).await, expected, "under {under}");
    }
    for (count, after) in names.iter().enumerate() {
        let page = store.list("conformance/order/", Some(&name(after))).await.expect("listed");
        let first = page.first().map(|listed| listed.name.to_string());
        assert_eq!(first.as_ref(), names.get(count + 1), "after {after}");
    }
    // What lies before and after all of them.
    let page = store.list("conformance/order/", Some(&name("conformance/a"))).await.expect("listed");
    assert_eq!(page.first().map(|one| one.name.to_string()).as_ref(), names.first());
    assert_eq!(store.list("conformance/order/", Some(&name("d"))).await, Ok(Vec::new()));
    assert_eq!(store.list("nothing-is-here/", None).await, Ok(Vec::new()));
}

async fn long_lists_are_whole(store: &dyn Store) {
    let names: Vec<String> = (0..MANY).map(|count| format!("conformance/many/{count:05}")).collect();
    for some in names.chunks(32) {
        for end in join_all(some.iter().map(|one| put_named(store, one))).await {
            end.expect("put");
        }
    }
    assert!(all(store, "conformance/many/").await == names, "a long list has gaps, or no order");
    for some in names.chunks(32) {
        for end in join_all(some.iter().map(|one| remove_named(store, one))).await {
            end.expect("removed");
        }
    }
}

async fn put_named(store: &dyn Store, one: &str) -> Result<(), StoreError> {
    store.put(&name(one), Bytes::from_static(b"x")).await
}

async fn remove_named(store: &dyn Store, one: &str) -> Result<(), StoreError> {
    store.remove(&name(one)).await
}
