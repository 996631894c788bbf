//! Running PostgreSQL's own programs: they are the judges of what is in a data folder.
//!
//! **Invariant:** no shell, nothing of our environment but where home and the passfile are, messages untranslated.
//! **Invariant:** a program's output is bounded, and its pipes are always read: none ends because nobody listens.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use lifeboat_core::{Fault, FaultKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use lifeboat_engine::program::PATH;

/// Bytes kept of what a program says.
const LONGEST_OUTPUT: u64 = 8 << 20;

/// Characters of its last words that are shown.
const SHOWN: usize = 300;

/// What came of a program.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit code; none when a signal ended it.
    pub(super) code: Option<i32>,
    /// What it wrote on standard output.
    pub(super) out: String,
    /// The end of what it wrote on standard error, on one line, for people.
    pub(super) said: String,
}

impl Ended {
    pub(super) fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Its failure in a sentence.
    pub(super) fn failure(&self, program: &str) -> String {
        let how = self
            .code
            .map_or("was ended by a signal".to_owned(), |code| format!("ended with exit code {code}"));
        if self.said.is_empty() {
            format!("{program} {how}")
        } else {
            format!("{program} {how}: {}", self.said)
        }
    }
}

/// A program with its environment, and nothing on its standard input.
pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
    for kept in ["HOME", "PGPASSFILE"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Starts it.
pub(super) fn start(command: &mut Command) -> Result<Child, Fault> {
    command.spawn().map_err(|error| {
        let program = Path::new(command.as_std().get_program()).display().to_string();
        let hint = "are `programs`, `start` and `stop` right in host.toml?";
        Fault::new(FaultKind::Refused, format!("{program} cannot be started: {error}; {hint}"))
    })
}

/// Runs it to its end.
pub(super) async fn run(command: &mut Command) -> Result<Ended, Fault> {
    finish(start(command)?, None).await
}

/// Runs it to its end, with a text on its standard input.
pub(super) async fn tell(command: &mut Command, text: String) -> Result<Ended, Fault> {
    finish(start(command.stdin(Stdio::piped()))?, Some(text)).await
}

/// Waits for the end of a child, reading all that it says.
async fn finish(mut child: Child, text: Option<String>) -> Result<Ended, Fault> {
    let stdin = child.stdin.take();
    let write = async {
        if let (Some(mut stdin), Some(text)) = (stdin, text) {
            // A program that ends before it has read all says why itself.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
    };
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ((), out, err, status) = tokio::join!(write, listen(out), listen(err), child.wait());
    let status = status.map_err(|error| {
        Fault::new(FaultKind::Unclear, format!("the end of a program was not seen: {error}"))
    })?;
    let said = tail(&err);
    if !said.is_empty() {
        tracing::debug!(%said, "a program said");
    }
    Ok(Ended { code: status.code(), out, said })
}

/// What comes out of a pipe, up to the bound; the rest is read and dropped.
async fn listen(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe
        && (&mut pipe).take(LONGEST_OUTPUT).read_to_end(&mut kept).await.is_ok()
    {
        // A broken pipe ends it as well as the end does.
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The end of a text, on one line.
pub(super) fn tail(text: &str) -> String {
    let text: Vec<char> = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text[text.len().saturating_sub(SHOWN)..].iter().collect()
}
