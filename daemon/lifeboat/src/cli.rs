//! The command line: its grammar and its help. One file a verb in `commands`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::failure::{Exit, Failure};

/// Disaster recovery and failover for a workload that lives in one region and must survive its loss.
///
/// lifeboat watches the primary region. When it is lost, lifeboat measures how much data would be lost, fences the
/// old primary, promotes the standby, switches DNS and proves that clients are served. Whatever it cannot prove, it
/// asks a person.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = EXITS)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    command: Command,
}

const EXITS: &str = "\
First steps:
  lifeboat check --config lifeboat.toml   what is wrong with the configuration, all at once
  lifeboat run --config lifeboat.toml     start the agent
  lifeboat status                         what the agent sees
  lifeboat plan failover WORKLOAD         what a failover would do; touches nothing
  lifeboat explain WORKLOAD --why-not     why it does not fail over by itself right now
  lifeboat archive init                   make the archive that backups go to
  lifeboat backup list                    what can be restored

Exit codes:
  0 done   1 tried and failed   2 usage   3 configuration   4 agent unreachable
  5 refused, nothing touched   6 stranded or waiting: a person is needed   70 a bug
  200 a server that recovers must stop here (lifeboat wal get)";

/// Where the agent is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LIFEBOAT_CONFIG",
        default_value = "/etc/lifeboat/lifeboat.toml"
    )]
    pub(crate) config: PathBuf,
    /// The agent's control socket [default: as the configuration says].
    #[arg(long, global = true, value_name = "PATH", env = "LIFEBOAT_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Format {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Who gives an order.
#[derive(Clone, Debug, Args)]
pub(crate) struct Person {
    /// Your name, for the record. The agent adds the user id that the socket shows.
    #[arg(long, value_name = "NAME", env = "LIFEBOAT_BY", default_value_t = commands::who())]
    pub(crate) by: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the agent: watch, decide, act.
    Run(commands::run::Run),
    /// Say what is wrong with the configuration, all at once.
    Check(commands::check::Check),
    /// Show the configuration with all defaults, or its JSON Schema.
    #[command(subcommand)]
    Config(commands::config::Config),
    /// Show what the agent sees.
    Status(commands::status::Status),
    /// Show what a procedure would do, and how long it would take. Touches nothing.
    #[command(subcommand)]
    Plan(commands::plan::Plan),
    /// Move a workload whose primary region is lost; or let a stranded move go on.
    Failover(commands::failover::Failover),
    /// Move a healthy workload to another region on purpose, losing nothing.
    Switchover(commands::moving::Switchover),
    /// Move a workload back to its home region, losing nothing.
    Failback(commands::moving::Failback),
    /// Make the databases of a region that returned standbys of the primary.
    Rejoin(commands::moving::Rejoin),
    /// Answer the question that a run has asked.
    Approve(commands::approve::Approve),
    /// Give up a run that waits for a person, or is stranded.
    Abandon(commands::approve::Abandon),
    /// Stop a run before its point of no return, and take back what it did.
    Cancel(commands::steering::Cancel),
    /// Let a stranded run go on without the step that failed.
    Skip(commands::steering::Skip),
    /// Take no automatic action for a while.
    Pause(commands::pause::Pause),
    /// Act automatically again.
    Resume(commands::pause::Resume),
    /// List the runs on record.
    History(commands::history::History),
    /// Say why: what a run did and decided, or what keeps a workload from failing over.
    Explain(commands::explain::Explain),
    /// List the procedures, show or check their pages, or write one down to be followed by hand.
    #[command(subcommand)]
    Runbook(commands::runbook::Runbook),
    #[command(subcommand)]
    Archive(commands::archive::Archive),
    #[command(subcommand)]
    Backup(commands::backup::Backup),
    #[command(subcommand)]
    Wal(commands::wal::Wal),
    Restore(Box<commands::restore::Restore>),
    Host(commands::host::Host),
    Key(commands::key::Key),
    Share(commands::share::Share),
    Sentry(commands::sentry::Sentry),
}

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<Exit, Failure> {
    let place = &cli.place;
    match cli.command {
        Command::Run(run) => run.run(place),
        Command::Check(check) => check.run(place),
        Command::Config(config) => config.run(place),
        Command::Status(status) => status.run(place),
        Command::Plan(plan) => plan.run(place),
        Command::Failover(failover) => failover.run(place),
        Command::Switchover(switchover) => switchover.run(place),
        Command::Failback(failback) => failback.run(place),
        Command::Rejoin(rejoin) => rejoin.run(place),
        Command::Cancel(cancel) => cancel.run(place),
        Command::Skip(skip) => skip.run(place),
        Command::Approve(approve) => approve.run(place),
        Command::Abandon(abandon) => abandon.run(place),
        Command::Pause(pause) => pause.run(place),
        Command::Resume(resume) => resume.run(place),
        Command::History(history) => history.run(place),
        Command::Explain(explain) => explain.run(place),
        Command::Runbook(runbook) => runbook.run(place),
        Command::Archive(archive) => archive.run(place),
        Command::Backup(backup) => backup.run(place),
        Command::Wal(wal) => wal.run(place),
        Command::Restore(restore) => restore.run(place),
        Command::Host(host) => host.run(place),
        Command::Key(key) => key.run(place),
        Command::Share(share) => share.run(place),
        Command::Sentry(sentry) => sentry.run(place),
    }
}
