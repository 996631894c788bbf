//! What a step of the operator's own says: commands, requests, statements, texts.

use super::Found;
use crate::flaw::FlawKind;
use crate::page::{Deed, Step};
use crate::with::With;

/// What the planner fills in.
const PLACEHOLDERS: [&str; 5] = ["workload", "run", "epoch", "from", "to"];

pub(super) fn judge(found: &mut Found<'_>, index: usize, step: &Step) {
    judge_with(found, index, step, "with", &step.with);
    if let Some(undo) = &step.undo {
        judge_with(found, index, step, "undo.with", &undo.with);
    }
    if let Some(text) = &step.approve {
        judge_text(found, index, step, "approve", text);
        if step.deed == Deed::Approve {
            found.step(index, "approve", FlawKind::AskedTwice { step: step.name.clone() });
        }
    }
}

fn judge_with(found: &mut Found<'_>, index: usize, step: &Step, at: &str, with: &With) {
    let name = || step.name.clone();
    for (key, text) in texts(with) {
        judge_text(found, index, step, &format!("{at}.{key}"), text);
    }
    let mut empty = |key: &'static str, text: &str| {
        if text.trim().is_empty() {
            found.step(index, &format!("{at}.{key}"), FlawKind::EmptyOperand { step: name(), key });
        }
    };
    match with {
        With::Nothing => {}
        With::Run(run) => {
            empty("argv", run.argv.first().map_or("", String::as_str));
            for variable in
                run.env.keys().filter(|variable| variable.is_empty() || variable.contains(['=', '\0']))
            {
                let kind = FlawKind::BadVariable { step: name(), name: variable.clone() };
                found.step(index, &format!("{at}.env"), kind);
            }
        }
        With::Http(http) => {
            let rest = http.url.strip_prefix("http://").or_else(|| http.url.strip_prefix("https://"));
            if rest.is_none_or(|rest| {
                rest.is_empty() || rest.starts_with('/') || rest.contains(char::is_whitespace)
            }) {
                found.step(index, &format!("{at}.url"), FlawKind::BadUrl { step: name() });
            }
            if http.method.is_empty() || !http.method.chars().all(|c| c.is_ascii_uppercase()) {
                let kind = FlawKind::BadMethod { step: name(), method: http.method.clone() };
                found.step(index, &format!("{at}.method"), kind);
            }
            if http.expect.is_empty() {
                found.step(
                    index,
                    &format!("{at}.expect"),
                    FlawKind::EmptyOperand { step: name(), key: "expect" },
                );
            }
            for status in http.expect.iter().filter(|status| !(100..600).contains(*status)) {
                let kind = FlawKind::BadStatus { step: name(), status: *status };
                found.step(index, &format!("{at}.expect.{status}"), kind);
            }
        }
        With::Sql(sql) => empty("statement", &sql.statement),
        With::Wait(wait) => {
            if wait.length.is_zero() {
                found.step(index, &format!("{at}.length"), FlawKind::Zero { step: name(), key: "length" });
            }
        }
        With::Text(with) => empty("text", &with.text),
    }
}

/// Every text that may hold placeholders, with the path of its value.
fn texts(with: &With) -> Vec<(String, &str)> {
    let key = |key: &str| key.to_owned();
    match with {
        With::Nothing | With::Wait(_) => Vec::new(),
        With::Run(run) => {
            let argv = run.argv.iter().map(|text| (format!("argv.{text}"), text.as_str()));
            let env = run.env.iter().map(|(name, text)| (format!("env.{name}"), text.as_str()));
            argv.chain(env).collect()
        }
        With::Http(http) => {
            let body = http.body.iter().map(|body| (key("body"), body.as_str()));
            [(key("url"), http.url.as_str())].into_iter().chain(body).collect()
        }
        With::Sql(sql) => {
            let expect = sql.expect.iter().map(|text| (key("expect"), text.as_str()));
            [(key("statement"), sql.statement.as_str())].into_iter().chain(expect).collect()
        }
        With::Text(with) => vec![(key("text"), &with.text)],
    }
}

/// `{word}` in small letters is meant for the planner; `${word}` is for a shell, and `{"word"}` is somebody's JSON.
fn judge_text(found: &mut Found<'_>, index: usize, step: &Step, path: &str, text: &str) {
    for (open, _) in text.match_indices('{').filter(|(open, _)| !text[..*open].ends_with('$')) {
        let Some((word, _)) = text[open + 1..].split_once('}') else { continue };
        let meant = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '-');
        if meant && !PLACEHOLDERS.contains(&word) {
            let placeholder = format!("{{{word}}}");
            found.step(index, path, FlawKind::Placeholder { step: step.name.clone(), placeholder });
        }
    }
}
