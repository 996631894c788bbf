//! The command line: one file a verb, its doc comment is the help.
//!
//! **Invariant:** exit codes are those of lifeboat: 0 done, 1 tried and failed, 2 usage, 5 refused with nothing
//! touched, 7 the demo ran and missed an objective.

mod power;
mod shop;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::ui;

/// Starts two regions on loopback and loses one on purpose.
#[derive(Debug, Parser)]
#[command(name = "chaos", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(hide = true)]
    Shop(shop::Shop),
    Power(power::Power),
}

/// Runs the command that was asked for.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            ui::failed(&error.into());
            return ExitCode::from(1);
        }
    };
    let result = match arguments.verb {
        Verb::Shop(shop) => runtime.block_on(shop.run()),
        Verb::Power(power) => power.run(),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            ui::failed(&error);
            ExitCode::from(1)
        }
    }
}
