//! What the whole agent costs: idle with one workload, and with a thousand HTTP targets every 5 s.
//!
//! `cargo build --release --workspace --bins && cargo bench -p lifeboat-tests`. CPU (user and system) and resident
//! memory of the agent's process are read from `/proc`; the servers around it are not counted.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its numbers, and ends when it cannot"
)]

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use lifeboat_chaos::{AgentOptions, Lab, LabOptions, ProbePolicy};
use lifeboat_tests::binary;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const TARGETS: u32 = 1_000;
const MEASURED: Duration = Duration::from_secs(30);

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --all-targets` runs benchmarks too; this one has nothing to test.
        return println!("run it with: cargo bench -p lifeboat-tests");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        measure("idle, one workload", &AgentOptions { policy: ProbePolicy::Demo, ..slow_rto() }, "").await;
        measure("idle, one workload, default policy", &slow_rto(), "").await;
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let targets = targets(server.local_addr().unwrap().port());
        let serving = tokio::spawn(serve(server));
        measure("1,000 HTTP targets every 5 s", &slow_rto(), &targets).await;
        serving.abort();
    });
}

fn slow_rto() -> AgentOptions {
    AgentOptions { policy: ProbePolicy::Defaults, rto: "15m".to_owned(), ..AgentOptions::default() }
}

fn targets(port: u16) -> String {
    let mut text = String::new();
    for number in 0..TARGETS {
        let probe = "[[workload.probe]]\nname = \"target-";
        let rest = "\"\nregion = \"east\"\nkind = \"http\"\nbody = \"ok\"\n";
        writeln!(text, "{probe}{number}{rest}url = \"http://127.0.0.1:{port}/{number}\"").unwrap();
    }
    text
}

/// Answers every request on a connection of its own.
async fn serve(server: TcpListener) {
    loop {
        let Ok((mut stream, _)) = server.accept().await else { return };
        tokio::spawn(async move {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
                .await;
        });
    }
}

async fn measure(what: &str, agent: &AgentOptions, more: &str) {
    let options = LabOptions {
        lifeboat: binary("lifeboat").ok(),
        chaos: binary("chaos").ok(),
        ..LabOptions::default()
    };
    let lab = Lab::start(options).await.unwrap();
    lab.configure_agent(agent).unwrap();
    // Probes belong to the workload, which ends with its canary.
    let text = std::fs::read_to_string(lab.config()).unwrap();
    std::fs::write(lab.config(), text.replace("[[workload.dns]]", &format!("{more}\n[[workload.dns]]")))
        .unwrap();
    lab.start_agent().await.unwrap();
    let pid = agent_of(&lab.config());
    // Every probe has looked, caches and heap have their size.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let before = cpu(pid);
    tokio::time::sleep(MEASURED).await;
    let used = cpu(pid) - before;
    let share = used.as_secs_f64() / MEASURED.as_secs_f64() * 100.0;
    let (resident, peak) = (memory(pid, "VmRSS:"), memory(pid, "VmHWM:"));
    println!("{what:<36} {share:>6.2} % of a core  {resident:>5.1} MB resident  {peak:>5.1} MB at most");
    if !more.is_empty() {
        let looks = MEASURED.as_secs_f64() / 5.0 * f64::from(TARGETS);
        println!("{:<36} {:>7.4} ms CPU a probe", "", used.as_secs_f64() * 1_000.0 / looks);
    }
}

/// The process that runs with this configuration.
fn agent_of(config: &Path) -> u32 {
    let wanted = config.to_str().unwrap();
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let runs = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(wanted) && line.contains("\0run\0")
    };
    pids.filter(runs).max().unwrap()
}

/// CPU time of a process, user and system, at the kernel's 100 ticks a second (`proc(5)`, fields 14 and 15).
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// A line of `/proc/PID/status`, in megabytes.
fn memory(pid: u32, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    let kilobytes: f64 = found.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1_024.0 / 1e6
}
