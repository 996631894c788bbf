//! `chaos shop`: the shop of one region, as a process of its own that can be killed.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use lifeboat_chaos::Region;
use lifeboat_chaos::shop::{ShopOptions, serve};

/// Serves the shop of one region (the lab starts it).
#[derive(Debug, clap::Args)]
pub(crate) struct Shop {
    /// The region it is in.
    #[arg(long)]
    region: Region,
    /// Where it listens, as ADDRESS:PORT.
    #[arg(long)]
    listen: SocketAddr,
    /// Its region's PostgreSQL, as ADDRESS:PORT.
    #[arg(long)]
    database: SocketAddr,
    /// The database.
    #[arg(long)]
    dbname: String,
    /// The database user.
    #[arg(long)]
    user: String,
    /// The file with that user's password.
    #[arg(long)]
    password_file: PathBuf,
}

impl Shop {
    pub(crate) async fn run(self) -> anyhow::Result<u8> {
        let password = std::fs::read_to_string(&self.password_file)
            .with_context(|| format!("cannot read {}", self.password_file.display()))?;
        let mut database = tokio_postgres::Config::new();
        database.host(self.database.ip().to_string()).port(self.database.port()).dbname(&self.dbname);
        database.user(&self.user).password(password.trim()).application_name("shop");
        database.connect_timeout(std::time::Duration::from_secs(1));
        serve(ShopOptions { region: self.region, listen: self.listen, database })
            .await
            .with_context(|| format!("cannot serve on {}", self.listen))?;
        Ok(0)
    }
}
