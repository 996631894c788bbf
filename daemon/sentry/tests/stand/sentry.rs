//! A sentry started for one test: its processes, what it meets, what it shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use lifeboat_sentry::boottime::Boottime;
use serde_json::Value;

use crate::server::{Server, as_servers_user, give, lives, signal, until};

/// The length of the tests' leases, and the margin.
pub(crate) const LENGTH: Duration = Duration::from_secs(5);
pub(crate) const MARGIN: Duration = Duration::from_millis(800);

/// One sentry.
pub(crate) struct Sentry {
    folder: PathBuf,
    config: PathBuf,
    program: PathBuf,
    keeper: Child,
}

impl Sentry {
    /// Starts one beside `server`, with further lines of `sentry.toml`, whose renewals meet `answer`.
    pub(crate) fn start(server: &Server, folder: &Path, answer: &str, top: &str, end: &str) -> Self {
        let test = std::env::current_exe().unwrap();
        let built = test.parent().unwrap().parent().unwrap().join("examples/stand");
        // `cargo test --test stand` alone does not build it anew; without `--test` it does.
        // Where the servers' user can run it, wherever it was built.
        let program = folder.join("stand");
        fs::copy(&built, &program).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
        let config = folder.join("sentry.toml");
        let (data, at) = (server.data.display(), folder.display());
        let text = format!(
            "workload = 'shop'\nregion = 'east'\ndata = '{data}'\nstate = '{at}/state'\nkey_file = '{at}/key'\n\
             length = '{}ms'\nmargin = '{}ms'\n{top}\n[lease]\nfolder = '{at}'\n{end}\n",
            LENGTH.as_millis(),
            MARGIN.as_millis(),
        );
        fs::write(&config, text).unwrap();
        let keeper = Self::spawn(&program, &config, folder, answer);
        Self { folder: folder.to_owned(), config, program, keeper }
    }

    fn spawn(program: &Path, config: &Path, folder: &Path, answer: &str) -> Child {
        fs::write(folder.join("answer"), answer).unwrap();
        give(&folder.join("answer"));
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("keeper.log")).unwrap();
        as_servers_user(program).arg(config).stderr(log).spawn().unwrap()
    }

    /// What renewals meet from now on.
    pub(crate) fn answer(&self, answer: &str) {
        let beside = self.folder.join("answer.new");
        fs::write(&beside, answer).unwrap();
        fs::rename(beside, self.folder.join("answer")).unwrap();
    }

    /// Writes one line more into `sentry.toml`, for the next keeper.
    pub(crate) fn reconfigure(&self, line: &str) {
        let text = fs::read_to_string(&self.config).unwrap();
        fs::write(&self.config, format!("{line}\n{text}")).unwrap();
    }

    /// Starts another keeper in place of one that has ended.
    pub(crate) fn keeper_again(&mut self) {
        self.keeper.wait().unwrap();
        let answer = fs::read_to_string(self.folder.join("answer")).unwrap();
        self.keeper = Self::spawn(&self.program, &self.config, &self.folder, &answer);
    }

    /// The process of the keeper.
    pub(crate) fn keeper(&self) -> u32 {
        self.keeper.id()
    }

    /// What it shows; nothing before its first turn.
    pub(crate) fn status(&self) -> Value {
        let text = fs::read(self.folder.join("state/status.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// The process of the switch, as far as it is shown.
    pub(crate) fn switch(&self) -> Option<u32> {
        u32::try_from(self.status()["switch"].as_u64()?).ok()
    }

    /// What its log says.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("keeper.log")).unwrap()
    }

    /// What was done to the database, by the switch or by the keeper: whichever came first, the other one finds it done.
    pub(crate) fn deeds(&self) -> String {
        let switch = fs::read_to_string(self.folder.join("state/switch.log")).unwrap_or_default();
        let shown = self.status()["deeds"].as_array().cloned().unwrap_or_default();
        shown.iter().fold(switch, |deeds, deed| format!("{deeds}{deed}\n"))
    }

    /// Waits until it shows that writes stand on something.
    pub(crate) async fn holds(&self, basis: &str) {
        until(&format!("it stands on {basis}"), async || self.status()["basis"]["by"] == basis).await;
    }

    /// Every renewal that came: when, what the sentry said of the database, what it met.
    pub(crate) fn renewals(&self) -> Vec<(Boottime, String, String)> {
        let text = fs::read_to_string(self.folder.join("renewals")).unwrap_or_default();
        let renewal = |line: &str| {
            let mut words = line.splitn(3, ' ').map(str::to_owned);
            let came = Boottime::from_nanos(words.next().unwrap().parse().unwrap());
            (came, words.next().unwrap(), words.next().unwrap())
        };
        text.lines().map(renewal).collect()
    }

    /// When the lease ends that was granted last, as the coordinator counts it.
    pub(crate) fn lease_ends(&self) -> Boottime {
        let held = self.renewals().into_iter().rfind(|(_, _, met)| met.starts_with("held")).unwrap();
        held.0.plus(LENGTH)
    }
}

impl Drop for Sentry {
    fn drop(&mut self) {
        let switch = self.switch();
        if std::thread::panicking() {
            eprintln!("{}\n{}\n{}", self.log(), self.deeds(), self.status());
        }
        signal("-KILL", &[self.keeper.id()]);
        let _ = self.keeper.wait();
        if let Some(switch) = switch.filter(|switch| lives(*switch)) {
            signal("-KILL", &[switch]);
        }
    }
}
