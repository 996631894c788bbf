//! `chaos run`: scenarios acted out on real servers, agents and sentries.

use std::path::PathBuf;

use lifeboat_chaos::enactment::{Judged, Options, enact};
use lifeboat_chaos::html::spoken;
use lifeboat_chaos::scenario::{self, Scenario};
use serde_json::json;
use tokio::sync::Semaphore;

use super::simulate::named;
use crate::ui::{self, Stage, Tone};

/// Acts scenarios out on real PostgreSQL, etcd and lifeboat, and judges what came of them.
///
/// The same files run in the pretend world with `chaos simulate`. Each is run in a lab of its own, on loopback. Without
/// a name all shipped scenarios are run.
///
/// Exits 0 when all came out as they should, 7 when one did not, 1 when a lab could not be built.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Names of shipped scenarios (`chaos list`), or files.
    scenario: Vec<String>,
    /// How many labs at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    at_once: u8,
    /// Print the result as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Keep the labs' folders with their data and logs, and say where they are.
    #[arg(long)]
    keep: bool,
    /// The lifeboat program [default: beside this one].
    #[arg(long, env = "LIFEBOAT_BIN")]
    lifeboat: Option<PathBuf>,
}

impl Run {
    pub(crate) async fn run(self) -> anyhow::Result<u8> {
        let stage = Stage::new(self.json);
        let wanted = self.scenarios()?;
        let options = Options { lifeboat: self.lifeboat.clone(), chaos: None, keep: self.keep };
        let seats = Semaphore::new(usize::from(self.at_once));
        let each = wanted.iter().map(|scenario| async {
            let _seat = seats.acquire().await;
            let name = &scenario.name;
            let judged = enact(scenario, &options, |what| stage.say(&format!("  {name:<20} {what}"))).await;
            match &judged {
                Ok(judged) => tell(&stage, judged),
                Err(error) => stage.say(&stage.paint(Tone::Bad, &format!("✗ {name:<20} {error}"))),
            }
            judged.map_err(|error| anyhow::Error::from(error).context(format!("scenario {name}")))
        });
        let (mut all, mut broken) = (Vec::new(), Vec::new());
        for judged in futures::future::join_all(each).await {
            match judged {
                Ok(judged) => all.push(judged),
                Err(error) => broken.push(error),
            }
        }
        let ok = all.iter().all(Judged::ok);
        if self.json {
            ui::line(&serde_json::to_string_pretty(&json!({ "version": 1, "ok": ok, "scenarios": all }))?);
        }
        let passed = all.iter().filter(|judged| judged.ok()).count();
        stage.say(&format!("{passed} of {} scenarios came out as they should", wanted.len()));
        // What else could not be acted out was told as it came.
        if let Some(error) = broken.into_iter().next() {
            return Err(error);
        }
        Ok(if ok { 0 } else { 7 })
    }

    fn scenarios(&self) -> anyhow::Result<Vec<Scenario>> {
        if self.scenario.is_empty() {
            return Ok(scenario::shipped()?);
        }
        self.scenario.iter().map(|name| named(name)).collect()
    }
}

fn tell(stage: &Stage, judged: &Judged) {
    let moved =
        judged.moved_after_ms.map_or_else(|| "stays".to_owned(), |ms| format!("moved in {}", spoken(ms)));
    let text = format!(
        "{} {:<20} {moved}, {} writes lost, {} by a second writer",
        if judged.ok() { "✓" } else { "✗" },
        judged.scenario,
        judged.lost,
        judged.second_writer
    );
    stage.say(&stage.paint(if judged.ok() { Tone::Good } else { Tone::Bad }, &text));
    for violation in &judged.violations {
        stage.say(&stage.paint(Tone::Bad, &format!("    {violation}")));
    }
    if !judged.ok() {
        let told: Vec<&str> = judged.told.iter().map(String::as_str).collect();
        stage.say(&stage.paint(Tone::Soft, &format!("    people were told: {}", told.join(", "))));
    }
}
