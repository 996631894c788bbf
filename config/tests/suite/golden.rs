//! Every message of the document's rules, as the operator reads it: `golden/NAME.toml` gives `golden/NAME.txt`.
//!
//! After a wanted change, `LIFEBOAT_BLESS=1 cargo test -p lifeboat-config` writes the texts anew; read the difference.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lifeboat_config::{Config, Problems, Rule, Severity};

use crate::machine;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Compares `text` with the golden one of this name; says what differs.
fn compare(name: &str, text: &str) -> Option<String> {
    let path = folder().join(format!("{name}.txt"));
    if std::env::var_os("LIFEBOAT_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    (wanted != text).then(|| format!("== {name}: wanted\n{wanted}\n== {name}: found\n{text}"))
}

fn documents() -> Vec<(String, String)> {
    let paths = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let documents = paths.filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let mut all: Vec<_> = documents
        .map(|path| {
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    all.sort();
    all
}

fn problems_of(name: &str, text: &str) -> Problems {
    match Config::parse(&format!("{name}.toml"), text) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => {
            assert!(problems.count(Severity::Error) > 0, "{name} is refused without an error");
            problems
        }
    }
}

#[test]
fn every_message_reads_as_agreed() {
    let differ: Vec<_> = documents()
        .iter()
        .filter_map(|(name, text)| compare(name, &problems_of(name, text).to_string()))
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn what_this_machine_says_reads_as_agreed() {
    let differ: Vec<_> =
        machine::cases().into_iter().filter_map(|(rule, text)| compare(rule.id(), &text)).collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// A case has the name of the rule it shows, and shows that rule.
#[test]
fn every_rule_has_its_message() {
    let mut shown: BTreeSet<Rule> = BTreeSet::new();
    for (name, text) in documents() {
        let rules: BTreeSet<Rule> = problems_of(&name, &text).iter().map(|p| p.rule).collect();
        let named = Rule::ALL.iter().find(|rule| rule.id() == name);
        if let Some(rule) = named {
            assert!(rules.contains(rule), "{name}.toml does not break the rule it is named after");
            shown.insert(*rule);
        }
        if name.starts_with("good") {
            assert!(rules.is_empty(), "{name}.toml breaks {rules:?}");
        }
    }
    for (rule, text) in machine::cases() {
        assert!(text.contains(&format!("[{rule}]")), "{text}");
        shown.insert(rule);
    }
    let missing: Vec<_> =
        Rule::ALL.iter().filter(|rule| !shown.contains(rule)).map(|rule| rule.id()).collect();
    assert!(missing.is_empty(), "no golden case for {missing:?}");
}

/// One mistake makes one problem, where the document is otherwise good.
#[test]
fn no_problem_is_the_echo_of_another() {
    let alone = [
        "archive-unused",
        "backup-over-rpo",
        "backup-without-archive",
        "bad-archive-place",
        "bad-schedule",
        "bad-slot-name",
        "bad-time-zone",
        "key-in-archive",
        "piece-over-rpo",
        "repeated-archive",
        "repeated-backup",
        "slot-alert-over-limit",
        "slot-name-too-long",
        "store-key-unused",
        "unknown-archive",
        "agent-elsewhere",
        "agent-in-primary",
        "agent-unlisted",
        "agents-missing",
        "agents-without-lease",
        "bad-public-key",
        "bad-size",
        "ca-missing",
        "coordinator-in-one-place",
        "duplicate-agent",
        "few-failure-domains",
        "freshness-under-ttl",
        "lease-over-rto",
        "listen-missing",
        "lone-vantage",
        "lone-vantage-unused",
        "outside-too-many",
        "quorum-in-region",
        "quorum-not-majority",
        "quorum-over-agents",
        "sample-age-too-short",
        "sentry-embedded",
        "sentry-without-database",
        "site-near-region",
        "automatic-without-witnesses",
        "bad-system-identifier",
        "budget-without-effect",
        "canary-elsewhere",
        "endpoint-missing",
        "fence-expiry-embedded",
        "few-witnesses",
        "heartbeat-off",
        "heartbeat-over-rpo",
        "no-canary",
        "no-cooldown",
        "no-fence",
        "pooled-endpoint",
        "primary-among-standbys",
        "quorum-over-vantages",
        "rpo-zero",
        "same-target",
        "shared-endpoint",
        "silence-too-short",
        "target-missing",
        "tls-off",
        "ttl-over-rto",
        "ttl-slow",
        "unused-region",
        "authority-missing",
        "authority-unused",
        "listen-port",
        "whole-seconds",
        "server-in-two-workloads",
    ];
    for (name, text) in documents().iter().filter(|(name, _)| alone.contains(&name.as_str())) {
        let problems = problems_of(name, text);
        assert_eq!(problems.iter().count(), 1, "{problems}");
    }
}

#[test]
fn secrets_in_the_wrong_place_are_not_repeated() {
    for (name, text) in documents() {
        let shown = problems_of(&name, &text).to_string();
        assert!(!shown.contains("hunter2") && !shown.contains("correct horse"), "{shown}");
    }
}
