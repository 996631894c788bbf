//! Running the command that isolates a region.
//!
//! **Invariant:** no shell, no inherited environment, no unbounded output, no unbounded time.
//! **Invariant:** only exit code 0 is success.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use lifeboat_core::{Epoch, Fault, FaultKind, RegionName};
use lifeboat_engine::program::{PATH, kill_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Bytes kept of what the command says on standard error.
const LONGEST_OUTPUT: u64 = 64 << 10;

/// Characters of it that are shown: the end, where programs say why they failed.
const SHOWN: usize = 300;

/// How long output is awaited once the command has ended: a child of it may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The command's argv for a region and an epoch.
pub(crate) fn argv(written: &[String], region: &RegionName, epoch: Epoch) -> Vec<String> {
    let fill =
        |part: &String| part.replace("{region}", region.as_str()).replace("{epoch}", &epoch.to_string());
    written.iter().map(fill).collect()
}

/// Runs `argv` to its end, for at most `limit`.
pub(crate) async fn run(
    argv: &[String],
    region: &RegionName,
    epoch: Epoch,
    limit: Duration,
) -> Result<(), Fault> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Fault::new(FaultKind::Refused, "the isolate command is empty"));
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LIFEBOAT_REGION", region.as_str())
        .env("LIFEBOAT_EPOCH", epoch.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        // Its own group: what it started must not go on beside the next attempt.
        .process_group(0)
        .spawn()
        .map_err(|error| Fault::new(FaultKind::Refused, format!("{program} cannot be started: {error}")))?;
    let listener = child.stderr.take().map(|stderr| tokio::spawn(listen(stderr)));
    let ended = tokio::time::timeout(limit, child.wait()).await;
    if ended.is_err() {
        // Its effect may be there already; whether it is, only another run or a person can tell.
        kill_group(child.id());
        let killed = child.kill().await;
        let fate = if killed.is_ok() { "killed" } else { "left running, for it cannot be killed" };
        let detail = format!("{program} did not end within {} ms and was {fate}", limit.as_millis());
        return Err(Fault::new(FaultKind::Unclear, detail));
    }
    let said = match listener {
        Some(listener) => tokio::time::timeout(LAST_WORDS, listener).await.ok().and_then(Result::ok),
        None => None,
    };
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(program, status, &said.unwrap_or_default())),
        _ => Err(Fault::new(FaultKind::Unclear, format!("{program} was started, and its end was not seen"))),
    }
}

fn failed(program: &str, status: ExitStatus, said: &str) -> Fault {
    let how = match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => "was ended by a signal".to_owned(),
    };
    let detail =
        if said.is_empty() { format!("{program} {how}") } else { format!("{program} {how}: {said}") };
    Fault::new(FaultKind::Refused, detail)
}

/// The end of what comes out of `pipe`. What is past the bound is read and dropped: a full pipe would stop the
/// command.
async fn listen(mut pipe: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let bounded = (&mut pipe).take(LONGEST_OUTPUT).read_to_end(&mut kept).await;
    if bounded.is_ok() {
        let drained = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
        drop(drained); // A broken pipe ends it as well as the end does.
    }
    let text = String::from_utf8_lossy(&kept);
    let text: Vec<char> = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text[text.len().saturating_sub(SHOWN)..].iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run_line(line: &[&str], limit: Duration) -> Result<(), Fault> {
        let argv: Vec<String> = line.iter().map(|&part| part.to_owned()).collect();
        run(&argv, &RegionName::new("east"), Epoch::new(7), limit).await
    }

    #[test]
    fn placeholders_are_filled_in() {
        let written = ["isolate", "{region}", "--epoch={epoch}"].map(str::to_owned);
        let filled = argv(&written, &RegionName::new("east"), Epoch::new(7));
        assert_eq!(filled, ["isolate", "east", "--epoch=7"]);
    }

    #[tokio::test]
    async fn only_exit_code_0_is_success() {
        let limit = Duration::from_secs(10);
        run_line(&["sh", "-c", "test \"$LIFEBOAT_REGION-$LIFEBOAT_EPOCH\" = east-7"], limit).await.unwrap();
        let fault = run_line(&["sh", "-c", "echo no such region >&2; exit 3"], limit).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Refused);
        assert_eq!(fault.detail, "sh ended with exit code 3: no such region");
        let fault = run_line(&["/nowhere/isolate"], limit).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Refused);
    }

    #[tokio::test]
    async fn the_environment_is_not_inherited() {
        // Cargo sets this for tests; a secret in our environment would be handed on as well.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        run_line(&["sh", "-c", "test -z \"$CARGO_MANIFEST_DIR\""], Duration::from_secs(10)).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_killed_and_unclear() {
        let fault = run_line(&["sleep", "600"], Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Unclear);
    }

    #[tokio::test]
    async fn a_flood_of_output_is_neither_kept_nor_waited_for() {
        let flood = "head -c 3000000 /dev/zero | tr '\\0' 'x' >&2; exit 1";
        let fault = run_line(&["sh", "-c", flood], Duration::from_secs(20)).await.unwrap_err();
        assert!(fault.detail.len() < SHOWN + 100, "{}", fault.detail.len());
        // A grandchild that keeps the pipe open does not keep us.
        run_line(&["sh", "-c", "sleep 600 >&2 & exit 0"], Duration::from_secs(20)).await.unwrap();
    }
}
