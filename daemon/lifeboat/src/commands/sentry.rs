//! `lifeboat sentry`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use lifeboat_lease::etcd::{EtcdLeases, EtcdOptions, EtcdTls, EtcdUser};
use lifeboat_lease::seal::{KeyPair, SealError, Seals, public_key};
use lifeboat_sentry::{Settings, Trouble, keeper, switch};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::Place;
use crate::commands::talk;
use crate::failure::{Exit, Failure};
use crate::ui;

/// Where its configuration is when none is named: not the agent's.
const AGENTS: &str = "/etc/lifeboat/lifeboat.toml";
const OWN: &str = "/etc/lifeboat/sentry.toml";

/// One member of etcd is waited for this part of a lease: all three fit into the time that a renewal has.
const DEADLINE_PART: u32 = 12;

/// Beside a database: hold its write lease, and stop the database before a lease that cannot be renewed is over.
///
/// Run it on the database's host, as PostgreSQL's own user, under a supervisor that leaves the switch alone when it restarts the
/// keeper (systemd: KillMode=process). It never touches a standby, and never starts a database. What it stands on is in
/// status.json in its state folder. The configuration is /etc/lifeboat/sentry.toml unless --config names another.
#[derive(Debug, Args)]
pub(crate) struct Sentry {
    /// Print the public key of this sentry, for [workload.sentry.REGION] in every agent's configuration; makes the key when
    /// it is missing.
    #[arg(long, conflicts_with = "switch")]
    key: bool,
    /// Be the switch; the keeper starts it.
    #[arg(long, hide = true)]
    switch: bool,
}

/// `[lease]` of sentry.toml, as in the agents' configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lease {
    kind: Kind,
    cluster: String,
    endpoints: Vec<String>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Etcd,
}

impl Sentry {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let path = if place.config == Path::new(AGENTS) { Path::new(OWN) } else { place.config.as_path() };
        let settings = Settings::load(path).map_err(|trouble| failure(&trouble))?;
        if self.key {
            let key = public_key(&settings.key_file).map_err(|error| unusable(&settings, &error))?;
            ui::answer(&key);
            return Ok(Exit::Done);
        }
        if self.switch {
            switch::run(&settings).map_err(|trouble| failure(&trouble))?;
            return Ok(Exit::Done);
        }
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .log_internal_errors(false)
            .init();
        let lease = lease(&settings, path)?;
        let seal = seals(&settings)?;
        let program = std::env::current_exe()
            .map_err(|error| Failure::because(Exit::Failed, "the switch cannot be found", &error))?;
        let path = std::path::absolute(path)
            .map_err(|error| Failure::because(Exit::Config, format!("{}", path.display()), &error))?;
        let sentry = lifeboat_sentry::Sentry {
            leases: Arc::new(EtcdLeases::new(lease)),
            seal: Arc::new(seal),
            switch: vec![program.into(), "sentry".into(), "--switch".into(), "--config".into(), path.into()],
            settings,
        };
        talk(async {
            let stop = CancellationToken::new();
            let failed = |error| Failure::because(Exit::Failed, "signals cannot be listened to", &error);
            let mut ends = signal(SignalKind::terminate()).map_err(failed)?;
            let mut interrupts = signal(SignalKind::interrupt()).map_err(failed)?;
            let told = stop.clone();
            tokio::spawn(async move {
                tokio::select! { biased; _ = ends.recv() => {} _ = interrupts.recv() => {} }
                told.cancel();
            });
            keeper::run(sentry, stop).await.map_err(|trouble| failure(&trouble))
        })?;
        Ok(Exit::Done)
    }
}

/// How etcd is reached.
fn lease(settings: &Settings, path: &Path) -> Result<EtcdOptions, Failure> {
    let lease: Lease = settings.lease.clone().try_into().map_err(|error: toml::de::Error| {
        Failure::because(Exit::Config, format!("[lease] in {} cannot be used", path.display()), &error)
    })?;
    let Kind::Etcd = lease.kind;
    let secure = lease.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
    if lease.endpoints.is_empty() || secure && lease.ca_file.is_none() {
        let text = format!("[lease] in {} needs endpoints, and a ca_file for https", path.display());
        return Err(Failure::new(Exit::Config, text));
    }
    let (cert_file, key_file) = (lease.cert_file, lease.key_file);
    let tls = lease.ca_file.filter(|_| secure).map(|ca_file| EtcdTls { ca_file, cert_file, key_file });
    let login = lease.user.zip(lease.password_file);
    let ttl = settings.length.max(Duration::from_secs(2));
    Ok(EtcdOptions {
        name: lease.cluster,
        agent: settings.name(),
        endpoints: lease.endpoints,
        tls,
        user: login.map(|(name, password_file)| EtcdUser { name, password_file }),
        tenure_ttl: ttl,
        testimony_ttl: ttl,
        deadline: settings.length / DEADLINE_PART,
    })
}

/// This sentry's key, and the agents'.
fn seals(settings: &Settings) -> Result<Seals, Failure> {
    let own = KeyPair::open(&settings.key_file).map_err(|error| unusable(settings, &error))?;
    let keys: BTreeMap<_, _> =
        settings.agents.iter().map(|agent| (agent.name.clone(), agent.key.clone())).collect();
    Seals::new(own, &keys).map_err(|error| unusable(settings, &error))
}

fn unusable(settings: &Settings, error: &SealError) -> Failure {
    let text = format!("the keys of {} cannot be used", settings.name());
    Failure::because(Exit::Config, text, error)
}

fn failure(trouble: &Trouble) -> Failure {
    match trouble {
        Trouble::Settings { .. } => {
            Failure::because(Exit::Config, "the sentry's configuration cannot be used", trouble)
        }
        Trouble::Taken(_) => Failure::because(Exit::Refused, "the sentry was not started", trouble),
        Trouble::Unusable { .. } => Failure::because(Exit::Failed, "the sentry was not started", trouble),
    }
}
