//! A sentry whose coordinator is a folder: what the tests run beside a real server, as processes they can freeze and kill.
//!
//! `answer` in the folder says what each renewal meets: `held 7`, `not-ours 8 west`, `coming 8 east`, `closing 7 east`, `tended 8 east`,
//! `unknown`, `unreachable`, `denied` or `hang`. Each renewal is noted in `renewals`, with the moment it came.

#![expect(clippy::unwrap_used, reason = "a test's own program fails by panicking")]

#[path = "../tests/stand/seal.rs"]
mod seal;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lifeboat_core::head::{Guarded, Head};
use lifeboat_core::{Epoch, RegionName, WorkloadName};
use lifeboat_engine::ports::{CoordinationError, Renewal, WriteLeases};
use lifeboat_sentry::boottime::Boottime;
use lifeboat_sentry::{Sentry, Settings, keeper, switch};
use tokio_util::sync::CancellationToken;

struct Folder(PathBuf);

#[async_trait]
impl WriteLeases for Folder {
    async fn renew(
        &self,
        _: &WorkloadName,
        _: &RegionName,
        _: Duration,
        says: Guarded,
    ) -> Result<Renewal, CoordinationError> {
        let came = Boottime::now().since(Boottime::default()).as_nanos();
        let answer = fs::read_to_string(self.0.join("answer")).unwrap();
        let says = serde_json::to_value(says).unwrap();
        let mut log = fs::OpenOptions::new().create(true).append(true).open(self.0.join("renewals")).unwrap();
        writeln!(log, "{came} {} {}", says.as_str().unwrap(), answer.trim()).unwrap();
        let words: Vec<&str> = answer.split_whitespace().collect();
        let epoch = |text: &str| Epoch::new(text.parse().unwrap());
        let head = |number: &str, holder: &str| Head {
            epoch: epoch(number),
            holder: RegionName::new(holder),
            closing: false,
            coming: None,
            tended: None,
        };
        let not_ours = |head: Head| Ok(Renewal::NotOurs(head));
        match words[..] {
            ["held", number] => Ok(Renewal::Held { epoch: epoch(number) }),
            ["not-ours", number, holder] => not_ours(head(number, holder)),
            ["closing", number, holder] => not_ours(Head { closing: true, ..head(number, holder) }),
            ["coming", number, coming] => {
                not_ours(Head { closing: true, coming: Some(coming.into()), ..head(number, "elsewhere") })
            }
            ["tended", number, tended] => {
                not_ours(Head { tended: Some(tended.into()), ..head(number, "elsewhere") })
            }
            ["unknown"] => Ok(Renewal::Unknown),
            ["unreachable"] => Err(CoordinationError::Unreachable("so the test says".to_owned())),
            ["denied"] => Err(CoordinationError::Denied("so the test says".to_owned())),
            ["hang"] => std::future::pending().await,
            _ => panic!("what is `{answer}`?"),
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let settings = Settings::load(arguments[1].as_ref()).unwrap();
    if arguments.get(2).is_some_and(|word| word == "--switch") {
        return switch::run(&settings).unwrap();
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let folder = PathBuf::from(settings.lease["folder"].as_str().unwrap());
    // A test may want a switch that cannot be started.
    let program = settings.lease.get("switch").and_then(|program| program.as_str());
    let program = program.map_or_else(|| std::env::current_exe().unwrap(), PathBuf::from);
    let sentry = Sentry {
        leases: Arc::new(Folder(folder)),
        seal: Arc::new(seal::Named::new(settings.name())),
        switch: vec![program.into(), arguments[1].clone().into(), "--switch".into()],
        settings,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        let told = stop.clone();
        tokio::spawn(async move {
            term.recv().await;
            told.cancel();
        });
        keeper::run(sentry, stop).await.unwrap();
    });
}
