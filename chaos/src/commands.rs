//! The command line: one file a verb, its doc comment is the help.
//!
//! **Invariant:** exit codes are those of lifeboat: 0 done, 1 tried and failed, 2 usage, 5 refused with nothing
//! touched, 7 the demo ran and missed an objective; 130 and 143 after Ctrl-C and SIGTERM.

mod demo;
mod fence;
mod host;
mod list;
mod power;
mod run;
mod shop;
mod simulate;
mod switchover;
mod undertaker;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::ui;

/// Starts two regions on loopback and loses one on purpose.
///
/// What lifeboat promises is shown here on real servers: a PostgreSQL pair, a shop in each region, fault proxies
/// between them, DNS, and a client that counts every write. Nothing leaves this machine, and nothing of it is left
/// when the command ends.
#[derive(Debug, Parser)]
#[command(name = "chaos", version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  chaos demo                  lose a region, watch it being survived; report in target/demo
  chaos demo --sync           the same with a synchronous standby: nothing acknowledged may be lost
  chaos demo --runs 5 --json  five times, the numbers alone
  chaos demo --freeze         the region hangs instead of dying
  chaos switchover --runs 5   planned moves alone, there and back, under a thousand writes a second
  chaos fence --runs 5        what an old primary does after a new one has taken over
  chaos run primary-lost      a scenario on real servers; without a name all of them
  chaos up                    a lab to play with, until Ctrl-C
  chaos simulate --seeds 1000 a thousand pretend worlds with everything broken, judged
  chaos list                  the scenarios; `chaos simulate NAME` runs one in the pretend world

Exit codes:
  0 done   1 tried and failed   2 usage   5 refused, nothing touched   7 an objective was missed";

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::Demo),
    Switchover(switchover::Switchover),
    Fence(fence::Fence),
    Run(run::Run),
    Up(up::Up),
    Simulate(simulate::Simulate),
    List(list::List),
    Power(power::Power),
    Host(host::Host),
    #[command(hide = true)]
    Shop(shop::Shop),
    #[command(hide = true)]
    Undertaker(undertaker::Undertaker),
}

/// Runs the command that was asked for.
pub(crate) fn main() -> ExitCode {
    let verb = match Arguments::parse().verb {
        Verb::Host(host) => match host.alone() {
            Ok(code) => return ExitCode::from(code),
            Err(host) => Verb::Host(host),
        },
        // Every core is busy until it ends; a signal ends the process, for there is nothing to take down.
        Verb::Simulate(simulate) => {
            return simulate.run().map_or_else(
                |error| {
                    ui::failed(&error);
                    ExitCode::from(1)
                },
                ExitCode::from,
            );
        }
        verb => verb,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            ui::failed(&error.into());
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(run(verb)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            ui::failed(&error);
            ExitCode::from(1)
        }
    }
}

/// The command, until it ends or is told to. A lab that is dropped takes everything of it down.
async fn run(verb: Verb) -> anyhow::Result<u8> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        biased;
        _ = interrupt.recv() => Ok(130),
        _ = terminate.recv() => Ok(143),
        result = perform(verb) => result,
    }
}

async fn perform(verb: Verb) -> anyhow::Result<u8> {
    match verb {
        Verb::Demo(demo) => Box::pin(demo.run()).await,
        Verb::Switchover(switchover) => Box::pin(switchover.run()).await,
        Verb::Fence(fence) => Box::pin(fence.run()).await,
        Verb::Run(run) => Box::pin(run.run()).await,
        Verb::Up(up) => Box::pin(up.run()).await,
        Verb::Simulate(simulate) => simulate.run(),
        Verb::List(list) => list.run(),
        Verb::Power(power) => power.run(),
        Verb::Host(host) => host.run().await,
        Verb::Undertaker(undertaker) => undertaker.run(),
        Verb::Shop(shop) => shop.run().await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_verb_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
