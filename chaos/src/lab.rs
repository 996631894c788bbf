//! A lab: two regions, everything between them, and the agent, or three agents in three sites.
//!
//! **Invariant:** when a [`Lab`] is dropped, or its process dies in whatever way, none of its processes is left, and
//! its folder is gone too, unless it was asked to keep it.

mod agent;
mod council;
mod hosts;
pub mod moves;
mod regions;
pub mod sites;
mod vault;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::agent::{AgentOptions, SHOP_NAME, Seat, program};
use crate::canary::{Canary, CanaryOptions};
use crate::etcd::{Etcd, EtcdError};
use crate::host::{Directory, HostError};
use crate::load::{Load, LoadOptions};
use crate::network::{Network, WITNESSES};
use crate::postgres::{DATABASE, Passwords, Postgres, PostgresError, SHOP_USER, Setup, write_secret};
use crate::power::PowerError;
use crate::process::{self, Nursery, Owner, ProcessError, tethered};
use crate::proxy::{Fault, Proxy};
use crate::region::{From, Region, Site, To};
use crate::relay::Relay;
use crate::rules::Rules;
use crate::undertaker;
use crate::witness::Witness;

/// How long a shop or the agent may take to come up.
const UP_WITHIN: Duration = Duration::from_secs(30);

/// What a lab is made of.
#[derive(Clone, Debug, Default)]
pub struct LabOptions {
    /// How the PostgreSQL pair is set up.
    pub setup: Setup,
    /// What `lifeboat.toml` says; none: a lab without an agent (it can be started later).
    pub agent: Option<AgentOptions>,
    /// Three sites, each with an agent and a member of etcd, instead of one agent on a bastion.
    pub sites: bool,
    /// Where `lifeboat` is; default: beside this program.
    pub lifeboat: Option<PathBuf>,
    /// Where `chaos` is, for the shops and the power controller; default: beside this program.
    pub chaos: Option<PathBuf>,
    /// Leave the folder with its data and logs.
    pub keep: bool,
    /// Megabytes of rows beside the workload's, for what takes time by size: 150 is the reference database.
    pub ballast_mb: u32,
}

/// A lab could not be built, or something in it failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program is missing.
    #[error("no program {0:?} beside this one; build it (cargo build --workspace), or say where it is")]
    Program(&'static str),
    /// A folder, an address or a file could not be had.
    #[error("cannot {act}")]
    Io {
        /// What was attempted.
        act: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something did not come up or did not get there in time.
    #[error("{what} within {} s{hint}", limit.as_secs())]
    Late {
        /// What did not happen.
        what: String,
        /// How long was waited.
        limit: Duration,
        /// What is known about it.
        hint: String,
    },
    /// PostgreSQL.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The power controller.
    #[error(transparent)]
    Power(#[from] PowerError),
    /// A region's host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The etcd of the sites.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

/// The program in the lab's own folder: another name of the same file where that can be, else a copy.
fn within_reach(lab: &Path, program: &Path) -> io::Result<PathBuf> {
    let folder = lab.join("bin");
    std::fs::create_dir_all(&folder)?;
    let place = folder.join(program.file_name().unwrap_or_default());
    match std::fs::hard_link(program, &place) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(_) => std::fs::copy(program, &place).map(drop)?,
    }
    Ok(place)
}

fn io(act: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
    let act = act.into();
    move |source| LabError::Io { act, source }
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    // Dropped first to last: the processes end before the folder goes.
    nursery: Nursery,
    proxies: BTreeMap<(From, To), Proxy>,
    servers: BTreeMap<Region, Postgres>,
    _witnesses: Vec<Witness>,
    network: Network,
    passwords: Passwords,
    chaos: PathBuf,
    lifeboat: Option<PathBuf>,
    agent: Mutex<Option<i32>>,
    etcd: OnceLock<Etcd>,
    /// The way to each site's name server; none in a lab of one agent.
    relays: BTreeMap<Site, Relay>,
    /// A resolver that the census asks as well.
    resolver: Option<Relay>,
    rules: Rules,
    options: LabOptions,
    folder: Folder,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    keep: bool,
    undertaker: Child,
}

impl Folder {
    fn make(chaos: &Path, keep: bool) -> io::Result<Folder> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Processes are found by the real path of their working directory.
        let place = std::env::temp_dir().canonicalize()?;
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = place.join(format!("lifeboat-lab-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let undertaker = undertaker::start(chaos, &path, keep)?;
                    return Ok(Folder { path, keep, undertaker });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // PostgreSQL's children notice by themselves that their postmaster is gone, but not at once.
        if let Err(error) = process::kill_within(&self.path) {
            tracing::error!(%error, "processes of the lab are left");
        }
        if !self.keep
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "the lab's folder is left");
        }
        drop(self.undertaker.stdin.take());
        // It finds nothing and ends.
        let _ = self.undertaker.wait();
    }
}

impl Lab {
    /// Builds a lab and returns when it is complete: the standby streams, the shops answer, and the agent, if
    /// there is one, runs.
    ///
    /// # Errors
    /// When a part is missing on this machine or does not come up; nothing is left behind then.
    pub async fn start(options: LabOptions) -> Result<Lab, LabError> {
        Lab::start_telling(options, |_| {}).await
    }

    /// The same, telling what it does, stage by stage.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub async fn start_telling(options: LabOptions, tell: impl Fn(&str)) -> Result<Lab, LabError> {
        let lab = Lab::lay_out(options).await?;
        tell("making the primary database in east");
        let (east, west) = (lab.server(Region::East), lab.server(Region::West));
        east.init().await?;
        lab.boot(Region::East).await?;
        lab.start_postgres(Region::East).await?;
        east.furnish(lab.options.ballast_mb).await?;
        tell("copying it to west, streaming from east");
        west.follow(lab.network.path(From::Region(Region::West), To::Postgres(Region::East))).await?;
        lab.boot(Region::West).await?;
        lab.start_postgres(Region::West).await?;
        lab.replicated().await?;
        lab.synchronise(Region::East).await?;
        tell("opening a shop in each region");
        for region in Region::ALL {
            lab.start_shop(region).await?;
        }
        if lab.options.sites {
            tell("starting etcd: a member in east, one in west, one elsewhere");
            lab.start_etcd().await?;
        }
        if lab.options.agent.is_some() {
            tell(if lab.options.sites {
                "starting three lifeboat agents and two sentries"
            } else {
                "starting the lifeboat agent"
            });
            lab.start_agent().await?;
        }
        Ok(lab)
    }

    async fn lay_out(options: LabOptions) -> Result<Lab, LabError> {
        let chaos = program(options.chaos.as_deref(), "chaos").ok_or(LabError::Program("chaos"))?;
        let lifeboat = program(options.lifeboat.as_deref(), "lifeboat");
        if options.agent.is_some() && lifeboat.is_none() {
            return Err(LabError::Program("lifeboat"));
        }
        let folder = Folder::make(&chaos, options.keep).map_err(io("make the lab's folder"))?;
        // The database's user runs them, too, and may not enter the folder they were built in.
        let chaos = within_reach(&folder.path, &chaos).map_err(io("put chaos into the lab's folder"))?;
        let lifeboat = lifeboat.map(|lifeboat| within_reach(&folder.path, &lifeboat)).transpose();
        let lifeboat = lifeboat.map_err(io("put lifeboat into the lab's folder"))?;
        let network = Network::claim().map_err(io("claim addresses on loopback"))?;
        let passwords = Passwords::random().map_err(io("make up passwords"))?;
        let mut servers = BTreeMap::new();
        for region in Region::ALL {
            let door = network.door(To::Postgres(region));
            servers.insert(region, Postgres::new(&folder.path, region, door, &passwords, options.setup)?);
        }
        let mut seats = vec![Seat::alone()];
        if options.sites {
            seats.extend(Site::ALL.map(|site| Seat { site: Some(site), ..Seat::alone() }));
        }
        for seat in &seats {
            let place = seat.folder(&folder.path);
            std::fs::create_dir_all(&place).map_err(io("make the agent's folder"))?;
            write_secret(&place.join("orders.password"), &passwords.agent)
                .map_err(io("write a password file"))?;
            let paths = Region::ALL.map(|region| (region, network.path(seat.from(), To::Host(region))));
            let directory = Directory { secret: passwords.host.clone(), paths: paths.into() };
            directory.write(&folder.path, seat.site).map_err(io("write the hosts' directory"))?;
        }
        let (proxies, witnesses) = connect(&network, options.sites).await?;
        let wanted = options.agent.as_ref().is_some_and(|agent| agent.resolver);
        let resolver = match wanted {
            // It asks the name server that stays.
            true => Some(Relay::start(network.authority_of(Site::West)).await.map_err(io("open a relay"))?),
            false => None,
        };
        let mut relays = BTreeMap::new();
        for site in Site::ALL.into_iter().filter(|_| options.sites) {
            let relay = Relay::start(network.authority_of(site)).await.map_err(io("open a relay"))?;
            relays.insert(site, relay);
        }
        let nursery = Nursery::open().map_err(io("start a thread"))?;
        let agent = Mutex::new(None);
        let lab = Lab {
            nursery,
            proxies,
            servers,
            _witnesses: witnesses,
            network,
            passwords,
            chaos,
            lifeboat,
            agent,
            etcd: OnceLock::new(),
            relays,
            resolver,
            rules: Rules::default(),
            options,
            folder,
        };
        for region in Region::ALL {
            lab.configure_host(region)?;
        }
        if let Some(agent) = &lab.options.agent {
            if lab.options.sites {
                lab.configure_sites(agent).await?;
            } else {
                lab.configure_agent(agent)?;
            }
        }
        Ok(lab)
    }

    /// The lab's folder: a folder per region, the agent's folder, `lifeboat.toml`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// Its addresses.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The PostgreSQL server of a region.
    #[must_use]
    pub fn server(&self, region: Region) -> &Postgres {
        &self.servers[&region]
    }

    /// The path from one place to a thing. Paths: from the agent to everything, and from each region to the
    /// other one's PostgreSQL.
    ///
    /// # Panics
    /// When the lab has no such path: a mistake in a test.
    #[must_use]
    pub fn proxy(&self, from: From, to: To) -> &Proxy {
        self.proxies.get(&(from, to)).unwrap_or_else(|| panic!("the lab has no path from {from:?} to {to:?}"))
    }

    /// All paths with what they connect.
    pub fn proxies(&self) -> impl Iterator<Item = (From, To, &Proxy)> {
        self.proxies.iter().map(|((from, to), proxy)| (*from, *to, proxy))
    }

    /// The process of the agent that was started last.
    #[must_use]
    pub fn agent_pid(&self) -> Option<i32> {
        *self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts PostgreSQL and the shop of a region again, after [`Lab::lose`].
    ///
    /// # Errors
    /// When the region was powered off for good by a fence ([`crate::power::on`] lifts that), or does not come up.
    pub async fn restart(&self, region: Region) -> Result<(), LabError> {
        self.boot(region).await?;
        self.start_postgres(region).await?;
        self.start_shop(region).await?;
        self.to_region(region, Fault::None);
        Ok(())
    }

    async fn start_shop(&self, region: Region) -> Result<(), LabError> {
        let folder = region.folder(self.folder());
        let password = self.folder().join(format!("agent/shop-{region}.password"));
        write_secret(&password, &self.passwords.shop).map_err(io("write a password file"))?;
        let log = std::fs::File::create(folder.join("shop.log")).map_err(io("make the shop's log"))?;
        let errors = log.try_clone().map_err(io("make the shop's log"))?;
        let door = self.network.door(To::Shop(region));
        let mut command = tethered(&self.chaos, Owner::Same);
        command.args(["shop", "--region", region.name(), "--listen", &door.to_string()]);
        command.args(["--database", &self.network.door(To::Postgres(region)).to_string()]);
        command.args(["--dbname", DATABASE, "--user", SHOP_USER, "--password-file"]).arg(password);
        command.current_dir(folder).stdout(log).stderr(errors);
        let pid = self.nursery.start(command)?;
        self.wait(format!("the shop of {region} did not open"), UP_WITHIN, async || {
            process::alive(pid) && tokio::net::TcpStream::connect(door).await.is_ok()
        })
        .await
    }

    /// A canary that writes to the shop through its DNS name.
    #[must_use]
    pub fn canary(&self, name: &str) -> Canary {
        Canary::start(CanaryOptions::new(name, SHOP_NAME, self.network.shop, self.authorities()))
    }

    /// A load of 1,000 writes a second on the shop's database, found by the shop's DNS name.
    #[must_use]
    pub fn load(&self, name: &str) -> Load {
        Load::start(self.load_options(name))
    }

    /// How a service of the shop logs in at the database, wherever that is.
    fn login(&self) -> tokio_postgres::Config {
        let mut database = tokio_postgres::Config::new();
        database.port(self.network.postgres).dbname(DATABASE).user(SHOP_USER).password(&self.passwords.shop);
        database
    }

    /// The same at the database of a region: directly, as clients near it are.
    #[must_use]
    pub fn login_at(&self, region: Region) -> tokio_postgres::Config {
        let mut database = self.login();
        database.host(self.network.host(region).to_string()).application_name("holdout");
        database
    }

    /// What [`Lab::load`] does, to be changed.
    #[must_use]
    pub fn load_options(&self, name: &str) -> LoadOptions {
        let database = self.login();
        LoadOptions {
            name: name.to_owned(),
            host: SHOP_NAME.to_owned(),
            resolvers: self.authorities(),
            database,
            regions: Region::ALL.map(|region| (self.network.host(region), region)).into(),
            sessions: 32,
            rate: 1000,
            timeout: Duration::from_secs(1),
        }
    }

    pub(crate) async fn wait(
        &self,
        what: String,
        limit: Duration,
        met: impl AsyncFn() -> bool,
    ) -> Result<(), LabError> {
        let wait = async {
            while !met().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(limit, wait).await.map_err(|_| LabError::Late {
            what,
            limit,
            hint: String::new(),
        })
    }
}

async fn connect(
    network: &Network,
    sites: bool,
) -> Result<(BTreeMap<(From, To), Proxy>, Vec<Witness>), LabError> {
    let mut sources = vec![From::Agent];
    let mut paths = Vec::new();
    for region in Region::ALL {
        paths.push((From::Region(region.other()), To::Postgres(region)));
    }
    if sites {
        sources.extend(Site::ALL.map(From::Site));
        let pairs = Site::ALL.into_iter().flat_map(|from| Site::ALL.map(|to| (From::Site(from), to)));
        paths.extend(pairs.flat_map(|(from, to)| [(from, To::Etcd(to)), (from, To::Agent(to))]));
    }
    for from in &sources {
        let regions = Region::ALL.into_iter();
        paths.extend(regions.flat_map(|region| {
            [To::Postgres(region), To::Shop(region), To::Host(region)].map(|to| (*from, to))
        }));
        paths.extend((0..WITNESSES).map(|number| (*from, To::Witness(number))));
    }
    let mut witnesses = Vec::new();
    for number in 0..WITNESSES {
        let witness = Witness::start(network.door(To::Witness(number))).await;
        witnesses.push(witness.map_err(io("start a witness"))?);
    }
    let mut proxies = BTreeMap::new();
    for (from, to) in paths {
        let proxy = Proxy::start(network.path(from, to), network.door(to)).await;
        proxies.insert((from, to), proxy.map_err(io("start a proxy"))?);
    }
    Ok((proxies, witnesses))
}
