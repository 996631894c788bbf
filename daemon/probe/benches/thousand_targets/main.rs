//! What a thousand HTTP targets every 5 s cost: these probes, and the same targets probed by
//! `prometheus-blackbox-exporter`, in the same run on the same machine.
//!
//! `cargo bench -p lifeboat-probe` takes about 2 min. The server is this program again, in a process of its
//! own. CPU (user and system) and resident memory are read from `/proc`; what the other processes use is not
//! counted. The exporter is asked over eight kept connections, which is the cheapest for it.

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

mod exporter;
mod probes;
mod process;
mod server;

use std::time::Duration;

/// The load of the promise.
const TARGETS: usize = 1_000;
/// How often each target is probed.
const PERIOD: Duration = Duration::from_secs(5);
/// Periods that are not measured, in which caches fill and the heap grows to its size.
const WARM_UP: u32 = 1;
/// Periods that are measured.
const MEASURED: u32 = 4;
/// The text each answer must contain.
const BODY: &str = "ok";

/// What one way of probing took.
#[derive(Clone, Copy)]
struct Cost {
    /// Probes in the measured periods.
    probes: u64,
    /// CPU time of the probing process in them, user and system.
    cpu: Duration,
    /// Resident memory at the end, in bytes.
    resident: u64,
    /// Its highest mark, in bytes.
    peak: u64,
}

impl Cost {
    fn millis_per_probe(&self) -> f64 {
        self.cpu.as_secs_f64() * 1_000.0 / self.probes as f64
    }

    fn print(&self, who: &str) {
        println!(
            "{who:<34} {:>6} probes  {:>7.4} ms CPU a probe  {:>5.1} MB resident  {:>5.1} MB at most",
            self.probes,
            self.millis_per_probe(),
            self.resident as f64 / 1e6,
            self.peak as f64 / 1e6,
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "--serve") {
        return server::serve();
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        // `cargo test --all-targets` runs benchmarks too; this one has nothing to test.
        return println!("run it with: cargo bench -p lifeboat-probe");
    }
    let server = server::Server::start();
    println!("{TARGETS} HTTP targets every {} s, measured over {} s", PERIOD.as_secs(), MEASURED * 5);
    let one = probes::measure(tokio::runtime::Builder::new_current_thread(), &server.url());
    one.print("lifeboat, one thread");
    let two = probes::measure(tokio::runtime::Builder::new_multi_thread(), &server.url());
    two.print("lifeboat, a thread per core");
    // The worst case for memory: every look is in flight all the time.
    let silent = probes::measure(tokio::runtime::Builder::new_current_thread(), &server.silent_url());
    silent.print("lifeboat, no target answers");
    match exporter::measure(&server.url()) {
        Ok(theirs) => {
            theirs.print("prometheus-blackbox-exporter");
            let (one, two) = (one.millis_per_probe(), two.millis_per_probe());
            let theirs = theirs.millis_per_probe();
            println!("ratio: {:.1} times less CPU on one thread, {:.1} on all", theirs / one, theirs / two);
        }
        Err(error) => println!("prometheus-blackbox-exporter was not measured: {error}"),
    }
}
