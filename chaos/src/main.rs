//! `chaos`: starts two regions on loopback and loses one on purpose.

mod commands;
mod ui;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::main()
}
