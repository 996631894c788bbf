//! `lifeboat run`

use std::io::IsTerminal;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::agent;
use crate::cli::Place;
use crate::commands::{load, report};
use crate::failure::{Exit, Failure};

/// Start the agent: watch, decide, act.
///
/// It runs until it is told to stop (SIGTERM, Ctrl-C). What was under way then, or when it was killed, goes on from
/// the record at the next start; every effect looks first whether it is already there.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// How the log is written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "LIFEBOAT_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, or a filter such as "info,lifeboat_dns=debug".
    #[arg(long, default_value = "info", env = "LIFEBOAT_LOG", value_name = "FILTER")]
    log: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl Run {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let loaded = load(&place.config)?;
        report(&loaded.warnings);
        let mut config = loaded.config;
        if let Some(socket) = &place.socket {
            config.wiring.agent.socket.clone_from(socket);
        }
        self.log()?;
        // One thread decides, a second keeps file and name look-ups from delaying it.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::because(Exit::Failed, "cannot start", &error))?;
        let lived = runtime.block_on(agent::live(config, &place.config));
        // A disk that hangs must not keep the process: what it was to write counts as not written.
        runtime.shutdown_timeout(Duration::from_secs(1));
        lived.map(|()| Exit::Done)
    }

    fn log(&self) -> Result<(), Failure> {
        // What a failed request means is logged once, by who handles it; naming it in --log brings it back.
        let quiet = if self.log.contains("kube_client") { "" } else { ",kube_client=off" };
        let filter = EnvFilter::try_new(format!("{}{quiet}", self.log)).map_err(|error| {
            Failure::because(Exit::Usage, format!("--log {:?} is no filter", self.log), &error)
        })?;
        let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        // A log that nobody reads, or that is full, must not end the agent on the day it matters.
        let logger = logger.log_internal_errors(false);
        match self.log_format {
            LogFormat::Text => logger.with_ansi(std::io::stderr().is_terminal()).init(),
            LogFormat::Json => logger.json().flatten_event(true).init(),
        }
        Ok(())
    }
}
