//! The agent of the lab: the `lifeboat` binary, its configuration, its command line.
//!
//! **Invariant:** the lab speaks to lifeboat as an operator does: a file, a process, commands.

use std::fmt::Write;
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
use crate::region::{From, Region, To};

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

/// The text of `lifeboat.toml`. Without a `lifeboat` program there is no host section: then the regions' hosts
/// cannot be asked to salvage, rewind or follow.
#[must_use]
pub fn config(
    lab: &Path,
    chaos: &Path,
    lifeboat: Option<&Path>,
    network: &Network,
    options: &AgentOptions,
) -> String {
    let quoted = |text: &dyn std::fmt::Display| Value::from(text.to_string()).to_string();
    let witnesses: Vec<String> =
        (0..WITNESSES).map(|number| quoted(&network.path(From::Agent, To::Witness(number)))).collect();
    let authority = network.authority();
    let mode = if options.supervised { "supervised\"" } else { "automatic\"\nlone_vantage = \"accepted\"" };
    let (witness_pace, pace) = match options.policy {
        ProbePolicy::Defaults => ("", ""),
        ProbePolicy::Demo => (
            "witness_interval = \"1s\"\nwitness_timeout = \"1s\"\n",
            "interval = \"1s\"\ntimeout = \"1s\"\nfailures = 3\nrecoveries = 2\nsilence = \"3s\"\n",
        ),
    };
    let mut text = format!(
        "# Written by chaos for one lab.\n\
         [agent]\nname = \"bastion\"\nregion = \"west\"\nstate = {state}\nwitnesses = [{witnesses}]\n{witness_pace}\n\
         [lease]\nkind = \"embedded\"\n\n[[notify]]\nkind = \"log\"\n\n\
         [[region]]\nname = \"east\"\n[[region]]\nname = \"west\"\n\n\
         [authority]\nzone = \"lab.test.\"\nlisten = [{listen}]\nnameservers = [\"ns.lab.test.\"]\n\n\
         [[authority.record]]\nname = \"ns.lab.test.\"\nkind = \"A\"\nvalues = [\"{ns}\"]\nttl = \"5m\"\n\n\
         [[workload]]\nname = \"{WORKLOAD}\"\nprimary = \"east\"\nstandbys = [\"west\"]\n\n\
         [workload.objectives]\nrto = {rto}\nrpo = {rpo}\n\n[workload.failover]\nmode = \"{mode}\n{failover}\n",
        state = quoted(&lab.join("agent/state").display()),
        witnesses = witnesses.join(", "),
        listen = quoted(&authority),
        ns = authority.ip(),
        rto = quoted(&options.rto),
        rpo = quoted(&options.rpo),
        failover = options.failover,
    );
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
    text += &database(lab, network, pace);
    if let Some(lifeboat) = lifeboat {
        text += &hosts(lab, chaos, lifeboat, network);
    }
    text + &probes(network, pace) + &names(network)
}

fn database(lab: &Path, network: &Network, pace: &str) -> String {
    let password = Value::from(lab.join("agent/orders.password").display().to_string());
    let endpoint = |region| network.path(From::Agent, To::Postgres(region));
    format!(
        "[[workload.database]]\nname = \"orders\"\nkind = \"postgres\"\ndbname = \"{DATABASE}\"\nuser = \"{AGENT_USER}\"\n\
         password_file = {password}\ntls = \"off\"\n{pace}[workload.database.endpoint]\neast = \"{}\"\nwest = \"{}\"\n\n",
        endpoint(Region::East),
        endpoint(Region::West)
    )
}

/// How the agent reaches `lifeboat host` in each region, and how each region's server reaches the other's.
fn hosts(lab: &Path, chaos: &Path, lifeboat: &Path, network: &Network) -> String {
    let mut text = String::new();
    for region in Region::ALL {
        let command = Value::from(host_command(lab, chaos, lifeboat, region));
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
pub fn host_command(lab: &Path, chaos: &Path, lifeboat: &Path, region: Region) -> Vec<String> {
    let shown = |path: &Path| path.display().to_string();
    let config = shown(&region.folder(lab).join("host.toml"));
    let (chaos, lab, lifeboat) = (shown(chaos), shown(lab), shown(lifeboat));
    let argv =
        [&chaos, "host", "exec", "--lab", &lab, region.name(), "--", &lifeboat, "host", "--config", &config];
    argv.map(str::to_owned).to_vec()
}

fn probes(network: &Network, pace: &str) -> String {
    let probe = |region| {
        let shop = network.path(From::Agent, To::Shop(region));
        format!(
            "[[workload.probe]]\nname = \"shop-{region}\"\nregion = \"{region}\"\nkind = \"http\"\n\
             url = \"http://{shop}/health\"\nbody = \"ok\"\n{pace}\n"
        )
    };
    Region::ALL.map(probe).concat()
}

fn names(network: &Network) -> String {
    format!(
        "[[workload.dns]]\nname = \"{SHOP_NAME}\"\nvia = \"authority\"\nttl = \"1s\"\n[workload.dns.target]\n\
         east = [\"{}\"]\nwest = [\"{}\"]\n\n[workload.canary]\nurl = \"http://{}:{}/health\"\nbody = \"ok\"\ntimeout = \"1s\"\n",
        network.host(Region::East),
        network.host(Region::West),
        SHOP_NAME.trim_end_matches('.'),
        network.shop,
    )
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

/// Runs one command of `lifeboat` with the lab's configuration.
pub async fn command(lifeboat: &Path, config: &Path, args: &[&str]) -> Said {
    let mut command = tokio::process::Command::from(tethered(lifeboat, Owner::Same));
    command.arg("--config").arg(config).args(args).env("NO_COLOR", "1");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    match tokio::time::timeout(COMMAND_LIMIT, command.output()).await {
        Ok(Ok(output)) => Said {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
        Ok(Err(error)) => Said { code: None, stdout: String::new(), stderr: error.to_string() },
        Err(_) => Said { code: None, stdout: String::new(), stderr: "no answer within 30 s".to_owned() },
    }
}

/// lifeboat's records after a place in its journal, oldest first, from its control socket; none while it does
/// not answer. Commands take tens of milliseconds to start, this takes one: for looking many times a second.
pub async fn records(lab: &Path, after: u64) -> Option<Vec<Value>> {
    let socket = tokio::net::UnixStream::connect(lab.join("agent/state/lifeboat.sock")).await.ok()?;
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
        let text = config(Path::new("/lab"), Path::new("/bin/chaos"), None, &network, &quiet);
        assert!(!text.contains("interval") && !text.contains("fence") && !text.contains("host."));
    }
}
