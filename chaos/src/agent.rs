//! The agent of the lab: the `lifeboat` binary, its configuration, its command line.
//!
//! **Invariant:** the lab speaks to lifeboat as an operator does: a file, a process, commands.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::network::{Network, WITNESSES};
use crate::postgres::{AGENT_USER, DATABASE};
use crate::process::{Owner, tethered};
use crate::region::{From, Region, Site, To};

/// The DNS name of the shop.
pub const SHOP_NAME: &str = "shop.lab.test.";
/// The workload's name in `lifeboat.toml`.
pub const WORKLOAD: &str = "shop";
/// How long one command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// How the agent probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbePolicy {
    /// As in the demo: every second, one second each, 3 failures, silence counts after 3 s.
    #[default]
    Demo,
    /// lifeboat's defaults: every 5 s, 10 s each, 3 failures, silence counts after 60 s.
    Defaults,
}

/// What `lifeboat.toml` says in the lab, where tests differ.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// How it probes.
    pub policy: ProbePolicy,
    /// Whether a person is always asked.
    pub supervised: bool,
    /// The RTO objective, as in the file.
    pub rto: String,
    /// The RPO objective, as in the file.
    pub rpo: String,
    /// Whether the regions have a power controller as their fence.
    pub power: bool,
    /// Further lines of `[workload.failover]`.
    pub failover: String,
    /// With three agents: how long the right to decide lasts without being renewed, as in the file.
    pub tenure: String,
    /// With three agents: how long the write lease of a sentry does.
    pub lease: String,
    /// With three agents: whether a sentry sits beside each database.
    pub sentries: bool,
    /// How long nothing must be heard of a region, at the demo's pace, until it counts as lost, as in the file.
    pub silence: String,
    /// Whether the census asks a further resolver for the shop's name, which can be told to keep what it knows.
    pub resolver: bool,
    /// With three agents: how long one attempt at a step of a failover may take, where the shipped page's time will not do.
    pub limits: Vec<(&'static str, &'static str)>,
    /// Whether the database is backed up to the lab's archive.
    pub archive: bool,
    /// Whether the shop has a second name, on a name server that nobody answers for.
    pub dead_name_server: bool,
}

impl Default for AgentOptions {
    fn default() -> Self {
        AgentOptions {
            policy: ProbePolicy::default(),
            supervised: false,
            rto: "1m".to_owned(),
            rpo: "30s".to_owned(),
            power: true,
            failover: "hold_down = \"2s\"\n".to_owned(),
            tenure: "2s".to_owned(),
            lease: "3s".to_owned(),
            sentries: true,
            silence: "3s".to_owned(),
            resolver: false,
            limits: Vec::new(),
            archive: false,
            dead_name_server: false,
        }
    }
}

/// The program `name`, wanted at `told`, else beside this program: that is where cargo puts the programs of
/// one workspace, and a folder above for its tests.
#[must_use]
pub fn program(told: Option<&Path>, name: &str) -> Option<PathBuf> {
    if let Some(told) = told {
        return told.exists().then(|| told.to_owned());
    }
    let this = std::env::current_exe().ok()?;
    if this.file_name().is_some_and(|file| file == name) {
        return Some(this);
    }
    this.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Where an agent sits: its name, its paths, and what it shares with others.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Its site; none for the one that is alone, on its bastion.
    pub site: Option<Site>,
    /// The agents it shares the record with, and their sentries.
    pub council: Council,
    /// The name servers that the census asks, besides its own.
    pub resolvers: Vec<SocketAddr>,
}

/// What several agents know of each other: public keys, as `lifeboat key` and `lifeboat sentry --key` print them.
#[derive(Clone, Debug, Default)]
pub struct Council {
    /// Of the agents.
    pub agents: BTreeMap<Site, String>,
    /// Of the sentries.
    pub sentries: BTreeMap<Region, String>,
    /// Whether the standby is a synchronous one: that it has stopped receiving is a fence then.
    pub sync: bool,
}

impl Council {
    /// What may prove a fence beside the primary's own word.
    fn fences(&self) -> String {
        format!("fence_expiry = {}\nfence_cut_off = {}\n", !self.sentries.is_empty(), self.sync)
    }
}

impl Seat {
    /// That of an agent that is alone.
    #[must_use]
    pub fn alone() -> Seat {
        Seat { site: None, council: Council::default(), resolvers: Vec::new() }
    }

    /// Where its connections come from.
    #[must_use]
    pub fn from(&self) -> From {
        self.site.map_or(From::Agent, From::Site)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self, lab: &Path) -> PathBuf {
        self.site.map_or_else(|| lab.to_owned(), |site| site.folder(lab)).join("agent")
    }

    /// `[agent]`, `[lease]` and all agents.
    fn text(&self, lab: &Path, network: &Network, witnesses: &str, options: &AgentOptions) -> String {
        let state = quoted(&self.folder(lab).join("state").display());
        let Some(site) = self.site else {
            return format!(
                "[agent]\nname = \"bastion\"\nregion = \"west\"\nstate = {state}\n{witnesses}\n\
                 [lease]\nkind = \"embedded\"\n"
            );
        };
        let etcd = Site::ALL.map(|to| format!("\"http://{}\"", network.path(self.from(), To::Etcd(to))));
        let pages = quoted(&self.folder(lab).join("runbooks").display());
        let pages = if options.limits.is_empty() { String::new() } else { format!("runbooks = {pages}\n") };
        let mut text = format!(
            "[agent]\nname = \"{site}\"\nregion = \"{site}\"\nstate = {state}\n{pages}listen = \"{}\"\n{witnesses}\n\
             [lease]\nkind = \"etcd\"\ncluster = \"{WORKLOAD}\"\nendpoints = [{}]\nttl = {}\n\n",
            network.door(To::Agent(site)),
            etcd.join(", "),
            quoted(&options.tenure),
        );
        for (other, key) in &self.council.agents {
            let address = network.path(self.from(), To::Agent(*other));
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "[[agents]]\nname = \"{other}\"\nregion = \"{other}\"\naddress = \"{address}\"\npublic_key = \"{key}\"\n"
            );
        }
        text
    }
}

fn quoted(text: &dyn std::fmt::Display) -> String {
    Value::from(text.to_string()).to_string()
}

/// The text of `lifeboat.toml`. Without a `lifeboat` program there is no host section: then the regions' hosts
/// cannot be asked to salvage, rewind or follow.
#[must_use]
pub fn config(
    lab: &Path,
    chaos: &Path,
    lifeboat: Option<&Path>,
    network: &Network,
    options: &AgentOptions,
    seat: &Seat,
) -> String {
    let from = seat.from();
    let witnesses: Vec<String> =
        (0..WITNESSES).map(|number| quoted(&network.path(from, To::Witness(number)))).collect();
    let authorities = network.authorities(seat.site.is_some());
    let own = seat.site.map_or(network.authority(), |site| network.authority_of(site));
    let mode = if options.supervised { "supervised" } else { "automatic" };
    // One agent alone that acts by itself must be accepted; several may take an expired write lease for a fence.
    let alone = if options.supervised { "" } else { "lone_vantage = \"accepted\"\n" };
    let judged = if seat.site.is_none() { alone.to_owned() } else { seat.council.fences() };
    let (witness_pace, pace) = match options.policy {
        ProbePolicy::Defaults => ("", String::new()),
        ProbePolicy::Demo => (
            "witness_interval = \"1s\"\nwitness_timeout = \"1s\"\n",
            format!(
                "interval = \"1s\"\ntimeout = \"1s\"\nfailures = 3\nrecoveries = 2\nsilence = {}\n",
                quoted(&options.silence)
            ),
        ),
    };
    let witnesses = format!("witnesses = [{}]\n{witness_pace}", witnesses.join(", "));
    let mut text = format!(
        "# Written by chaos for one lab.\n{}\n[[notify]]\nkind = \"log\"\n\n\
         [[region]]\nname = \"east\"\n[[region]]\nname = \"west\"\n\n\
         [authority]\nzone = \"lab.test.\"\nlisten = [{}]\nnameservers = [{}]\n\n",
        seat.text(lab, network, &witnesses, options),
        quoted(&own),
        (1..=authorities.len()).map(|n| format!("\"ns{n}.lab.test.\"")).collect::<Vec<_>>().join(", "),
    );
    for (n, authority) in authorities.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "[[authority.record]]\nname = \"ns{}.lab.test.\"\nkind = \"A\"\nvalues = [\"{}\"]\nttl = \"5m\"\n\n",
            n + 1,
            authority.ip()
        );
    }
    if options.archive {
        let (place, key) =
            (quoted(&lab.join("archive").display()), quoted(&lab.join("archive.key").display()));
        // Writing to a String cannot fail.
        let _ = write!(text, "[[archive]]\nname = \"vault\"\nplace = {place}\nkey_file = {key}\n\n");
    }
    let _ = write!(
        text,
        "[[workload]]\nname = \"{WORKLOAD}\"\nprimary = \"east\"\nstandbys = [\"west\"]\n\n\
         [workload.objectives]\nrto = {rto}\nrpo = {rpo}\n\n[workload.failover]\nmode = \"{mode}\"\n{judged}{failover}\n",
        rto = quoted(&options.rto),
        rpo = quoted(&options.rpo),
        failover = options.failover,
    );
    for (region, key) in &seat.council.sentries {
        let _ = write!(text, "[workload.sentry.{region}]\nkey = \"{key}\"\n\n");
    }
    if options.power {
        for region in Region::ALL {
            let (chaos, lab) = (quoted(&chaos.display()), quoted(&lab.display()));
            let order = format!(
                "[{chaos}, \"power\", \"off\", \"--lab\", {lab}, \"{{region}}\", \"--epoch\", \"{{epoch}}\"]"
            );
            // Writing to a String cannot fail.
            let _ = write!(text, "[workload.fence.{region}]\ncommand = {order}\ntimeout = \"20s\"\n\n");
        }
    }
    text += &database(lab, network, &pace, seat);
    if options.archive {
        // The demo's database is small and written to all the time: what came is stored at once.
        text += "[[workload.database.backup]]\nfrom = \"primary\"\npiece_interval = \"10ms\"\n\n";
    }
    if let Some(lifeboat) = lifeboat {
        text += &hosts(lab, chaos, lifeboat, network, seat.site);
    }
    text + &probes(network, &pace, from) + &names(network, &seat.resolvers, own, options, &seat.folder(lab))
}

fn database(lab: &Path, network: &Network, pace: &str, seat: &Seat) -> String {
    let password = quoted(&seat.folder(lab).join("orders.password").display());
    let endpoint = |region| network.path(seat.from(), To::Postgres(region));
    format!(
        "[[workload.database]]\nname = \"orders\"\nkind = \"postgres\"\ndbname = \"{DATABASE}\"\nuser = \"{AGENT_USER}\"\n\
         password_file = {password}\ntls = \"off\"\n{pace}[workload.database.endpoint]\neast = \"{}\"\nwest = \"{}\"\n\n",
        endpoint(Region::East),
        endpoint(Region::West)
    )
}

/// How the agent reaches `lifeboat host` in each region, and how each region's server reaches the other's.
fn hosts(lab: &Path, chaos: &Path, lifeboat: &Path, network: &Network, from: Option<Site>) -> String {
    let mut text = String::new();
    for region in Region::ALL {
        let command = Value::from(host_command(lab, chaos, lifeboat, from, region));
        // Writing to a String cannot fail.
        let _ = write!(text, "[workload.database.host.{region}]\ncommand = {command}\ntimeout = \"5m\"\n\n");
    }
    let path = |region: Region| network.path(From::Region(region.other()), To::Postgres(region));
    let (east, west) = (path(Region::East), path(Region::West));
    text + &format!("[workload.database.replication]\neast = \"{east}\"\nwest = \"{west}\"\n\n")
}

/// The command by which `lifeboat host` runs on a region's host, with the configuration the lab wrote for it. The
/// program must be one that PostgreSQL's user can run.
#[must_use]
pub fn host_command(
    lab: &Path,
    chaos: &Path,
    lifeboat: &Path,
    from: Option<Site>,
    region: Region,
) -> Vec<String> {
    let shown = |path: &Path| path.display().to_string();
    let config = shown(&region.folder(lab).join("host.toml"));
    let (chaos, lab, lifeboat) = (shown(chaos), shown(lab), shown(lifeboat));
    let mut argv = vec![&*chaos, "host", "exec", "--lab", &lab];
    argv.extend(from.into_iter().flat_map(|site| ["--from", site.name()]));
    argv.extend([region.name(), "--", &lifeboat, "host", "--config", &config]);
    argv.into_iter().map(str::to_owned).collect()
}

fn probes(network: &Network, pace: &str, from: From) -> String {
    let probe = |region| {
        let shop = network.path(from, To::Shop(region));
        format!(
            "[[workload.probe]]\nname = \"shop-{region}\"\nregion = \"{region}\"\nkind = \"http\"\n\
             url = \"http://{shop}/health\"\nbody = \"ok\"\n{pace}\n"
        )
    };
    Region::ALL.map(probe).concat()
}

fn names(
    network: &Network,
    resolvers: &[SocketAddr],
    own: SocketAddr,
    options: &AgentOptions,
    folder: &Path,
) -> String {
    // An agent asks its own authority anyway; those of the others are resolvers to it.
    let all: Vec<&SocketAddr> = resolvers.iter().collect();
    let several = all.len() > 1;
    let all = all.iter().map(|authority| format!("\"{authority}\"")).collect::<Vec<_>>().join(", ");
    let others = if several { format!("resolvers = [{all}]\n") } else { String::new() };
    let dead = if options.dead_name_server { dead_name(network, folder) } else { String::new() };
    let text = format!(
        "[[workload.dns]]\nname = \"{SHOP_NAME}\"\nvia = \"authority\"\nttl = \"1s\"\n{others}[workload.dns.target]\n\
         east = [\"{}\"]\nwest = [\"{}\"]\n\n[workload.canary]\nurl = \"http://{}:{}/health\"\nbody = \"ok\"\nresolver = \"{own}\"\ntimeout = \"1s\"\n",
        network.host(Region::East),
        network.host(Region::West),
        SHOP_NAME.trim_end_matches('.'),
        network.shop,
    );
    text + &dead
}

/// A second name of the shop, in a zone whose server is an address that nobody listens at.
fn dead_name(network: &Network, folder: &Path) -> String {
    let key = folder.join("dead.key");
    format!(
        "\n[[workload.dns]]\nname = \"www.dead.test.\"\nvia = \"rfc2136\"\nttl = \"1s\"\nzone = \"dead.test.\"\n\
         server = \"{}:9\"\nkey_name = \"lab.\"\nkey_file = {}\n[workload.dns.target]\neast = [\"{}\"]\nwest = [\"{}\"]\n",
        network.host(Region::West),
        quoted(&key.display()),
        network.host(Region::East),
        network.host(Region::West),
    )
}

/// The shipped page of a failover, with other times for one attempt at some steps.
#[must_use]
pub fn failover_page(limits: &[(&str, &str)]) -> String {
    let mut page = String::new();
    let mut within = None;
    for line in include_str!("../../runbooks/failover.toml").lines() {
        if let Some(name) = line.strip_prefix("name = ") {
            within = limits.iter().find(|(step, _)| name.trim_matches('"') == *step);
        }
        match within.filter(|_| line.starts_with("timeout = ")) {
            Some((_, limit)) => page += &format!("timeout = \"{limit}\"\n"),
            None => page += &format!("{line}\n"),
        }
    }
    page
}

/// What a command said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; none when a signal ended it or it took longer than 30 s.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Said {
    /// Its output as JSON.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.stdout).ok()
    }
}

impl std::convert::From<std::process::Output> for Said {
    fn from(output: std::process::Output) -> Said {
        Said {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs one command of `lifeboat` with the lab's configuration.
pub async fn command(lifeboat: &Path, config: &Path, args: &[&str]) -> Said {
    let mut command = tokio::process::Command::from(tethered(lifeboat, Owner::Same));
    command.arg("--config").arg(config).args(args).env("NO_COLOR", "1");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    match tokio::time::timeout(COMMAND_LIMIT, command.output()).await {
        Ok(Ok(output)) => output.into(),
        Ok(Err(error)) => Said { code: None, stdout: String::new(), stderr: error.to_string() },
        Err(_) => Said { code: None, stdout: String::new(), stderr: "no answer within 30 s".to_owned() },
    }
}

/// lifeboat's records after a place in its journal, oldest first, from the control socket of the agent in that folder;
/// none while it does not answer. Commands take tens of milliseconds to start, this takes one: for looking many times a
/// second.
pub async fn records(agent: &Path, after: u64) -> Option<Vec<Value>> {
    let socket = tokio::net::UnixStream::connect(agent.join("state/lifeboat.sock")).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.ok()?;
    // Its end is seen by the sender.
    tokio::spawn(async move { connection.await.ok() });
    let uri = format!("/v1/records?after={after}");
    let request = hyper::Request::get(uri).header("host", "lifeboat").body(Empty::<Bytes>::new()).ok()?;
    let answer = sender.send_request(request).await.ok()?;
    // A lab's journal is some hundred records of a kilobyte.
    let body = Limited::new(answer.into_body(), 64 << 20).collect().await.ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_paths_through_the_proxies_and_never_a_password() {
        let network = Network::claim().unwrap();
        let text = config(
            Path::new("/lab"),
            Path::new("/bin/chaos"),
            Some(Path::new("/bin/lifeboat")),
            &network,
            &AgentOptions::default(),
            &Seat::alone(),
        );
        for region in Region::ALL {
            assert!(text.contains(&network.path(From::Agent, To::Postgres(region)).to_string()));
            assert!(text.contains(&network.path(From::Agent, To::Shop(region)).to_string()));
            assert!(!text.contains(&network.door(To::Postgres(region)).to_string()));
            assert!(text.contains(&format!("{region} = [\"{}\"]", network.host(region))));
        }
        assert!(text.contains(
            r#"command = ["/bin/chaos", "power", "off", "--lab", "/lab", "{region}", "--epoch", "{epoch}"]"#
        ));
        assert!(text.contains(
            r#"["/bin/chaos","host","exec","--lab","/lab","west","--","/bin/lifeboat","host","--config","/lab/west/host.toml"]"#
        ));
        let from_west = network.path(From::Region(Region::West), To::Postgres(Region::East));
        assert!(text.contains(&format!("[workload.database.replication]\neast = \"{from_west}\"")));
        assert!(
            text.contains("interval = \"1s\"")
                && text.contains("password_file = \"/lab/agent/orders.password\"")
        );
        let quiet = AgentOptions { policy: ProbePolicy::Defaults, power: false, ..AgentOptions::default() };
        let text = config(Path::new("/lab"), Path::new("/bin/chaos"), None, &network, &quiet, &Seat::alone());
        assert!(!text.contains("interval") && !text.contains("fence") && !text.contains("host."));
    }
}
