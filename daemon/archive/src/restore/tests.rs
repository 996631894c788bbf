//! Manifests and listings that were made to do harm.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lifeboat_core::{Epoch, Lsn, Moment};
use lifeboat_engine::pretend::MemoryStore;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::*;
use crate::keys::KeyFile;
use crate::manifest::listing::entry_of;
use crate::manifest::{Origin, Point, Sums, Used, whole};
use crate::stream::{Lanes, Stream, StreamWriter};

const SYSTEM: SystemIdentifier = SystemIdentifier::new(42);

/// What every forged backup has in its stream of data.
const DATA: u64 = 3 << 20;

/// The digest of the first hundred of those bytes.
fn digest() -> String {
    blake3::hash(&[7; 100]).to_hex().to_string()
}

struct Forge {
    scratch: tempfile::TempDir,
    archive: Archive,
}

impl Forge {
    async fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let key = KeyFile::make(&scratch.path().join("key")).unwrap();
        let archive = Archive::init(Arc::new(MemoryStore::default()), &key).await.unwrap();
        fs::write(scratch.path().join("outside"), b"outside").unwrap();
        Self { scratch, archive }
    }

    /// A backup that says what it is told to say, under a good signature: its maker has the key, and means ill.
    async fn backup(&self, list: &str, change: impl FnOnce(&mut Manifest)) -> Manifest {
        let begun = Moment::from_millis(1_795_000_000_000);
        let backup = BackupId::make(begun).unwrap();
        let lanes = Lanes::new();
        let mut lengths = Vec::new();
        for (stream, bytes) in [
            (Stream::Data, vec![7; usize::try_from(DATA).unwrap()]),
            (Stream::Prints, vec![9; 8 * 384]),
            (Stream::List, list.as_bytes().to_vec()),
        ] {
            let mut writer = StreamWriter::new(&self.archive, SYSTEM, &backup, stream, &lanes);
            writer.push(&bytes).await.unwrap();
            lengths.push(writer.finish().await.unwrap().length);
        }
        let used = |length| Used { length, packs: whole(length) };
        let own = Origin { backup: backup.clone(), data: used(lengths[0]), prints: used(lengths[1]) };
        let mut manifest = Manifest {
            backup,
            point: Point {
                workload: "shop".into(),
                database: "main".into(),
                system: SYSTEM,
                timeline: Timeline::new(1),
                start: Lsn::new(1),
                begun,
                server_version: 150_006,
                segment_size: 16 << 20,
                agent: "east".into(),
                epoch: Epoch::new(1),
            },
            end: Lsn::new(2),
            end_timeline: Timeline::new(1),
            ended: begun,
            previous: None,
            sums: Sums::default(),
            prints_key: self.archive.keys().newest().id().to_string(),
            origins: vec![own],
            list: lengths[2],
            list_digest: blake3::hash(list.as_bytes()).into(),
            bad_pages: Vec::new(),
            bad_page_count: 0,
        };
        change(&mut manifest);
        manifest.write(&self.archive).await.unwrap();
        manifest
    }

    async fn restore(&self, manifest: &Manifest, options: &Options) -> Result<Progress, Trouble> {
        let target = self.scratch.path().join("target");
        let plan = Plan::of(&self.archive, SYSTEM, &manifest.backup).await?;
        plan.run(&target, options, Arc::new(|_| {})).await
    }

    /// Refused, and nothing outside of the target is changed.
    async fn refused(&self, list: &str, change: impl FnOnce(&mut Manifest)) -> String {
        let manifest = self.backup(list, change).await;
        let refused = self.restore(&manifest, &Options::default()).await;
        let refused =
            refused.expect_err(&format!("restored: {}", list.chars().take(300).collect::<String>()));
        let mut names: Vec<_> = fs::read_dir(self.scratch.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let target = self.scratch.path().join("target");
        if names.len() == 3 {
            assert!(!target.join("global/pg_control").exists());
            fs::remove_dir_all(&target).unwrap();
            names.pop();
        }
        assert_eq!(names, ["key", "outside"], "{list}");
        assert_eq!(fs::read(self.scratch.path().join("outside")).unwrap(), b"outside");
        refused.to_string()
    }
}

/// A line for a file of a hundred bytes.
fn file(path: &str) -> String {
    parts(path, 100, "[[0,0,100]]", "[[0,0,8]]")
}

fn parts(path: &str, size: u64, data: &str, prints: &str) -> String {
    let digest = digest();
    format!(
        "{{\"file\":{{\"path\":\"{path}\",\"mode\":384,\"mtime\":1,\"size\":{size},\"digest\":\"{digest}\",\
         \"data\":{data},\"prints\":{prints}}}}}\n"
    )
}

fn folder(path: &str) -> String {
    format!("{{\"folder\":{{\"path\":\"{path}\",\"mode\":448}}}}\n")
}

fn link(path: &str, to: &str) -> String {
    format!("{{\"link\":{{\"path\":\"{path}\",\"to\":\"{to}\"}}}}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_well_is_restored() {
    let forge = Forge::new().await;
    let list =
        folder("global") + &file("global/pg_control") + &file("a") + &folder("b") + &link("b/c", "../a");
    let manifest = forge.backup(&list, |_| {}).await;
    forge.restore(&manifest, &Options::default()).await.unwrap();
    assert_eq!(fs::read(forge.scratch.path().join("target/b/c")).unwrap(), [7; 100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leads_out_of_the_target() {
    let forge = Forge::new().await;
    let outside = forge.scratch.path().join("outside");
    let outside = outside.to_str().unwrap();
    for path in
        ["../outside", "a/../../outside", "..", ".", "", "/", outside, "a//b", "a/./b", "a/", "a\\u0000b"]
    {
        forge.refused(&(folder("a") + &file(path)), |_| {}).await;
        forge.refused(&(folder(path) + &file("a")), |_| {}).await;
        forge.refused(&(file("x") + &link(path, "x")), |_| {}).await;
    }
    let hex = "{\"hex\":\"2e2e2f6f757473696465\"}";
    forge.refused(&file("PATH").replace("\"PATH\"", hex), |_| {}).await;
    for to in
        [outside, "..", "../outside", "a/..", "a/../../outside", ".", "", "a/./b", "a//b", "../../../../etc"]
    {
        forge.refused(&(folder("a") + &link("l", to)), |_| {}).await;
        forge.refused(&(folder("a") + &link("l", to) + &file("l/outside")), |_| {}).await;
    }
    // Links come last: nothing is ever written through one.
    forge.refused(&(folder("a") + &link("l", "a") + &file("l/file")), |_| {}).await;
    forge.refused(&(folder("a") + &link("l", "a") + &folder("l/folder")), |_| {}).await;
    forge.refused(&(file("a") + &file("a")), |_| {}).await;
    forge.refused(&(folder("a") + &folder("a")), |_| {}).await;
    forge.refused(&(folder("a") + &file("a")), |_| {}).await;
    forge.refused(&(file("a") + &link("a", "b")), |_| {}).await;
    forge
        .refused(&(folder("global") + &file("global/pg_control") + &file("global/pg_control")), |_| {})
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tablespace_goes_where_the_caller_says_and_nowhere_else() {
    let forge = Forge::new().await;
    let space = "{\"tablespace\":{\"oid\":16384,\"location\":\"/etc\"}}\n".to_owned() + &folder("pg_tblspc");
    let told = forge.refused(&space, |_| {}).await;
    assert!(told.contains("--tablespace 16384=/etc"), "{told}");
    let stray = file("a").replace("\"path\"", "\"tablespace\":16385,\"path\"");
    forge.refused(&stray, |_| {}).await;

    let within = file("PG_15/a").replace("\"path\"", "\"tablespace\":16384,\"path\"");
    let inner = folder("PG_15").replace("\"path\"", "\"tablespace\":16384,\"path\"");
    let manifest = forge.backup(&(space + &inner + &within), |_| {}).await;
    let place = forge.scratch.path().join("space");
    let target = forge.scratch.path().join("target");
    let options = |place: &Path| Options { tablespaces: [(16384, place.to_owned())].into(), delta: false };
    for wrong in [Path::new("relative"), &target, &target.join("inside"), forge.scratch.path()] {
        assert!(forge.restore(&manifest, &options(wrong)).await.is_err(), "{}", wrong.display());
        let _ = fs::remove_dir_all(&target);
    }
    forge.restore(&manifest, &options(&place)).await.unwrap();
    assert_eq!(fs::read_link(target.join("pg_tblspc/16384")).unwrap(), place);
    assert_eq!(fs::read(place.join("PG_15/a")).unwrap(), [7; 100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_is_made_of_must_be_there() {
    let forge = Forge::new().await;
    let most = u64::MAX;
    for (size, data, prints) in [
        (100, "[[1,0,100]]", "[[0,0,8]]"),
        (100, "[[0,0,100]]", "[[1,0,8]]"),
        (100, "[[4294967295,0,100]]", "[[0,0,8]]"),
        (100, "[[0,0,99]]", "[[0,0,8]]"),
        (100, "[[0,0,101]]", "[[0,0,8]]"),
        (100, "[[0,0,100]]", "[[0,0,16]]"),
        (100, "[]", "[]"),
        (100, "[[0,3145728,100]]", "[[0,0,8]]"),
        (100, "[[0,3145700,100]]", "[[0,0,8]]"),
        (100, "[[0,18446744073709551615,100]]", "[[0,0,8]]"),
        (100, "[[0,0,100],[0,0,0]]", "[[0,0,8]]"),
        (100, "[[0,0,18446744073709551615],[0,0,101]]", "[[0,0,8]]"),
        (100, "[[0,0,100,4]]", "[[0,0,8]]"),
        (100, "[[0,-1,100]]", "[[0,0,8]]"),
        (most, "[[0,0,18446744073709551615]]", "[[0,0,8]]"),
        // Twice the same bytes: files would be longer than all that was ever stored.
        (2 * DATA, "[[0,0,3145728],[0,0,3145728]]", "[[0,0,3072],[0,0,3072]]"),
    ] {
        forge.refused(&parts("a", size, data, prints), |_| {}).await;
    }
    // Bytes that are there, and are not the file's.
    let untrue = forge.refused(&parts("a", 101, "[[0,0,101]]", "[[0,0,8]]"), |_| {}).await;
    assert!(untrue.contains("digest"), "{untrue}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_and_its_manifest_are_bounded_and_agree() {
    let forge = Forge::new().await;
    let line = file("a");
    for list in ["{}\n", "null\n", "\n", "{\"file\":{}}\n", line.trim_end(), &line.replace("mode", "mood")] {
        forge.refused(list, |_| {}).await;
    }
    forge.refused(&("[".repeat(100_000) + "\n"), |_| {}).await;
    forge.refused(&line, |manifest| manifest.list += 1).await;
    forge.refused(&line, |manifest| manifest.list -= 1).await;
    forge.refused(&line, |manifest| manifest.list = 1 << 50).await;
    forge.refused(&line, |manifest| manifest.list = u64::MAX).await;
    forge.refused(&line, |manifest| manifest.list_digest.0[0] ^= 1).await;
    forge.refused(&line, |manifest| manifest.origins.clear()).await;
    forge.refused(&line, |manifest| manifest.origins[0].data.packs = vec![]).await;
    forge.refused(&line, |manifest| manifest.origins[0].data.packs = vec![(1, u32::MAX)]).await;
    let huge = |manifest: &mut Manifest| {
        manifest.origins[0].data = Used { length: u64::MAX, packs: vec![(1, u32::MAX)] };
    };
    forge.refused(&line, huge).await;
    // No line is longer than it may be, whatever it compresses to.
    let long = format!("{{\"folder\":{{\"mode\":448,{}\"path\":\"a\"}}}}\n", " ".repeat(30 << 20));
    let told = forge.refused(&long, |_| {}).await;
    assert!(told.contains("too long"), "{told}");
}

/// Whatever a listing says, what is taken from it is within its manifest, and nothing panics.
#[tokio::test]
async fn lines_that_were_changed_at_random_are_refused_or_fit() {
    let forge = Forge::new().await;
    let good = file("base/5/16384")
        + &folder("base")
        + &link("a", "b")
        + &parts("b", 8192, "[[0,0,8192]]", "[[0,8,8]]");
    let manifest = forge.backup(&good, |_| {}).await;
    let mut dice = ChaCha8Rng::seed_from_u64(11);
    let mut fitted = 0;
    for _ in 0..20_000 {
        let lines: Vec<&str> = good.lines().collect();
        let mut line = lines[dice.next_u32() as usize % lines.len()].as_bytes().to_vec();
        for _ in 0..=dice.next_u32() % 3 {
            let at = dice.next_u32() as usize % line.len();
            match dice.next_u32() % 4 {
                0 => line[at] ^= 1 << (dice.next_u32() % 8),
                1 => drop(line.remove(at)),
                2 => line.insert(at, b"0123456789/.\"[]{},"[dice.next_u32() as usize % 18]),
                _ => line[at] = b"0123456789/.\"[]{},"[dice.next_u32() as usize % 18],
            }
        }
        let Ok(entry) = entry_of(&manifest, &line) else { continue };
        fitted += 1;
        if let Entry::File(file) = entry {
            assert!(file.data.iter().all(|part| part.0 == 0 && part.1 + part.2 <= DATA), "{file:?}");
            assert_eq!(file.data.iter().map(|part| part.2).sum::<u64>(), file.size);
            assert!(
                !file
                    .path
                    .as_bytes()
                    .split(|byte| *byte == b'/')
                    .any(|part| part == b".." || part.is_empty())
            );
        }
    }
    assert!(fitted > 100, "{fitted}: nothing was changed in a way that may be");
}
