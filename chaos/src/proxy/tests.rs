//! Each fault, seen from both ends of a real connection.

use super::*;

const ANY: &str = "127.0.0.1:0";
const SOON: Duration = Duration::from_millis(300);

/// A server that answers every byte with the same byte.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.into_split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

async fn proxied() -> Proxy {
    Proxy::start(ANY.parse().unwrap(), echo().await).await.unwrap()
}

async fn round_trip(stream: &mut TcpStream) -> io::Result<Duration> {
    let start = Instant::now();
    stream.write_all(b"x").await?;
    let mut answer = [0; 1];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"x");
    Ok(start.elapsed())
}

#[tokio::test]
async fn a_healthy_path_passes_bytes_and_the_end_of_the_stream() {
    let proxy = proxied().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut stream).await.unwrap();
    stream.write_all(&[7; 300_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, vec![7; 300_000]);
}

#[tokio::test]
async fn latency_delays_answers_of_open_connections_and_not_their_throughput() {
    let proxy = proxied().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut stream).await.unwrap();
    proxy.set(Fault::Latency(Duration::from_millis(80)));
    assert!(round_trip(&mut stream).await.unwrap() >= Duration::from_millis(80));
    // 20 requests on the way at once cost one delay, not twenty.
    let start = Instant::now();
    stream.write_all(&[1; 20]).await.unwrap();
    let mut answers = [0; 20];
    stream.read_exact(&mut answers).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(80) && start.elapsed() < Duration::from_millis(800));
    proxy.set(Fault::None);
    assert!(round_trip(&mut stream).await.unwrap() < Duration::from_millis(80));
}

#[tokio::test]
async fn a_blackhole_accepts_and_is_silent_and_what_it_held_arrives_when_it_heals() {
    let proxy = proxied().await;
    let mut open = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut open).await.unwrap();
    proxy.set(Fault::Blackhole);
    let mut fresh = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(tokio::time::timeout(SOON, round_trip(&mut open)).await.is_err());
    assert!(tokio::time::timeout(SOON, round_trip(&mut fresh)).await.is_err());
    proxy.set(Fault::None);
    let mut answer = [0; 1];
    open.read_exact(&mut answer).await.unwrap();
    fresh.read_exact(&mut answer).await.unwrap();
}

#[tokio::test]
async fn refusing_resets_open_connections_refuses_new_ones_and_heals() {
    let proxy = proxied().await;
    let mut open = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut open).await.unwrap();
    proxy.set(Fault::Refuse);
    let error = open.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let error = loop {
        match TcpStream::connect(proxy.address()).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    proxy.set(Fault::None);
    let mut healed = loop {
        match TcpStream::connect(proxy.address()).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    round_trip(&mut healed).await.unwrap();
}

#[tokio::test]
async fn dropping_accepts_and_resets() {
    let proxy = proxied().await;
    proxy.set(Fault::Drop);
    let mut fresh = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(round_trip(&mut fresh).await.is_err());
}

#[tokio::test]
async fn a_target_that_is_gone_is_a_reset_not_silence() {
    let gone = TcpListener::bind(ANY).await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(ANY.parse().unwrap(), gone).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(stream.read(&mut [0; 1]).await.is_err());
}

#[tokio::test]
async fn a_rule_for_one_direction_holds_what_goes_that_way_and_nothing_else() {
    // Answers nothing, and says something every few milliseconds.
    let listener = TcpListener::bind(ANY).await.unwrap();
    let target = listener.local_addr().unwrap();
    let (heard, mut hears) = mpsc::channel(64);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.into_split();
        tokio::spawn(async move {
            while let Ok(byte) = read.read_u8().await {
                heard.send(byte).await.unwrap();
            }
        });
        while write.write_u8(b'.').await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let proxy = Proxy::start(ANY.parse().unwrap(), target).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_u8(b'1').await.unwrap();
    assert_eq!(next(&mut hears).await, Some(b'1'));
    proxy.obey(Fault::Blackhole, Fault::None);
    stream.write_u8(b'2').await.unwrap();
    let mut some = [0; 64];
    stream.read_exact(&mut some).await.unwrap();
    assert!(hears.try_recv().is_err(), "what goes there is held, while answers come");
    let mut late = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(tokio::time::timeout(SOON, late.read_u8()).await.is_err(), "a new one cannot be made");
    proxy.obey(Fault::None, Fault::Blackhole);
    assert_eq!(next(&mut hears).await, Some(b'2'), "what was held arrives");
    stream.write_u8(b'3').await.unwrap();
    assert_eq!(next(&mut hears).await, Some(b'3'));
    let silent = async {
        // What was on the way before the rule comes first.
        loop {
            stream.read_u8().await.unwrap();
        }
    };
    assert!(tokio::time::timeout(SOON, silent).await.is_err());
    proxy.obey(Fault::Latency(SOON), Fault::None);
    let sent = Instant::now();
    stream.write_u8(b'4').await.unwrap();
    assert_eq!(next(&mut hears).await, Some(b'4'));
    assert!(sent.elapsed() >= SOON);
}

/// What was heard next; none when it takes too long.
async fn next(hears: &mut mpsc::Receiver<u8>) -> Option<u8> {
    tokio::time::timeout(Duration::from_secs(20), hears.recv()).await.ok()?
}
