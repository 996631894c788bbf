//! The picture of a run: the client's writes over time, and beneath them what lifeboat was doing.
//!
//! **Invariant:** one scale for all of it: what stands above another happened at the same time.

use std::fmt::Write;

use super::spoken;
use crate::report::{Run, Traffic};
use crate::timeline::Milestone;

/// The size of the drawing, in its own units.
const WIDTH: f64 = 1080.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 1066.0;
/// Where bars of acknowledged writes stand, and how high the highest is.
const FLOOR: f64 = 200.0;
const HIGHEST: f64 = 150.0;
/// Failed writes hang below the floor.
const DEEPEST: f64 = 34.0;
/// The band of phases.
const BAND: f64 = 268.0;
/// The first milestone label, and the step to the next.
const LABELS: f64 = 338.0;
const STEP: f64 = 22.0;

struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    fn x(&self, ms: f64) -> f64 {
        LEFT + (ms.clamp(self.from, self.to) - self.from) / (self.to - self.from) * (RIGHT - LEFT)
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a few minutes are exact in 53 bits")]
fn real(ms: i64) -> f64 {
    ms as f64
}

fn since(at_ms: u64, lost_ms: u64) -> f64 {
    real(i64::try_from(at_ms).unwrap_or(i64::MAX) - i64::try_from(lost_ms).unwrap_or(0))
}

/// The drawing, as SVG.
pub(super) fn draw(run: &Run) -> String {
    let buckets = i64::try_from(run.traffic.east.len()).unwrap_or(0);
    let to = real(run.traffic.from_ms + buckets * Traffic::BUCKET_MS).max(1_000.0);
    let scale = Scale { from: -2_000.0, to };
    let height = LABELS + STEP * f64::from(u8::try_from(run.milestones.len()).unwrap_or(u8::MAX)) + 6.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Writes over time and the phases of the failover\">"
    );
    axis(&mut svg, &scale);
    bars(&mut svg, &scale, &run.traffic);
    moments(&mut svg, &scale, run);
    band(&mut svg, &scale, run);
    labels(&mut svg, &scale, run);
    svg + "</svg>"
}

fn axis(svg: &mut String, scale: &Scale) {
    // About ten marks, at a round number of seconds.
    let span = (scale.to - scale.from) / 1_000.0;
    let every =
        [1.0, 2.0, 5.0, 10.0, 20.0, 60.0].into_iter().find(|every| span / every <= 14.0).unwrap_or(300.0);
    let mut second = (scale.from / 1_000.0 / every).ceil() * every;
    while second * 1_000.0 <= scale.to {
        let x = scale.x(second * 1_000.0);
        let _ = write!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"44\" y2=\"{FLOOR}\" stroke=\"var(--line)\"/>\
             <text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second} s</text>",
            FLOOR + DEEPEST + 20.0
        );
        second += every;
    }
    let _ = write!(
        svg,
        "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{FLOOR}\" y2=\"{FLOOR}\" stroke=\"var(--soft)\"/>"
    );
    let legend =
        [("var(--east)", "served by east"), ("var(--west)", "served by west"), ("var(--fail)", "not served")];
    for ((color, text), x) in legend.into_iter().zip([LEFT, LEFT + 150.0, LEFT + 300.0]) {
        let _ = write!(
            svg,
            "<rect x=\"{x}\" y=\"10\" width=\"12\" height=\"12\" rx=\"3\" fill=\"{color}\"/>\
             <text x=\"{}\" y=\"21\">{text}</text>",
            x + 18.0
        );
    }
}

fn bars(svg: &mut String, scale: &Scale, traffic: &Traffic) {
    let highest = traffic.east.iter().zip(&traffic.west).map(|(east, west)| east + west).max().unwrap_or(0);
    let highest = f64::from(highest.max(12));
    let _ = write!(
        svg,
        "<text class=\"soft\" x=\"{0}\" y=\"{1}\" text-anchor=\"end\">writes</text>\
         <text class=\"soft\" x=\"{0}\" y=\"{2}\" text-anchor=\"end\">/100 ms</text>",
        LEFT - 8.0,
        FLOOR - 14.0,
        FLOOR + 2.0
    );
    let width = (scale.x(f64::from(100)) - scale.x(0.0) - 1.0).max(0.6);
    let mut at = traffic.from_ms;
    for ((east, west), failed) in traffic.east.iter().zip(&traffic.west).zip(&traffic.failed) {
        if real(at) >= scale.from {
            let x = scale.x(real(at)) + 0.5;
            let mut bar = |y: f64, height: f64, color: &str| {
                if height > 0.0 {
                    let _ = write!(
                        svg,
                        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"var(--{color})\"/>"
                    );
                }
            };
            let (low, high) = (f64::from(*east) / highest * HIGHEST, f64::from(*west) / highest * HIGHEST);
            bar(FLOOR - low, low, "east");
            bar(FLOOR - low - high, high, "west");
            bar(FLOOR + 1.0, (f64::from(*failed) / highest * DEEPEST).min(DEEPEST), "fail");
        }
        at += Traffic::BUCKET_MS;
    }
}

/// The loss and the first write after it: the ends of the time without service.
fn moments(svg: &mut String, scale: &Scale, run: &Run) {
    let mut moment = |ms: f64, text: &str, color: &str| {
        let x = scale.x(ms);
        let _ = write!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"48\" y2=\"{FLOOR}\" stroke=\"var(--{color})\" stroke-width=\"2\"/>\
             <text x=\"{x:.1}\" y=\"42\" text-anchor=\"middle\">{text}</text>"
        );
    };
    moment(0.0, "east is lost", "fail");
    if let Some(held) = run.rto_held_ms {
        moment(since(held, 0), &format!("first write on west, +{}", spoken(held)), "west");
    }
}

fn band(svg: &mut String, scale: &Scale, run: &Run) {
    let mut at = 0.0;
    for phase in &run.phases {
        let (from, to) = (scale.x(at), scale.x(at + since(phase.ms, 0)));
        at += since(phase.ms, 0);
        let width = (to - from).max(2.0);
        let _ = write!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{BAND}\" width=\"{width:.1}\" height=\"30\" rx=\"4\" fill=\"var(--{})\"/>",
            phase.name
        );
        let text = format!("{} {}", phase.name, spoken(phase.ms));
        // About 7.5 units a letter at this size; what does not fit is said by the labels below.
        if width > 8.0 * f64::from(u8::try_from(text.len()).unwrap_or(u8::MAX)) {
            let _ = write!(
                svg,
                "<text class=\"on\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                from + width / 2.0,
                BAND + 20.0
            );
        }
    }
}

fn labels(svg: &mut String, scale: &Scale, run: &Run) {
    // The latest at the top: the lines of earlier ones, to the left of it, then pass no label.
    for (row, reached) in run.milestones.iter().rev().enumerate() {
        let ms = since(reached.at_ms, run.lost_ms);
        let x = scale.x(ms);
        let y = LABELS + STEP * f64::from(u8::try_from(row).unwrap_or(u8::MAX));
        // Text to the left of its line where the right edge is near.
        let (anchor, beside) = if x > RIGHT - 190.0 { ("end", x - 8.0) } else { ("start", x + 8.0) };
        let color = match reached.milestone {
            Milestone::Detected => "detect",
            Milestone::Measured | Milestone::Fenced | Milestone::CaughtUp | Milestone::Salvaged => "fence",
            Milestone::Promoted | Milestone::Serving => "promote",
            Milestone::Switched => "switch",
            Milestone::Verified | Milestone::Rejoined | Milestone::Replicating | Milestone::Ended => "verify",
        };
        let _ = write!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"var(--{color})\" stroke-width=\"1.5\"/>\
             <circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"var(--{color})\"/>\
             <text x=\"{beside:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{} <tspan class=\"soft\">+{}</tspan></text>",
            BAND + 30.0,
            y,
            y,
            y + 4.5,
            reached.milestone.title(),
            spoken(reached.at_ms.saturating_sub(run.lost_ms))
        );
    }
}
