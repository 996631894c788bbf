//! Hostile input: whatever the file holds, the answer comes soon, is short, and says what is wrong.

use std::fmt::Write;
use std::time::{Duration, Instant};

use lifeboat_config::{Config, LIMIT, MOST, Problems, Rule, WIDTH};

/// Far more than any of them takes (a debug build needs 3 s at most), far less than for ever.
const SOON: Duration = Duration::from_secs(30);

fn refused(name: &str, text: &str) -> Problems {
    assert!(text.len() as u64 <= LIMIT, "{name} has {} bytes", text.len());
    let began = Instant::now();
    let problems = Config::parse("hostile.toml", text).expect_err(name);
    let shown = problems.to_string();
    assert!(began.elapsed() < SOON, "{name} took {:?}", began.elapsed());
    let longest = shown.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(longest < 3 * WIDTH, "{name}: a line of {longest} columns");
    assert!(shown.lines().count() < MOST * 8, "{name}: {} lines", shown.lines().count());
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{name}: {shown:?}");
    problems
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "{}", line(n));
        text
    })
}

#[test]
fn a_hundred_thousand_unknown_keys() {
    let problems = refused("keys", &lines(100_000, |n| format!("k{n:x}=1")));
    assert!(problems.to_string().contains("… and "), "{problems}");
    assert!(problems.iter().all(|p| matches!(p.rule, Rule::UnknownKey | Rule::MissingKey)));
    refused("near keys", &lines(70_000, |n| format!("agent{n:x}=1")));
    refused("tables", &lines(60_000, |n| format!("[agent.k{n:x}]")));
}

#[test]
fn a_line_of_a_mebibyte() {
    let size = LIMIT as usize - 20;
    refused("key", &format!("{}=1", "k".repeat(size)));
    refused("text", &format!("agent = \"{}\"", "x".repeat(size)));
    refused("control", &format!("agent = '{}'", "\t".repeat(size)));
    refused("unclosed", &format!("agent = \"{}", "x".repeat(size)));
    refused("wide", &format!("agent = \"{}\"", "語".repeat(size / 3)));
    refused("duration", &format!("agent = {{ witness_interval = \"{}\" }}", "9".repeat(size - 40)));
    refused("number", &format!("agent = {}", "9".repeat(size)));
    refused("list", &format!("agent = {{ witnesses = [{}] }}", "0,".repeat(size / 2 - 40)));
}

#[test]
fn deep_nesting() {
    refused("brackets", &format!("a = {}", "[".repeat(500_000)));
    refused("braces", &format!("a = {}", "{a=".repeat(300_000)));
    refused("both", &format!("a = {}", "[{a=".repeat(200_000)));
    refused("dots", &format!("a{} = 1", ".a".repeat(500_000)));
    refused("table dots", &format!("[a{}]", ".a".repeat(500_000)));
    refused("many dots", &lines(5_000, |n| format!("[a{n}{}]", ".a".repeat(78))));
    refused("closing", &"]".repeat(1_000_000));
}

#[test]
fn no_toml_at_all() {
    refused("signs", &"=\n".repeat(500_000));
    refused("few signs", &"= = \u{1b}[2J\n".repeat(5_000));
    refused("zeros", &"\0".repeat(1_000_000));
    refused("page", &"<html><body>404 Not Found</body></html>\n".repeat(20_000));
    refused("empty", "");
    refused("mark", "\u{feff}");
}

#[test]
fn thousands_of_everything() {
    let region = |n: usize| format!("[[region]]\nname=\"r{n}\"");
    refused("regions", &lines(40_000, region));
    let head = "[agent]\nname=\"a\"\nregion=\"r0\"\nstate=\"/s\"\n";
    let workload = |n: usize| {
        format!(
            "[[workload]]\nname=\"w{n}\"\nprimary=\"x{n}\"\nstandbys=[\"y{n}\"]\nobjectives={{rto=\"1s\",rpo=\"1s\"}}\nfailover={{mode=\"automatic\"}}"
        )
    };
    let regions = lines(64, region);
    let problems = refused("workloads", &format!("{head}{regions}{}", lines(1000, workload)));
    assert!(problems.iter().any(|p| p.rule == Rule::UnknownRegion), "{problems}");
    let one = workload(0);
    let database = |n: usize| {
        format!(
            "[[workload.database]]\nname=\"d{n}\"\nkind=\"postgres\"\ndbname=\"d\"\nuser=\"u\"\nendpoint={{r1=\"h.x:{}\"}}",
            n % 9 + 1
        )
    };
    refused("databases", &format!("{head}{regions}{one}\n{}", lines(9_000, database)));
    let name = |n: usize| {
        format!(
            "[[workload.dns]]\nname=\"n{n}.x.\"\nvia=\"authority\"\nttl=\"1s\"\ntarget={{r1=[\"n{n}.y.\"]}}"
        )
    };
    refused("names", &format!("{head}{regions}{one}\n{}", lines(11_000, name)));
}
