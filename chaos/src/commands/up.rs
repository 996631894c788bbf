//! `chaos up`: a lab to play with.

use std::path::PathBuf;

use lifeboat_chaos::postgres::Setup;
use lifeboat_chaos::{AgentOptions, Lab, LabOptions, Region, Site, To};

use crate::ui::{self, Stage};

/// Starts a lab and leaves it running until Ctrl-C.
///
/// Says where everything is: try `lifeboat status --watch`, kill something, `chaos power off east`. All of it is
/// gone when this command ends, however it ends.
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// Let commits wait for the standby.
    #[arg(long)]
    sync: bool,
    /// Ask a person before every failover.
    #[arg(long)]
    supervised: bool,
    /// One agent on a bastion instead of three that share etcd.
    #[arg(long)]
    single: bool,
    /// Keep the lab's folder with its data and logs.
    #[arg(long)]
    keep: bool,
    /// The lifeboat program [default: beside this one].
    #[arg(long, env = "LIFEBOAT_BIN")]
    lifeboat: Option<PathBuf>,
}

impl Up {
    pub(crate) async fn run(self) -> anyhow::Result<u8> {
        let stage = Stage::new(false);
        let agent = AgentOptions { supervised: self.supervised, ..AgentOptions::default() };
        let options = LabOptions {
            setup: Setup { sync: self.sync, stall: false },
            agent: Some(agent),
            sites: !self.single,
            lifeboat: self.lifeboat,
            chaos: None,
            keep: self.keep,
            ballast_mb: 0,
        };
        let lab = Lab::start_telling(options, |what| stage.say(&format!("  {what}"))).await?;
        let folder = lab.folder().display();
        ui::line("");
        for region in Region::ALL {
            let network = lab.network();
            ui::line(&format!(
                "  {region}: shop http://{}  PostgreSQL {}  log {folder}/{region}/postgres.log",
                network.door(To::Shop(region)),
                network.door(To::Postgres(region))
            ));
        }
        if self.single {
            ui::line(&format!("  agent: log {}", lab.agent_log().display()));
            ui::line(&format!("  lifeboat --config {} status", lab.config().display()));
        } else {
            for site in Site::ALL {
                let etcd = lab.network().door(To::Etcd(site));
                ui::line(&format!("  {site}: etcd {etcd}  agent's log {}", lab.agent_log_of(site).display()));
            }
            ui::line(&format!(
                "  lifeboat --config {folder}/{{east,west,witness}}/agent/lifeboat.toml status"
            ));
        }
        ui::line(&format!("  chaos power off east --lab {folder} --epoch 1"));
        ui::line(&format!("  chaos host exec east --lab {folder} -- ls data"));
        ui::line("\n  Ctrl-C ends it all.");
        std::future::pending().await
    }
}
