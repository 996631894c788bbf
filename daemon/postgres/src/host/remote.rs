//! The agent's side: starting the command that leads to a database host, asking it one thing, reading one reply.
//!
//! **Invariant:** no reply is never a yes: it is `Unclear`, or `Unreachable` when the host was not reached at all.
//! **Invariant:** what is ended here, on a time-out or when nobody waits any more, is the process group on this
//! machine; what goes on at the host is found out by asking again.

use std::process::Stdio;
use std::time::Duration;

use lifeboat_core::{Fault, FaultKind};
use lifeboat_engine::program::{PATH, kill_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::command;
use crate::host::program::tail;
use crate::host::protocol::{Done, Reply, Request};

/// The most bytes of standard output that are looked through for a reply.
const LONGEST_OUTPUT: u64 = 1 << 20;

/// The most bytes of a line of the host's log that are shown, and the most lines.
const LONGEST_LINE: u64 = 4 << 10;
const MOST_LINES: usize = 1000;

/// What ssh ends with when it did not reach the host.
const NOT_REACHED: i32 = 255;

/// The command that leads to a database host, for example `ssh -oBatchMode=yes postgres@db-east lifeboat host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCommand {
    /// Program and arguments, never a shell. `{region}` and `{epoch}` are replaced in each of them.
    pub argv: Vec<String>,
    /// How long one act may take.
    pub timeout: Duration,
}

/// A child whose whole group goes with it.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // No id: it has ended and was waited for, and its number may be another's by now.
        kill_group(self.0.id());
    }
}

impl HostCommand {
    /// Asks the host. Repeating the same request is safe: the host looks first.
    ///
    /// # Errors
    /// What the host answered; `Unreachable` when it was not reached; `Unclear` when it did not answer.
    pub async fn ask(&self, request: &Request) -> Result<Done, Fault> {
        let asked = tokio::time::timeout(self.timeout, self.converse(request)).await;
        let reply = asked.unwrap_or_else(|_| {
            let detail = format!("{} did not answer within {} ms", self.program(), self.timeout.as_millis());
            Err(Fault::new(FaultKind::Unclear, detail))
        });
        reply.map_err(|fault| if fault.region.is_none() { fault.in_region(&request.region) } else { fault })
    }

    fn program(&self) -> &str {
        self.argv.first().map_or("the host command", String::as_str)
    }

    async fn converse(&self, request: &Request) -> Result<Done, Fault> {
        let unclear = |detail: String| Fault::new(FaultKind::Unclear, detail);
        let mut line = serde_json::to_vec(request).map_err(|error| unclear(error.to_string()))?;
        line.push(b'\n');
        let mut group = Group(self.start(request)?);
        let child = &mut group.0;
        let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A host that hangs up early is judged by what it answers.
                let _ = stdin.write_all(&line).await;
            }
        };
        let ((), reply, (), status) = tokio::join!(write, find_reply(out), log(err, request), child.wait());
        let status = status
            .map_err(|error| unclear(format!("the end of {} was not seen: {error}", self.program())))?;
        match (reply, status.code()) {
            (Some(Reply::Done(done)), Some(0)) => Ok(done),
            (Some(Reply::Failed(fault)), Some(0)) => Err(fault),
            (None, Some(NOT_REACHED)) => {
                let detail = format!("{} ended with exit code 255: the host was not reached", self.program());
                Err(Fault::new(FaultKind::Unreachable, detail))
            }
            (reply, code) => {
                let how = code.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
                let what = if reply.is_some() { "after a reply" } else { "without a reply" };
                Err(unclear(format!("{} ended {what}, with {how}", self.program())))
            }
        }
    }

    fn start(&self, request: &Request) -> Result<Child, Fault> {
        let argv = command::argv(&self.argv, &request.region, request.epoch);
        let (program, arguments) = argv
            .split_first()
            .ok_or_else(|| Fault::new(FaultKind::Refused, "the command to the database host is empty"))?;
        let mut command = Command::new(program);
        command.env_clear();
        if let Some(home) = std::env::var_os("HOME") {
            command.env("HOME", home);
        }
        command
            .args(arguments)
            .env("PATH", PATH)
            .env("LIFEBOAT_REGION", request.region.as_str())
            .env("LIFEBOAT_EPOCH", request.epoch.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .map_err(|error| {
                Fault::new(FaultKind::Unreachable, format!("{program} cannot be started: {error}"))
            })
    }
}

/// The first line that is a reply: a login may greet before it.
async fn find_reply(pipe: Option<impl AsyncRead + Unpin>) -> Option<Reply> {
    let mut pipe = pipe?;
    let mut text = Vec::new();
    let read = (&mut pipe).take(LONGEST_OUTPUT).read_to_end(&mut text).await;
    if read.is_ok() {
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    text.split(|&byte| byte == b'\n').find_map(|line| serde_json::from_slice(line).ok())
}

/// Hands the host's log on to ours.
async fn log(pipe: Option<impl AsyncRead + Unpin>, request: &Request) {
    let Some(pipe) = pipe else { return };
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    for _ in 0..MOST_LINES {
        line.clear();
        match (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let said = tail(&String::from_utf8_lossy(&line));
                tracing::info!(region = %request.region, database = %request.database, %said, "the host says");
            }
        }
    }
    let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
}

#[cfg(test)]
mod tests {
    use lifeboat_core::{Epoch, SystemIdentifier};

    use super::*;
    use crate::host::protocol::{Act, VERSION};

    async fn ask(line: &str, limit: Duration) -> Result<Done, Fault> {
        let request = Request {
            version: VERSION,
            workload: "shop".into(),
            database: "orders".into(),
            region: "east".into(),
            run: "shop-e7".into(),
            agent: "bastion".into(),
            epoch: Epoch::new(7),
            system: SystemIdentifier::new(1),
            limit_ms: 1000,
            act: Act::Stop,
        };
        let argv = ["sh", "-c", line].map(str::to_owned).to_vec();
        HostCommand { argv, timeout: limit }.ask(&request).await
    }

    const PATIENCE: Duration = Duration::from_secs(20);
    const STOPPED: &str = r#"echo '{"done":{"stopped":{"already":true}}}'"#;

    #[tokio::test]
    async fn a_reply_counts_when_the_command_ends_well() {
        let greeted = format!("cat >&2; echo welcome; {STOPPED}");
        assert_eq!(ask(&greeted, PATIENCE).await.unwrap(), Done::Stopped { already: true });
        let refused = r#"echo '{"failed":{"kind":"stale","region":null,"detail":"no"}}'"#;
        assert_eq!(ask(refused, PATIENCE).await.unwrap_err().kind, FaultKind::Stale);
        for (line, kind) in [
            (format!("{STOPPED}; exit 1"), FaultKind::Unclear),
            ("exit 0".to_owned(), FaultKind::Unclear),
            ("exit 255".to_owned(), FaultKind::Unreachable),
            ("echo '{\"done\":{\"stop'".to_owned(), FaultKind::Unclear),
        ] {
            assert_eq!(ask(&line, PATIENCE).await.unwrap_err().kind, kind, "{line}");
        }
    }

    #[tokio::test]
    async fn one_that_is_silent_is_ended_with_all_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let line = format!("sleep 600 & echo $! > {}; wait", pid.display());
        assert_eq!(ask(&line, Duration::from_millis(500)).await.unwrap_err().kind, FaultKind::Unclear);
        let child = std::fs::read_to_string(&pid).unwrap();
        let stat = std::path::PathBuf::from(format!("/proc/{}/stat", child.trim()));
        let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        for _ in 0..1000 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the child of the command goes on");
    }
}
