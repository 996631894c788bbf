//! Running a program of the operator's once, to its end.
//!
//! **Invariant:** no shell, no inherited environment, no unbounded output, no unbounded time.
//! **Invariant:** only exit code 0 is success; a program that was killed may have had its effect.
//! **Invariant:** what is kept of its output holds no value of the environment that it was given.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use lifeboat_core::{Fault, FaultKind, time};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Bytes that are taken of each of its outputs; the rest is read and thrown away.
const LONGEST_OUTPUT: u64 = 64 << 10;

/// Characters of it that are kept: the end, where programs say what came of it.
const KEPT: usize = 500;

/// How long output is awaited once the program has ended: a child of it may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Where the program and what it calls are looked for.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Values shorter than this are words of their own and not secrets.
const SHORTEST_SECRET: usize = 6;

/// Runs `argv` with `env` and PATH as its whole environment, for at most `limit`; the end of what it said.
///
/// # Errors
/// `Refused` when it cannot be started, `Unclear` when it failed or did not end: it may have done part of its work.
pub(crate) async fn run(
    argv: &[String],
    env: &BTreeMap<String, String>,
    limit: Duration,
) -> Result<String, Fault> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Fault::new(FaultKind::Refused, "the command is empty"));
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        // Its own group: what it started must not go on beside the next attempt.
        .process_group(0)
        .spawn()
        .map_err(|error| Fault::new(FaultKind::Refused, format!("{program} cannot be started: {error}")))?;
    let out = tokio::spawn(listen(child.stdout.take()));
    let err = tokio::spawn(listen(child.stderr.take()));
    let Ok(ended) = tokio::time::timeout(limit, child.wait()).await else {
        kill_group(child.id());
        // What comes of this changes nothing: it may have had its effect.
        let _ = child.kill().await;
        let detail = format!("{program} did not end within {} and was killed", time::length(limit));
        return Err(Fault::new(FaultKind::Unclear, detail));
    };
    let said = async { (out.await.unwrap_or_default(), err.await.unwrap_or_default()) };
    let (out, err) = tokio::time::timeout(LAST_WORDS, said).await.unwrap_or_default();
    match ended {
        Ok(status) if status.success() => Ok(kept(&out, env)),
        Ok(status) => {
            let detail = format!("{program} failed ({status}): {}", kept(&err, env));
            Err(Fault::new(FaultKind::Unclear, detail))
        }
        Err(error) => {
            Err(Fault::new(FaultKind::Unclear, format!("the end of {program} was not seen: {error}")))
        }
    }
}

/// Ends the process group that the process of this id leads.
pub fn kill_group(leader: Option<u32>) {
    let group = leader.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // The leader itself is ended apart from this, whatever comes of it.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// Takes as much as is allowed, and reads on: a program must not be stopped by a full pipe.
async fn listen(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut pipe) = pipe else { return Vec::new() };
    let mut said = Vec::new();
    // What was read before an error is what it said.
    let _ = (&mut pipe).take(LONGEST_OUTPUT).read_to_end(&mut said).await;
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    said
}

/// The end of an output as one line, without the values of the environment.
fn kept(said: &[u8], env: &BTreeMap<String, String>) -> String {
    let mut text = String::from_utf8_lossy(said).trim().to_owned();
    for (name, value) in env.iter().filter(|(_, value)| value.len() >= SHORTEST_SECRET) {
        text = text.replace(value, &format!("<{name}>"));
    }
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let length = line.chars().count();
    line.chars().skip(length.saturating_sub(KEPT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    async fn shell(line: &str, env: &[(&str, &str)], limit: Duration) -> Result<String, Fault> {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        run(&argv(&["sh", "-c", line]), &env, limit).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_it_said_is_kept_without_what_it_was_given() {
        let said = shell("echo token is $TOKEN", &[("TOKEN", "s3cret-value")], LONG).await.unwrap();
        assert_eq!(said, "token is <TOKEN>");
        assert_eq!(shell("env | cut -d= -f1 | sort | tr '\\n' ' '", &[], LONG).await.unwrap(), "PATH PWD");
    }

    #[tokio::test]
    async fn a_failure_says_why_and_is_unclear() {
        let fault = shell("echo the pool is empty >&2; exit 3", &[], LONG).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Unclear);
        assert!(fault.detail.contains("exit status: 3") && fault.detail.contains("the pool is empty"));
        let absent = run(&argv(&["/nowhere/at/all"]), &BTreeMap::new(), LONG).await.unwrap_err();
        assert_eq!(absent.kind, FaultKind::Refused);
        assert_eq!(run(&[], &BTreeMap::new(), LONG).await.unwrap_err().kind, FaultKind::Refused);
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("pid");
        let line = format!("sleep 600 & echo $! > {}; wait", mark.display());
        let fault = shell(&line, &[], Duration::from_millis(500)).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Unclear);
        let pid: i32 = std::fs::read_to_string(mark).unwrap().trim().parse().unwrap();
        let gone = async {
            while std::path::Path::new(&format!("/proc/{pid}/cmdline")).exists()
                && !std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().is_empty()
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, gone).await.unwrap();
    }

    #[tokio::test]
    async fn a_flood_of_output_is_cut() {
        let said = shell("yes 0123456789 | head -c 10000000; echo; echo end", &[], LONG).await.unwrap();
        assert_eq!(said.chars().count(), KEPT);
    }
}
