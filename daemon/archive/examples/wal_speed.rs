//! How fast WAL is stored and given back: `cargo run --release -p lifeboat-archive --example wal_speed -- FOLDER [SEGMENT…]`.
//!
//! Without segments of a real server, bytes of which half compress are taken.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "it is run by hand, and prints what it finds")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lifeboat_archive::Archive;
use lifeboat_archive::folder::Folder;
use lifeboat_archive::keys::KeyFile;
use lifeboat_archive::wal::{SegmentName, SegmentSize, Spool, WalOptions, WalWriter, get, get_ahead, tidy};
use lifeboat_core::{Lsn, Moment, SystemIdentifier, Timeline};

const SYSTEM: SystemIdentifier = SystemIdentifier::new(7);
const TIMELINE: Timeline = Timeline::new(1);
const SEGMENT: u64 = 16 << 20;
const ROUNDS: usize = 9;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().unwrap_or_else(|| "/tmp/wal_speed".into());
    let real: Vec<Bytes> = arguments.map(|path| std::fs::read(path).unwrap().into()).collect();
    let segments = if real.is_empty() { made_up() } else { real };
    std::fs::create_dir(&folder).unwrap();
    let key = KeyFile::make(&folder.join("key")).unwrap();
    let archive = Archive::init(Arc::new(Folder::open(folder.join("archive")).unwrap()), &key).await.unwrap();

    let mut at = SEGMENT;
    println!("plain write and fdatasync of 16 MiB   {:>8.1} ms", raw(&folder, &segments[0]));
    println!("plain write and fdatasync of 200 B    {:>8.1} ms", raw(&folder, &segments[0][..200]));
    let (from, to) = streamed(&archive, &segments, at).await;
    let own = segments.iter().map(Bytes::len).sum::<usize>() >> 20;
    println!(
        "resident at most                      {:>8} MiB, of which {own} are what is stored",
        resident()
    );
    at = single(&archive, &segments, to).await;
    at = pushed(&archive, &segments, at).await;
    pieces(&archive, &segments, at).await;
    let tidied = tidy(&archive, SYSTEM, Duration::ZERO, Moment::from_millis(u64::MAX)).await.unwrap();
    println!("pieces tidied                         {:>8}", tidied.removed);
    fetched(&archive, &folder, (from, to)).await;
    std::fs::remove_dir_all(folder).unwrap();
}

fn options(every: Duration) -> WalOptions {
    WalOptions { piece_every: every, oldest: Some(Lsn::new(SEGMENT)), ..WalOptions::default() }
}

async fn writer(archive: &Archive, every: Duration) -> WalWriter {
    WalWriter::open(archive, SYSTEM, TIMELINE, SegmentSize::DEFAULT, options(every)).await.unwrap()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn raw(folder: &Path, bytes: &[u8]) -> f64 {
    use std::io::Write as _;
    median(
        (0..ROUNDS * 5)
            .map(|round| {
                let begun = Instant::now();
                let mut file =
                    std::fs::File::create_new(folder.join(format!("raw-{}-{round}", bytes.len()))).unwrap();
                file.write_all(bytes).unwrap();
                file.sync_data().unwrap();
                millis(begun)
            })
            .collect(),
    )
}

/// One segment from the first byte given to all durable.
async fn single(archive: &Archive, segments: &[Bytes], mut at: u64) -> u64 {
    let mut writer = writer(archive, Duration::from_secs(1)).await;
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let bytes = segments[round % segments.len()].clone();
        let begun = Instant::now();
        writer.append(Lsn::new(at), bytes).await.unwrap();
        at += SEGMENT;
        while writer.watch().wait_for(|held| held.lsn.get() >= at).await.is_err() {}
        took.push(millis(begun));
    }
    println!("one segment of 16 MiB durable         {:>8.1} ms, median of {ROUNDS}", median(took));
    at
}

async fn pushed(archive: &Archive, segments: &[Bytes], mut at: u64) -> u64 {
    // The same with a writer that is opened for each, as a command of its own does.
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let bytes = segments[round % segments.len()].clone();
        let begun = Instant::now();
        let mut writer = writer(archive, Duration::from_secs(1)).await;
        writer.append(Lsn::new(at), bytes).await.unwrap();
        at += SEGMENT;
        writer.flush().await.unwrap();
        took.push(millis(begun));
    }
    println!("the same, with a new writer each      {:>8.1} ms, median of {ROUNDS}", median(took));
    at
}

/// Small commits, one after the other, each waited for.
async fn pieces(archive: &Archive, segments: &[Bytes], mut at: u64) -> u64 {
    let mut writer = writer(archive, Duration::ZERO).await;
    let mut took = Vec::new();
    let cpu = cpu();
    let segment = &segments[0];
    for round in 0..500 {
        let bytes = segment.slice(round * 200..(round + 1) * 200);
        let begun = Instant::now();
        writer.append(Lsn::new(at), bytes).await.unwrap();
        at += 200;
        let mut watch = writer.watch();
        watch.wait_for(|held| held.lsn.get() >= at).await.unwrap();
        took.push(millis(begun));
    }
    let each = (cpu_since(cpu)) / 500.0 * 1e6;
    println!(
        "200 bytes durable                     {:>8.2} ms, median of 500; {each:.0} µs of CPU",
        median(took)
    );
    let rest = segment.slice(500 * 200..);
    writer.append(Lsn::new(at), rest).await.unwrap();
    writer.flush().await.unwrap().get()
}

/// As fast as it goes, in the parts that a server sends.
async fn streamed(archive: &Archive, segments: &[Bytes], from: u64) -> (u64, u64) {
    let mut rates = Vec::new();
    let mut at = from;
    let mut cpus = Vec::new();
    for every in [Duration::from_secs(1), Duration::ZERO].repeat(3) {
        let (begun, cpu, first) = (Instant::now(), cpu(), at);
        let mut writer = writer(archive, every).await;
        for round in 0..32 {
            let mut segment = segments[round % segments.len()].clone();
            while !segment.is_empty() {
                let part = segment.split_to(segment.len().min(128 * 1024));
                let next = at + part.len() as u64;
                writer.append(Lsn::new(at), part).await.unwrap();
                at = next;
            }
        }
        writer.flush().await.unwrap();
        let megabytes = (at - first) as f64 / 1e6;
        rates.push(megabytes / begun.elapsed().as_secs_f64());
        cpus.push(cpu_since(cpu) / megabytes * 1e3);
        println!("stream, piece_every {every:>5?}             {:>8.0} MB/s", rates[rates.len() - 1]);
    }
    println!(
        "stream and backlog                    {:>8.0} MB/s, {:.2} s of CPU per GB",
        median(rates),
        median(cpus)
    );
    (from, at)
}

/// Segment by segment, as `restore_command`; beside it a plain copy.
async fn fetched(archive: &Archive, folder: &Path, (from, to): (u64, u64)) {
    let target = folder.join("RECOVERYXLOG");
    let spool = Spool::open(folder, "here", SYSTEM, 8).unwrap();
    let (mut took, mut spooled, mut copied) = (Vec::new(), Vec::new(), Vec::new());
    for at in (from..to).step_by(usize::try_from(SEGMENT).unwrap()).take(32) {
        let name = SegmentName::of(TIMELINE, Lsn::new(at), SegmentSize::DEFAULT).to_string();
        took.push(
            timed(&target, async || {
                get(archive, SYSTEM, &name, &target, None, Duration::ZERO).await.unwrap();
            })
            .await,
        );
        std::fs::rename(&target, folder.join("source")).unwrap();
        copied.push(
            timed(&target, async || {
                std::fs::copy(folder.join("source"), &target).unwrap();
                std::fs::File::open(&target).unwrap().sync_data().unwrap();
            })
            .await,
        );
        std::fs::remove_file(&target).unwrap();
        if spool.hungry() {
            get_ahead(archive, SYSTEM, &name, &spool).await.unwrap();
            continue;
        }
        spooled.push(
            timed(&target, async || {
                get(archive, SYSTEM, &name, &target, Some(&spool), Duration::ZERO).await.unwrap();
            })
            .await,
        );
        std::fs::remove_file(&target).unwrap();
    }
    println!(
        "a segment given back                  {:>8.1} ms; from the spool {:.2} ms; a copy, on the disk {:.1} ms",
        median(took),
        median(spooled),
        median(copied)
    );
}

async fn timed(target: &Path, act: impl AsyncFnOnce()) -> f64 {
    assert!(!target.exists());
    let begun = Instant::now();
    act().await;
    millis(begun)
}

/// Seconds of processor time of this process, in user and system mode.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<f64> =
        after.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse().unwrap()).collect();
    (fields[0] + fields[1]) / 100.0
}

fn cpu_since(before: f64) -> f64 {
    cpu() - before
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// Half of it compresses.
fn made_up() -> Vec<Bytes> {
    let mut state = 1_u64;
    (0..4)
        .map(|_| {
            let mut bytes = vec![0; usize::try_from(SEGMENT).unwrap()];
            for part in bytes.chunks_mut(128) {
                for eight in part[..64].chunks_mut(8) {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    eight.copy_from_slice(&(state ^ (state >> 29)).to_le_bytes());
                }
            }
            bytes.into()
        })
        .collect()
}
