//! The lifeboat binary: who is plugged into whom, and how it is said.
//!
//! **Invariant:** nothing is decided here, and the process exits here only.

mod agent;
mod api;
mod archives;
mod cli;
mod client;
mod commands;
mod failure;
mod keeping;
mod notices;
mod pages;
mod plug;
mod sharing;
mod summary;
mod ui;
mod vault;
mod view;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Before anything else: with no provider installed, the first TLS connection would panic.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are answers (0), anything else is a usage error (2).
        Err(error) => {
            let _ = error.print();
            return match (error.use_stderr(), recovers()) {
                (false, _) => ExitCode::SUCCESS,
                (true, false) => failure::Exit::Usage.code(),
                (true, true) => failure::Exit::EndsRecovery.code(),
            };
        }
    };
    match cli::run(cli) {
        Ok(exit) => exit.code(),
        Err(failure) => {
            ui::failure(&failure);
            failure.exit.code()
        }
    }
}

/// Whether a server that recovers has called this, which takes a usage error for the end of its log.
fn recovers() -> bool {
    let words: Vec<_> = std::env::args_os().collect();
    words.windows(2).any(|pair| pair[0] == "wal" && pair[1] == "get")
}
