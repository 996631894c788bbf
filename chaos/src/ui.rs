//! All that `chaos` prints.
//!
//! On a terminal: colours and a line that counts the time without service. Otherwise, or with `NO_COLOR`
//! (no-color.org), plain lines that read the same.
//!
//! **Invariant:** a reader who went away (a closed pipe) ends the printing, not the show: what was started is
//! still taken down in order.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use lifeboat_chaos::html::{counted, spoken};
use lifeboat_chaos::report::moves::Median;
use lifeboat_chaos::report::{Report, Run};

/// One line of result.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// What went wrong, with its causes.
pub(crate) fn failed(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "chaos: {error:#}");
}

/// The colours of the show.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tone {
    /// Good news.
    Good,
    /// Bad news.
    Bad,
    /// A milestone of lifeboat.
    Deed,
    /// Beside the point.
    Soft,
    /// The headline.
    Strong,
}

/// The show of a demo. A silent one prints nothing (`--json` owns the output).
#[derive(Debug)]
pub(crate) struct Stage {
    silent: bool,
    colours: bool,
    live: Option<ProgressBar>,
}

impl Stage {
    pub(crate) fn new(silent: bool) -> Stage {
        let terminal = std::io::stdout().is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none();
        Stage { silent, colours, live: None }
    }

    /// Whether the output is a terminal that can show a moving line.
    fn moving(&self) -> bool {
        !self.silent && self.colours
    }

    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32;1",
            Tone::Bad => "31;1",
            Tone::Deed => "36;1",
            Tone::Soft => "2",
            Tone::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A line of the show, above the moving one.
    pub(crate) fn say(&self, text: &str) {
        match &self.live {
            _ if self.silent => {}
            Some(live) => live.println(text),
            None => line(text),
        }
    }

    /// Starts a moving line; without a terminal nothing moves.
    pub(crate) fn move_line(&mut self, text: &str) {
        if self.moving() {
            let style = ProgressStyle::with_template("  {spinner:.cyan} {msg}");
            let live = ProgressBar::new_spinner()
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            live.set_message(text.to_owned());
            live.enable_steady_tick(Duration::from_millis(80));
            self.live = Some(live);
        }
    }

    /// Changes the moving line.
    pub(crate) fn update(&self, text: String) {
        if let Some(live) = &self.live {
            live.set_message(text);
        }
    }

    /// Takes the moving line away.
    pub(crate) fn still(&mut self) {
        if let Some(live) = self.live.take() {
            live.finish_and_clear();
        }
    }

    /// A stage of the preparation that is done.
    pub(crate) fn done(&self, what: &str, took: Duration) {
        let took = self.paint(Tone::Soft, &spoken(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)));
        self.say(&format!("  {} {what:<58} {took}", self.paint(Tone::Good, "✓")));
    }

    /// One moment of the timeline; a moment before the loss is shown as 0.
    pub(crate) fn moment(&self, since_ms: u64, tone: Tone, title: &str, detail: &str) {
        let at = format!("+{}.{:03} s", since_ms / 1000, since_ms % 1000);
        let mark = match tone {
            Tone::Good => "✓",
            Tone::Bad => "✗",
            Tone::Deed => "●",
            Tone::Soft | Tone::Strong => "·",
        };
        let head = self.paint(tone, &format!("{mark} {title:<20}"));
        self.say(format!("  {:>10}  {head} {}", at, self.paint(Tone::Soft, detail)).trim_end());
    }

    /// Who saw what when it was decided; nothing for one agent alone.
    pub(crate) fn sight(&self, run: &Run) {
        let Some(sight) = &run.sight else { return };
        let regions = sight.regions();
        let heads: String = regions.iter().map(|region| format!(" {region:<16}")).collect();
        self.say("");
        self.say(self.paint(Tone::Strong, &format!("  {:<10} {:<12}{heads}", "agent", "heard")).trim_end());
        for (name, vantage) in &sight.vantages {
            let heard =
                vantage.heard_ms.map_or_else(|| "never".to_owned(), |ms| format!("{} ago", spoken(ms)));
            let cells: String =
                regions.iter().map(|region| format!(" {:<16}", sight.cell(name, region))).collect();
            self.say(format!("  {name:<10} {heard:<12}{cells}").trim_end());
        }
    }

    /// What was held against what was promised.
    pub(crate) fn verdict(&self, run: &Run, ok: bool) {
        let meter = |held: u64, objective: u64| {
            let full = held.saturating_mul(24).div_ceil(objective.max(1)).min(24);
            let full = usize::try_from(full).unwrap_or(24);
            let tone = if held <= objective { Tone::Good } else { Tone::Bad };
            format!(
                "{}{}",
                self.paint(tone, &"■".repeat(full)),
                self.paint(Tone::Soft, &"·".repeat(24 - full))
            )
        };
        let rto = run.rto_held_ms.map_or_else(|| "never".to_owned(), spoken);
        let held = run.rto_held_ms.unwrap_or(u64::MAX);
        self.say("");
        self.say(&format!(
            "  RTO held    {:>9}  {}  objective {}",
            rto,
            meter(held, run.rto_objective_ms),
            spoken(run.rto_objective_ms)
        ));
        self.say(&format!(
            "  RPO held    {:>9}  {}  objective {}",
            spoken(run.rpo_held_ms),
            meter(run.rpo_held_ms, run.rpo_objective_ms),
            spoken(run.rpo_objective_ms)
        ));
        let lost = if run.lost_writes == 0 { Tone::Good } else { Tone::Bad };
        self.say(&format!(
            "  writes lost {}  of {} acknowledged; {} were refused while nobody served",
            self.paint(lost, &format!("{:>9}", counted(run.lost_writes))),
            counted(run.acknowledged_writes),
            counted(run.failed_writes)
        ));
        if !run.reference_intact {
            self.say(&self.paint(Tone::Bad, "  the reference table is not what it was"));
        }
        if let Some(stuck) = &run.stuck {
            self.say(&self.paint(Tone::Bad, &format!("  lifeboat did not finish: {stuck}")));
        }
        let verdict = if ok {
            self.paint(Tone::Good, "  The region was lost and survived, within both objectives.")
        } else {
            self.paint(Tone::Bad, "  The promise was not held.")
        };
        self.say("");
        self.say(&verdict);
    }

    /// Several runs in a table.
    pub(crate) fn runs(&self, report: &Report) {
        let Some(median) = &report.failover.median else { return };
        self.say("");
        self.say(&self.paint(
            Tone::Strong,
            "  run   RTO held   RPO held   writes lost   promotion   fence            decided by",
        ));
        for (number, run) in report.failover.runs.iter().enumerate() {
            self.say(&format!(
                "  {:>3}   {:>8}   {:>8}   {:>11}   {:>9}   {:<14}   {}",
                number + 1,
                run.rto_held_ms.map_or_else(|| "never".to_owned(), spoken),
                spoken(run.rpo_held_ms),
                counted(run.lost_writes),
                run.promotion_ms.map_or_else(|| "none".to_owned(), spoken),
                run.proof.as_deref().unwrap_or("none"),
                run.decided_by.as_deref().unwrap_or("the agent"),
            ));
        }
        self.say(&format!(
            "  median RTO {}, longest {}; {} writes lost in all",
            spoken(median.rto_held_ms),
            spoken(median.worst_rto_held_ms),
            counted(median.lost_writes)
        ));
        if let Some((failback, switchover)) = report.failback.as_ref().zip(report.switchover.as_ref()) {
            self.median("failback", failback.median.as_ref());
            self.median("switchover", switchover.median.as_ref());
        }
    }

    /// What several planned moves held.
    pub(crate) fn median(&self, what: &str, median: Option<&Median>) {
        let Some(median) = median else { return };
        let never = |ms| if ms == u64::MAX { "never".to_owned() } else { spoken(ms) };
        let rejoin =
            median.rejoin_ms.zip(median.worst_rejoin_ms).map_or_else(String::new, |(middle, worst)| {
                format!("; streaming again after {}, longest {}", never(middle), never(worst))
            });
        self.say(&format!(
            "  median {what} gap {}, longest {}; {} writes lost in all{rejoin}",
            never(median.write_gap_ms),
            never(median.worst_write_gap_ms),
            counted(median.lost_writes)
        ));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.still();
    }
}
