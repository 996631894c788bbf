//! The load through this crate's probes, as the engine drives them: a task for each, which sleeps and looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lifeboat_core::sighting::FailureKind;
use lifeboat_core::{AgentName, Epoch};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::{Ask, Probe, Role};
use lifeboat_probe::{HttpOptions, HttpProbe, Kit};
use tokio::runtime::Builder;
use tokio::time::{Instant, interval_at, sleep};

use crate::process;
use crate::{BODY, Cost, MEASURED, PERIOD, TARGETS, WARM_UP};

/// The longest that a look of this period may take without missing the next turn.
const LIMIT: Duration = PERIOD;

/// Runs the load on a runtime of this kind; a server that does not answer is the only failure that may be.
pub(crate) fn measure(mut runtime: Builder, server: &str) -> Cost {
    let runtime = runtime.enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let looked = Arc::new(AtomicU64::new(0));
        let kit = Kit::new();
        let clock = Clock::start();
        for number in 0..TARGETS {
            let mut options = HttpOptions::new(format!("{server}/{number}"));
            options.body = Some(BODY.to_owned());
            let probe: Box<dyn Probe> = Box::new(HttpProbe::new(&options, &kit).expect("a probe"));
            tokio::spawn(look_for_ever(probe, clock, number, Arc::clone(&looked)));
        }
        sleep(PERIOD * WARM_UP).await;
        let me = std::process::id();
        let (cpu, probes) = (process::cpu(me), looked.load(Ordering::Relaxed));
        sleep(PERIOD * MEASURED).await;
        let (cpu, probes) = (process::cpu(me) - cpu, looked.load(Ordering::Relaxed) - probes);
        let (resident, peak) = process::memory(me);
        Cost { probes, cpu, resident, peak }
    })
}

async fn look_for_ever(probe: Box<dyn Probe>, clock: Clock, number: usize, looked: Arc<AtomicU64>) {
    // Spread over the period, as the engine's jitter does.
    let share = PERIOD.mul_f64(number as f64 / TARGETS as f64);
    let mut turns = interval_at(Instant::now() + share, PERIOD);
    loop {
        turns.tick().await;
        let ask = Ask {
            agent: AgentName::new("bench"),
            at: clock.now(),
            epoch: Epoch::new(1),
            expect: Role::Primary,
            limit: LIMIT,
        };
        match probe.look(&ask).await {
            Ok(_) => {}
            Err(failure) => assert_eq!(failure.kind, FailureKind::Silent, "{failure}"),
        }
        looked.fetch_add(1, Ordering::Relaxed);
    }
}
