//! A server that is none: what it sends is refused, in time, and without a panic.

use std::time::Duration;

use futures::FutureExt;
use lifeboat_core::{Lsn, Timeline};
use lifeboat_engine::clock::Clock;
use lifeboat_postgres::Tls;
use lifeboat_postgres::replication::{BaseBackupOptions, Endpoint, Error, Item, Remedy, Replication, Wal};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::cluster::PATIENCE;

/// A message as servers frame it.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn row(cells: &[Option<&str>]) -> Vec<u8> {
    let mut body = u16::try_from(cells.len()).unwrap().to_be_bytes().to_vec();
    for cell in cells {
        match cell {
            Some(text) => {
                body.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                body.extend(text.as_bytes());
            }
            None => body.extend((-1_i32).to_be_bytes()),
        }
    }
    message(b'D', &body)
}

/// An answer of one row.
fn answer(cells: &[Option<&str>]) -> Vec<u8> {
    [message(b'T', &[0, 0]), row(cells), message(b'C', b"SELECT\0"), message(b'Z', b"I")].concat()
}

fn error(sqlstate: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{sqlstate}\0Mno\0\0").as_bytes())
}

fn login() -> Vec<u8> {
    [
        message(b'R', &[0; 4]),
        message(b'S', b"server_version\x0015.14\0"),
        message(b'K', &[1; 8]),
        message(b'Z', b"I"),
    ]
    .concat()
}

fn identity(version: &str) -> Vec<Vec<u8>> {
    let identity = [Some("7000000000000000001"), Some("1"), Some("0/5000000"), None];
    vec![login(), answer(&[Some(version)]), answer(&identity)]
}

fn tar_header(name: &str, size: usize) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(100, "0100600 ");
    put(108, "0000000 ");
    put(116, "0000000 ");
    put(124, &format!("{size:011o} "));
    put(136, "14757321007 ");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    header
}

/// A backup of one tablespace, as 15 and newer send it, or as 13 and 14 do.
fn backup(newer: bool) -> Vec<u8> {
    let letter = |letter: &str, rest: &[u8]| piece(letter.as_bytes(), rest);
    let result =
        |rows: &[Vec<u8>]| [message(b'T', &[0, 0]), rows.concat(), message(b'C', b"SELECT\0")].concat();
    let spaces = [row(&[Some("16385"), Some("/srv/fast"), Some("7")]), row(&[None, None, Some("99")])];
    let mut all = [result(&[row(&[Some("0/2000028"), Some("1")])]), result(&spaces)].concat();
    let contents: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let archive = [tar_header("PG_15/5/16390", 100_000), contents, vec![0; 352]].concat();
    for name in ["16385.tar\0/srv/fast\0", "base.tar\0\0"] {
        all.extend(if newer && name.starts_with('b') { vec![] } else { message(b'H', &[0, 0, 0]) });
        all.extend(if newer { letter("n", name.as_bytes()) } else { vec![] });
        for piece in archive.chunks(32_768) {
            all.extend(if newer { letter("d", piece) } else { message(b'd', piece) });
        }
        all.extend(if newer { letter("p", &100_000_u64.to_be_bytes()) } else { message(b'c', b"") });
    }
    all.extend(if newer { letter("m", b"") } else { message(b'H', &[0, 0, 0]) });
    all.extend(if newer { letter("d", b"{}") } else { message(b'd', b"{}") });
    all.extend(message(b'c', b""));
    all.extend(message(b'N', b"SWARNING\0C01000\0Mthe sky is blue\0\0"));
    all.extend(result(&[row(&[Some("0/2000100"), Some("1")])]));
    all.extend(message(b'Z', b"I"));
    all
}

fn piece(letter: &[u8], rest: &[u8]) -> Vec<u8> {
    message(b'd', &[letter, rest].concat())
}

/// The same without the one place where `part` is.
fn without(bytes: &[u8], part: &[u8]) -> Vec<u8> {
    replaced(bytes, part, b"")
}

fn replaced(bytes: &[u8], part: &[u8], other: &[u8]) -> Vec<u8> {
    let at = bytes.windows(part.len()).position(|window| window == part).unwrap();
    [&bytes[..at], other, &bytes[at + part.len()..]].concat()
}

fn wal(start: u64, length: usize) -> Vec<u8> {
    let mut body = vec![b'w'];
    for number in [start, start + length as u64, 800_000_000_000_000] {
        body.extend(number.to_be_bytes());
    }
    body.extend(vec![9; length]);
    message(b'd', &body)
}

fn keepalive(end: u64) -> Vec<u8> {
    message(b'd', &[&b"k"[..], &end.to_be_bytes(), &800_000_000_000_000_u64.to_be_bytes(), &[1]].concat())
}

/// A stream from 0/3000000 to where the second timeline begins.
fn stream() -> Vec<u8> {
    let mut all = vec![message(b'W', &[0, 0, 0])];
    all.extend([wal(0x300_0000, 131_072), keepalive(0x302_0000), wal(0x302_0000, 1)]);
    all.extend([message(b'c', b""), message(b'T', &[0, 0]), row(&[Some("2"), Some("0/3020001")])]);
    all.extend([message(b'C', b"START_STREAMING\0"), message(b'Z', b"I")]);
    all.concat()
}

/// Serves one connection: after each thing that comes, the next of these; then it hangs up. It hangs up as well when
/// nothing comes for `patience`, as when it was not understood.
async fn serve(answers: Vec<Vec<u8>>, patience: Duration) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let Ok((mut socket, _)) = listener.accept().await else { return };
        let mut heard = vec![0; 65_536];
        for answer in answers {
            let came = tokio::time::timeout(patience, socket.read(&mut heard)).await;
            if !matches!(came, Ok(Ok(1..))) || socket.write_all(&answer).await.is_err() {
                return;
            }
        }
        // What is still said is heard, so that what was sent is not thrown away with the connection.
        let _ = socket.shutdown().await;
        while let Ok(1..) = socket.read(&mut heard).await {}
    });
    Endpoint {
        host: "127.0.0.1".to_owned(),
        port,
        user: "x".to_owned(),
        dbname: "x".to_owned(),
        password_file: None,
        tls: Tls::Off,
        application_name: "x".to_owned(),
        system: None,
        limit: PATIENCE * 2,
        silence: PATIENCE * 4,
        clock: Clock::start(),
    }
}

/// Everything that a backup from such a server gives.
async fn take_backup(answers: Vec<Vec<u8>>) -> Result<Vec<Item>, Error> {
    take_backup_of(serve(answers, PATIENCE).await).await
}

async fn take_backup_of(endpoint: Endpoint) -> Result<Vec<Item>, Error> {
    let replication = Replication::connect(endpoint).await?;
    let mut backup = replication.base_backup(&BaseBackupOptions::default()).await?;
    let mut items = Vec::new();
    while let Some(item) = backup.next().await? {
        items.push(item);
    }
    Ok(items)
}

/// The log that such a server sends until its timeline ends.
async fn take_log(answers: Vec<Vec<u8>>) -> Result<usize, Error> {
    take_log_of(serve(answers, PATIENCE).await).await
}

async fn take_log_of(endpoint: Endpoint) -> Result<usize, Error> {
    let replication = Replication::connect(endpoint).await?;
    let mut stream = replication.wal(None, Timeline::new(1), Lsn::new(0x300_0000)).await?;
    let mut length = 0;
    loop {
        match stream.next().await? {
            Wal::Bytes { start, bytes, .. } => {
                assert_eq!(start.get(), 0x300_0000 + length as u64);
                length += bytes.len();
            }
            Wal::Keepalive { reply_wanted, .. } => assert!(reply_wanted),
            Wal::TimelineEnd { next_timeline, .. } => {
                assert_eq!(next_timeline, Timeline::new(2));
                return Ok(length);
            }
        }
    }
}

fn with(version: &str, more: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    identity(version).into_iter().chain(more).collect()
}

fn for_log(stream: Vec<u8>) -> Vec<Vec<u8>> {
    let again = identity("150014").pop().unwrap();
    with("150014", vec![again, stream])
}

#[tokio::test]
async fn the_server_that_is_none_is_understood_while_it_makes_sense() {
    for (version, newer) in [("150014", true), ("140020", false)] {
        let items = take_backup(with(version, vec![backup(newer)])).await.unwrap();
        let sizes = |tablespace: Option<u32>| {
            items
                .iter()
                .filter(move |item| matches!(item, Item::File(entry) if entry.tablespace == tablespace))
                .count()
        };
        assert_eq!((sizes(Some(16_385)), sizes(None)), (1, 1));
        let bytes: usize =
            items.iter().map(|item| if let Item::Data(data) = item { data.len() } else { 0 }).sum();
        assert_eq!(bytes, 200_000);
        assert!(items.iter().any(|item| matches!(item, Item::Warning(text) if text.contains("sky"))));
        assert!(items.iter().any(|item| matches!(item, Item::Manifest(text) if text == "{}")));
        assert!(matches!(items.last(), Some(Item::End(end)) if end.lsn.get() == 0x200_0100));
    }
    assert_eq!(take_log(for_log(stream())).await.unwrap(), 131_073);
}

#[tokio::test]
async fn a_sign_of_life_is_given_when_it_is_asked_for() {
    // The rest is sent only when something was said in return.
    let first = [message(b'W', &[0, 0, 0]), keepalive(0x302_0000)].concat();
    let rest = stream().split_off(message(b'W', &[0, 0, 0]).len());
    let answers = for_log(first).into_iter().chain([rest]).collect();
    assert_eq!(take_log(answers).await.unwrap(), 131_073);
}

#[tokio::test]
async fn what_the_protocol_does_not_allow_is_refused_by_name() {
    let huge = |tag: u8| [&[tag][..], &0x7fff_ffff_u32.to_be_bytes()].concat();
    let negative = |tag: u8| [&[tag][..], &0xffff_ffff_u32.to_be_bytes()].concat();
    let cases = [
        vec![huge(b'R')],
        vec![negative(b'R')],
        vec![message(b'R', &[0, 0, 0, 99])],
        vec![message(b'R', &[0, 0, 0, 12])],
        vec![message(b'd', b"x")],
        vec![message(b'W', b"")],
        vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()],
        vec![login(), answer(&[Some("fifteen")])],
        vec![login(), answer(&[None])],
        vec![login(), message(b'D', &[0, 9, 0, 0])],
        vec![login(), answer(&[Some("150014")]), answer(&[Some("7"), Some("1"), Some("here")])],
        with("150014", vec![huge(b'T')]),
        with("150014", vec![message(b'H', b"\0\0\0")]),
        with("150014", vec![row(&[Some("7"), Some(&"x".repeat(2_000))]).repeat(3_000)]),
        with("150014", vec![without(&backup(true), &piece(b"n", b"base.tar\0\0"))]),
        with("150014", vec![without(&backup(true), &piece(b"n", b"16385.tar\0/srv/fast\0"))]),
        with("150014", vec![replaced(&backup(true), b"16385.tar", b"16386.tar")]),
    ];
    for (at, answers) in cases.into_iter().enumerate() {
        let found = take_backup(answers).await.unwrap_err();
        assert!(matches!(found, Error::Protocol(_) | Error::Local(_)), "{at}: {found:?}");
    }
    let old = take_backup(vec![login(), answer(&[Some("120022")]), vec![]]).await.unwrap_err();
    assert!(matches!(old, Error::TooOld { version: 120_022, .. }), "{old:?}");
    let full = take_backup(vec![error("53300")]).await.unwrap_err();
    assert!(matches!(full, Error::NotReady { .. }) && full.remedy() == Remedy::Again, "{full:?}");
}

#[tokio::test]
async fn log_that_is_left_out_or_comes_twice_is_refused_by_position() {
    let started = message(b'W', &[0, 0, 0]);
    let gap = [started.clone(), wal(0x300_0000, 64), wal(0x300_0041, 64)].concat();
    let found = take_log(for_log(gap)).await.unwrap_err();
    assert!(
        matches!(found, Error::Gap { expected, found } if (expected.get(), found.get()) == (0x300_0040, 0x300_0041)),
        "{found:?}"
    );
    let twice = [started.clone(), wal(0x300_0000, 64), wal(0x300_0000, 64)].concat();
    let found = take_log(for_log(twice)).await.unwrap_err();
    assert!(matches!(found, Error::Overlap { expected, .. } if expected.get() == 0x300_0040), "{found:?}");
    for (next, at, what) in
        [("2", "0/3000041", "gap"), ("2", "0/300003F", "overlap"), ("1", "0/3000040", "older")]
    {
        let end = [message(b'c', b""), message(b'T', &[0, 0]), row(&[Some(next), Some(at)])].concat();
        let found =
            take_log(for_log([started.clone(), wal(0x300_0000, 64), end].concat())).await.unwrap_err();
        let named = matches!(
            (what, &found),
            ("gap", Error::Gap { .. }) | ("overlap", Error::Overlap { .. }) | ("older", Error::Protocol(_))
        );
        assert!(named, "{what}: {found:?}");
    }
}

/// What does not come at once is given up, and asked again.
async fn insisting<T>(mut ask: impl AsyncFnMut() -> T) -> (T, u32) {
    for given_up in 0.. {
        if let Some(came) = ask().now_or_never() {
            return (came, given_up);
        }
        tokio::task::yield_now().await;
    }
    unreachable!()
}

/// A relay to a server that passes on a few bytes at a time.
async fn dripping(endpoint: Endpoint) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut bytes = vec![0; 700];
        loop {
            let most = 1 + usize::try_from(random.next_u32()).unwrap() % bytes.len();
            let Ok(length @ 1..) = from_server.read(&mut bytes[..most]).await else { return };
            to_client.write_all(&bytes[..length]).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    Endpoint { port, host: "127.0.0.1".to_owned(), ..serve(vec![], PATIENCE).await }
}

#[tokio::test]
async fn what_is_given_up_and_asked_again_is_the_same() {
    for (version, newer) in [("150014", true), ("140020", false)] {
        let answers = with(version, vec![backup(newer)]);
        let expected = take_backup(answers.clone()).await.unwrap();
        let endpoint = dripping(serve(answers, PATIENCE).await).await;
        let replication = Replication::connect(endpoint).await.unwrap();
        let mut backup = replication.base_backup(&BaseBackupOptions::default()).await.unwrap();
        let (mut items, mut given_up) = (Vec::new(), 0);
        while let (Some(item), times) = insisting(async || backup.next().await.unwrap()).await {
            items.push(item);
            given_up += times;
        }
        // Contents may come in other pieces.
        assert_eq!(joined(&items), joined(&expected));
        assert!(given_up > 100, "{given_up}");
    }
    let endpoint = dripping(serve(for_log(stream()), PATIENCE).await).await;
    let replication = Replication::connect(endpoint).await.unwrap();
    let mut stream = replication.wal(None, Timeline::new(1), Lsn::new(0x300_0000)).await.unwrap();
    let (mut length, mut given_up) = (0, 0);
    loop {
        let (came, times) = insisting(async || stream.next().await.unwrap()).await;
        given_up += times;
        match came {
            Wal::Bytes { bytes, .. } => length += bytes.len(),
            Wal::Keepalive { .. } => {}
            Wal::TimelineEnd { .. } => break,
        }
    }
    assert_eq!(length, 131_073);
    assert!(given_up > 100, "{given_up}");
}

/// The items without their contents, and all contents.
fn joined(items: &[Item]) -> (Vec<&Item>, Vec<u8>) {
    let others = items.iter().filter(|item| !matches!(item, Item::Data(_))).collect();
    let data =
        items.iter().filter_map(|item| if let Item::Data(data) = item { Some(&data[..]) } else { None });
    (others, data.collect::<Vec<_>>().concat())
}

/// Flips, drops, repeats or makes up bytes here and there.
fn spoil(bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    let below = |random: &mut ChaCha8Rng, limit: usize| usize::try_from(random.next_u64()).unwrap() % limit;
    for _ in 0..=below(random, 3) {
        if bytes.is_empty() {
            return;
        }
        // Where the frames are, more often than not.
        let reach = if below(random, 2) == 0 { bytes.len() } else { bytes.len().min(900) };
        let at = below(random, reach);
        match below(random, 5) {
            0 => bytes[at] ^= 1 << below(random, 8),
            1 => bytes[at] = 0xff,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..bytes.len().min(at + 1 + below(random, 40)))),
            _ => {
                let piece = bytes[at..bytes.len().min(at + 1 + below(random, 600))].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

/// Whether the answers of this seed, spoiled, were taken as whole.
async fn take_spoiled(seed: u64) -> bool {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let log = seed.is_multiple_of(3);
    let mut answers = match (log, seed.is_multiple_of(2)) {
        (true, _) => for_log(stream()),
        (false, true) => with("150014", vec![backup(true)]),
        (false, false) => with("140020", vec![backup(false)]),
    };
    // The last answer mostly: it is what is longest.
    let number = usize::try_from(seed).unwrap();
    let which = if seed.is_multiple_of(5) { number % answers.len() } else { answers.len() - 1 };
    spoil(&mut answers[which], &mut random);
    let endpoint = serve(answers, Duration::from_millis(200)).await;
    let taken = async {
        if log { take_log_of(endpoint).await.is_ok() } else { take_backup_of(endpoint).await.is_ok() }
    };
    let taken = tokio::time::timeout(PATIENCE, taken).await;
    taken.unwrap_or_else(|_| panic!("seed {seed} is waited for without end"))
}

#[tokio::test]
async fn spoiled_answers_end_in_a_word_and_never_in_a_panic() {
    let (mut whole, mut refused) = (0, 0);
    for first in (0..600).step_by(20) {
        let some = (first..first + 20).map(|seed| tokio::spawn(take_spoiled(seed)));
        for taken in futures::future::join_all(some).await {
            if taken.unwrap() { whole += 1 } else { refused += 1 }
        }
    }
    // A flipped bit of contents is nothing that can be seen here; most else is.
    assert!(refused > 300 && whole > 10, "{refused} refused, {whole} taken as whole");
}
