//! The documents we ship load without a warning, and what is shown of them loads again to the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_config::wiring::{LookWiring, ViaWiring};
use lifeboat_config::{Config, Loaded, schema};
use lifeboat_core::names::{DatabaseName, ProbeName, RegionName, WorkloadName};
use lifeboat_core::policy::Mode;
use serde_json::Value;

fn shipped() -> Vec<PathBuf> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    let examples = fs::read_dir(room.join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = examples.chain([room.join("lifeboat.example.toml")]).collect();
    all.sort();
    assert!(all.len() >= 4, "{all:?}");
    all
}

fn load(path: &Path) -> Loaded {
    Config::load(path).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn examples_break_no_rule() {
    for path in shipped() {
        let loaded = load(&path);
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }
}

#[test]
fn what_is_in_effect_loads_to_the_same() {
    for path in shipped() {
        let loaded = load(&path);
        let text = loaded.effective_toml().unwrap();
        let again =
            Config::parse("shown.toml", &text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        assert_eq!(loaded.config, again.config, "{text}");
        assert_eq!(loaded.effective(), again.effective());
        let json: Value = serde_json::from_str(&loaded.effective_json().unwrap()).unwrap();
        assert_eq!(json["agent"]["name"], loaded.document.agent.name.as_str());
    }
}

/// The example documents every key: each one of the schema stands in it, live or in a comment.
#[test]
fn the_example_documents_every_key() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("lifeboat.example.toml")).unwrap();
    let mut keys = BTreeSet::new();
    names(&schema(), &mut keys);
    let written = |key: &str| {
        let table = |line: &str| line.trim_start_matches('[').split([']', '.']).any(|part| part == key);
        let tables =
            |line: &str| line.starts_with('[') && line.split(['[', ']', '.']).any(|part| part == key);
        text.lines().map(|l| l.trim_start_matches("# ").trim_start()).any(|line| {
            line.split_once('=').is_some_and(|(before, _)| before.trim() == key)
                || tables(line) && table(line)
        })
    };
    let missing: Vec<_> = keys.iter().filter(|key| !written(key)).collect();
    assert!(keys.len() > 60 && missing.is_empty(), "{missing:?}");
}

fn names(schema: &Value, keys: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            let properties = object.get("properties").and_then(Value::as_object);
            keys.extend(properties.into_iter().flat_map(|p| p.keys().cloned()));
            object.values().for_each(|inner| names(inner, keys));
        }
        Value::Array(list) => list.iter().for_each(|inner| names(inner, keys)),
        _ => {}
    }
}

/// The default that a comment of the example shows is the default: with the comments taken away, nothing changes.
#[test]
fn commented_defaults_are_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("lifeboat.example.toml");
    let text = fs::read_to_string(&path).unwrap();
    let (mut live, mut count) = (String::new(), 0);
    for line in text.lines() {
        // Keys whose default is "none" or depends on the server show an example instead.
        let example = [
            "archives",
            "bandwidth",
            "access_key_file",
            "credentials_file",
            "secret_key_file",
            "endpoint",
            "region",
            "socket",
            "listen",
            "runbooks",
            "body",
            "ca_file",
            "system_identifier",
            "expect",
            "rpo_bytes",
            "sample_age",
        ];
        let uncommented = line.strip_prefix("# ").filter(|rest| {
            let key = rest.split_once(" = ").map(|(key, _)| key);
            key.is_some_and(|key| {
                key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !example.contains(&key)
            })
        });
        count += usize::from(uncommented.is_some());
        live.push_str(uncommented.unwrap_or(line));
        live.push('\n');
    }
    let loaded = Config::parse("live.toml", &live).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(count > 25, "{count}");
    assert_eq!(loaded.config, load(&path).config);
}

#[test]
fn the_example_becomes_policy_and_wiring() {
    let loaded = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("lifeboat.example.toml"));
    let (policy, wiring) = (&loaded.config.policy, &loaded.config.wiring);
    let (name, east) = (WorkloadName::new("shop"), RegionName::new("east"));
    assert_eq!((policy.connectivity.witnesses, policy.connectivity.quorum), (3, 2));
    let shop = &policy.workloads[&name];
    assert_eq!((&shop.home, shop.standbys.as_slice()), (&east, [RegionName::new("west")].as_slice()));
    assert_eq!((shop.failover.mode, shop.failover.quorum, shop.failover.budget), (Mode::Automatic, 1, 2));
    assert_eq!(shop.failover.freshness, Duration::from_secs(30));
    let orders = &wiring.workloads[&name].databases[&DatabaseName::new("orders")].backups["vault"];
    assert_eq!(orders.wal.as_ref().unwrap().slot, "lifeboat_vault");
    assert_eq!(wiring.archives["vault"].retention.window, Duration::from_secs(30 * 86_400));
    let probe = &shop.probes[&ProbeName::new("orders@east")];
    assert!(probe.vital && probe.region == east && probe.database == Some(DatabaseName::new("orders")));
    assert_eq!((probe.failures, probe.recoveries, probe.silence), (3, 2, Duration::from_secs(60)));
    assert!(!shop.probes[&ProbeName::new("lb-east")].vital && shop.canary);
    let wired = &wiring.workloads[&name];
    assert_eq!(wired.probes.keys().collect::<Vec<_>>(), shop.probes.keys().collect::<Vec<_>>());
    assert_eq!(wired.names.keys().collect::<Vec<_>>(), shop.names.keys().collect::<Vec<_>>());
    assert_eq!(wired.probes[&ProbeName::new("orders@west")].look, LookWiring::Database("orders".into()));
    assert!(
        matches!(&wired.names[&"shop.example.com.".into()].via, ViaWiring::Rfc2136(r) if r.secondaries.len() == 1)
    );
    assert_eq!(wiring.agent.socket.to_str(), Some("/var/lib/lifeboat/lifeboat.sock"));
    assert_eq!(wired.databases[&"orders".into()].endpoints[&east].to_string(), "db.east.example.com:5432");
    let canary = wired.canary.as_ref().unwrap();
    assert_eq!(Some(&canary.resolver), wired.names[&"shop.dr.example.com.".into()].resolvers.first());
}
