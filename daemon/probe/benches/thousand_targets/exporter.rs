//! The same load through `prometheus-blackbox-exporter` (Debian's package), asked as Prometheus would ask it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, interval_at, sleep};

use crate::process::{self, Ended};
use crate::{BODY, Cost, MEASURED, PERIOD, TARGETS, WARM_UP};

/// Connections over which the exporter is asked; each asks for its share of the targets in turn.
const CONNECTIONS: usize = 8;

/// Starts the exporter, runs the load, and ends it.
pub(crate) fn measure(server: &str) -> io::Result<Cost> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("blackbox.yml");
    let module = format!(
        "{{prober: http, http: {{preferred_ip_protocol: ip4, fail_if_body_not_matches_regexp: [{BODY}]}}}}"
    );
    std::fs::write(&config, format!("modules: {{page: {module}}}\n"))?;
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let process = Command::new("prometheus-blackbox-exporter")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--web.listen-address={address}"))
        .stderr(Stdio::null())
        .spawn()?;
    let process = Ended(process);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(load(process.0.id(), address, server))
}

async fn load(pid: u32, exporter: SocketAddr, server: &str) -> io::Result<Cost> {
    let answered = Arc::new(AtomicU64::new(0));
    for number in 0..CONNECTIONS {
        let asking = connect(exporter).await?;
        tokio::spawn(ask_for_ever(asking, number, server.to_owned(), Arc::clone(&answered)));
    }
    sleep(PERIOD * WARM_UP).await;
    let (cpu, probes) = (process::cpu(pid), answered.load(Ordering::Relaxed));
    sleep(PERIOD * MEASURED).await;
    let (cpu, probes) = (process::cpu(pid) - cpu, answered.load(Ordering::Relaxed) - probes);
    let (resident, peak) = process::memory(pid);
    Ok(Cost { probes, cpu, resident, peak })
}

/// A kept connection to the exporter, which may need a moment to start.
async fn connect(exporter: SocketAddr) -> io::Result<SendRequest<Empty<Bytes>>> {
    let mut tries = 0;
    let stream = loop {
        match TcpStream::connect(exporter).await {
            Ok(stream) => break stream,
            Err(error) if tries == 100 => return Err(error),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
        tries += 1;
    };
    let (asking, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(asking)
}

async fn ask_for_ever(
    mut asking: SendRequest<Empty<Bytes>>,
    first: usize,
    server: String,
    answered: Arc<AtomicU64>,
) {
    let spread = PERIOD.mul_f64(first as f64 / TARGETS as f64);
    let each = PERIOD.mul_f64(CONNECTIONS as f64 / TARGETS as f64);
    let mut turns = interval_at(Instant::now() + spread, each);
    for number in (first..TARGETS).step_by(CONNECTIONS).cycle() {
        turns.tick().await;
        let request = Request::get(format!("/probe?module=page&target={server}/{number}"))
            .header("Host", "exporter")
            .body(Empty::new())
            .expect("a request");
        asking.ready().await.expect("the exporter keeps the connection");
        let answer = asking.send_request(request).await.expect("the exporter answers");
        let text = answer.into_body().collect().await.expect("a whole answer").to_bytes();
        let good = text.windows(16).any(|part| part == b"\nprobe_success 1");
        assert!(good, "{}", String::from_utf8_lossy(&text));
        answered.fetch_add(1, Ordering::Relaxed);
    }
}
