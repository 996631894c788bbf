//! An old primary becomes a standby: by following, by rewinding, by a copy, and after a kill.

use std::fs;

use lifeboat_core::FaultKind;
use lifeboat_core::outcome::RejoinWay;
use lifeboat_postgres::host::{Act, Done};

use crate::servers::{Pair, as_servers_user, programs};

const ISOLATED: &str = "CREATE TABLE lost (id int); INSERT INTO lost SELECT generate_series(1, 1000)";

fn assert_follows(pair: &Pair) {
    assert!(pair.streams("east"));
    assert_eq!(pair.sql("east", "SELECT pg_is_in_recovery()"), "t");
    pair.sql("west", "CREATE TABLE after (id int)");
    pair.until("it has what the new primary writes", || {
        pair.sql("east", "SELECT count(*) FROM pg_class WHERE relname = 'after'") == "1"
    });
    assert_eq!(pair.sql("east", "SELECT count(*) FROM pg_class WHERE relname = 'lost'"), "0");
    assert_eq!(pair.sql("east", "SHOW cluster_name"), "east", "its own postgresql.conf");
    let auto = fs::read_to_string(pair.data("east").join("postgresql.auto.conf")).unwrap();
    assert!(!auto.contains("fenced_by_lifeboat") && !auto.contains("read_only"), "{auto}");
    assert!(!pair.folder.path().join("state/orders.rejoining").exists());
}

#[test]
fn an_old_primary_whose_log_parted_is_rewound_and_streams() {
    let pair = Pair::start();
    let source = pair.part(ISOLATED);
    pair.fence();
    let rejoined = pair.rejoin(7, &source).unwrap();
    assert_eq!((rejoined.way, rejoined.already), (RejoinWay::Rewind, false), "{rejoined:?}");
    assert_follows(&pair);
    assert_eq!(pair.sql("east", "SHOW work_mem"), "9MB", "its own settings");
    let again = pair.rejoin(7, &source).unwrap();
    assert_eq!((again.way, again.already), (RejoinWay::Rewind, true));
    // An older epoch, and the same from another agent.
    assert_eq!(pair.ask(6, Act::Stop).unwrap_err().kind, FaultKind::Stale);
    let mut other = pair.request(7, Act::Stop);
    other.agent = "other".into();
    assert_eq!(pair.say(&serde_json::to_vec(&other).unwrap()).unwrap_err().kind, FaultKind::Stale);
    assert!(pair.streams("east"), "it was not stopped");
    assert_eq!(pair.ask(8, Act::Stop).unwrap(), Done::Stopped { already: false });
    assert_eq!(pair.ask(8, Act::Stop).unwrap(), Done::Stopped { already: true });
}

#[test]
fn while_the_source_is_lost_the_cheap_way_stays_open() {
    let pair = Pair::start();
    let source = pair.part(ISOLATED);
    pair.fence();
    pair.ctl_stop("west", "fast");
    let lost = pair.rejoin(7, &source).unwrap_err();
    assert_eq!(lost.kind, FaultKind::Unreachable, "{lost}");
    assert!(!pair.data("east").join("postmaster.pid").exists(), "it was started");
    let Done::Looked(look) = pair.ask(7, Act::Look).unwrap() else { panic!("no look") };
    assert_eq!(look.interrupted.map(lifeboat_core::Epoch::get), Some(7));
    pair.ctl("start", "west");
    let rejoined = pair.rejoin(7, &source).unwrap();
    assert_eq!(rejoined.way, RejoinWay::Rewind, "{rejoined:?}");
    assert_follows(&pair);
}

#[test]
fn one_that_crashed_while_fenced_is_rewound() {
    let pair = Pair::start();
    let source = pair.part(ISOLATED);
    pair.fence();
    pair.crash("east");
    let rejoined = pair.rejoin(7, &source).unwrap();
    assert_eq!(rejoined.way, RejoinWay::Rewind, "{rejoined:?}");
    assert_follows(&pair);
}

#[test]
fn after_a_switchover_it_only_follows() {
    let pair = Pair::start();
    pair.fence();
    pair.ctl_stop("east", "fast");
    let source = pair.promote();
    let rejoined = pair.rejoin(7, &source).unwrap();
    assert_eq!((rejoined.way, rejoined.already), (RejoinWay::Follow, false), "{rejoined:?}");
    assert_follows(&pair);
    assert_eq!(pair.sql("east", "SELECT count(*) FROM pg_replication_slots"), "0", "the slot of west");
}

#[test]
fn one_that_cannot_be_rewound_is_copied_and_its_old_folder_kept() {
    let pair = Pair::start();
    let source = pair.part(ISOLATED);
    // The log that pg_rewind needs is gone.
    pair.ctl_stop("east", "fast");
    for entry in fs::read_dir(pair.data("east").join("pg_wal")).unwrap().flatten() {
        let newest = source.lineage[0].lsn.get() >> 20;
        let number =
            entry.file_name().to_str().and_then(|name| u64::from_str_radix(name.get(16..24)?, 16).ok());
        if number.is_some_and(|number| number <= newest) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let host = pair.folder.path().join("host.toml");
    pair.write(&host, &pair.config(false));
    let refused = pair.rejoin(7, &source).unwrap_err();
    assert_eq!(refused.kind, FaultKind::Refused);
    assert!(refused.detail.contains("pg_basebackup -D"), "{refused}");
    assert!(!pair.data("east").join("postmaster.pid").exists(), "it was started");
    pair.write(&host, &pair.config(true));
    let rejoined = pair.rejoin(7, &source).unwrap();
    assert_eq!(rejoined.way, RejoinWay::Rebuild);
    assert!(rejoined.because.is_some());
    assert_follows(&pair);
    assert!(pair.folder.path().join("east.diverged-e7").exists());
}

/// `pg_rewind` that is killed half way, with the tool: stands for it, and touches the folder as it would.
fn hang_in_rewind(pair: &Pair, damage: &str) {
    let own = pair.folder.path().join("programs");
    fs::create_dir(&own).unwrap();
    for entry in fs::read_dir(programs()).unwrap().flatten() {
        std::os::unix::fs::symlink(entry.path(), own.join(entry.file_name())).unwrap();
    }
    fs::remove_file(own.join("pg_rewind")).unwrap();
    let top = pair.folder.path().display();
    let line = format!("#!/bin/sh\ncd {top}/east\n{damage}\ntouch {top}/hangs\nexec sleep 600\n");
    pair.write(&own.join("pg_rewind"), &line);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(own.join("pg_rewind"), mode).unwrap();
    let config = pair.config(true).replace(programs().to_str().unwrap(), own.to_str().unwrap());
    pair.write(&pair.folder.path().join("host.toml"), &config);
}

/// Lets the tool begin, and kills it while `pg_rewind` is at work.
fn kill_in_rewind(pair: &Pair, act: &Act) {
    let mut tool = pair.tool(&serde_json::to_vec(&pair.request(7, act.clone())).unwrap());
    pair.until("pg_rewind is at work", || pair.folder.path().join("hangs").exists());
    tool.kill().unwrap();
    tool.wait().unwrap();
}

/// Ends what stands for `pg_rewind`, which holds the lock.
fn end_rewind(pair: &Pair) {
    let sleepers = std::process::Command::new("pgrep").args(["-x", "sleep"]).output().unwrap();
    let lock = fs::canonicalize(pair.folder.path().join("state/orders.lock")).unwrap();
    for pid in String::from_utf8(sleepers.stdout).unwrap().split_whitespace() {
        if fs::read_link(format!("/proc/{pid}/fd/0")).is_ok_and(|stdin| stdin == lock) {
            std::process::Command::new("kill").args(["-KILL", pid]).status().unwrap();
        }
    }
}

#[test]
fn a_folder_that_may_be_half_rewound_is_started_by_nobody() {
    let pair = Pair::start();
    let source = pair.part(ISOLATED);
    pair.fence();
    // The settings of the new primary come first, and with them the fence goes.
    hang_in_rewind(&pair, "echo > postgresql.auto.conf");
    kill_in_rewind(&pair, &Act::Rejoin { source: source.clone(), drop_slots: Vec::new() });
    end_rewind(&pair);
    let mut start = as_servers_user(&programs().join("pg_ctl"));
    start.args(["start", "-s", "-w", "-l", "/dev/null", "-D"]).arg(pair.data("east"));
    assert!(!start.status().unwrap().success(), "a half rewound primary takes writes");
    let rejoined = pair.rejoin(7, &source).unwrap();
    assert_eq!(rejoined.way, RejoinWay::Rebuild, "{rejoined:?}");
    assert_follows(&pair);
}

#[test]
fn what_got_past_the_fence_of_a_planned_move_is_kept() {
    let pair = Pair::start();
    let source = pair.part(ISOLATED);
    pair.fence();
    let rejoined = pair.rejoin(7, &source).unwrap();
    assert_eq!(rejoined.way, RejoinWay::Rewind, "{rejoined:?}");
    let said = rejoined.because.expect("it says what was kept");
    assert!(said.starts_with("1000 rows that only it had"), "{said}");
    let kept = pair.folder.path().join("salvage/shop-e7/orders/postgres.public.lost.csv");
    assert_eq!(fs::read_to_string(kept).unwrap().lines().count(), 1001);
}

#[test]
fn one_that_was_promoted_since_is_left_alone() {
    let pair = Pair::start();
    let source = pair.part(ISOLATED);
    pair.fence();
    pair.rejoin(7, &source).unwrap();
    // With much to write out, its control file has the timeline before for a while.
    pair.sql("west", "CREATE TABLE much AS SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n");
    pair.until("it has all of it", || {
        pair.sql("east", "SELECT count(*) FROM pg_class WHERE relname = 'much'") == "1"
    });
    pair.ctl("promote", "east");
    // The request of before the promotion comes late.
    let refused = pair.rejoin(7, &source).unwrap_err();
    assert_eq!(refused.kind, FaultKind::Refused, "{refused}");
    assert_eq!(pair.sql("east", "SELECT pg_is_in_recovery()"), "f", "it was stopped, or made a standby");
}

#[test]
fn a_copy_of_another_cluster_takes_no_place() {
    let (pair, other) = (Pair::start(), Pair::start());
    let mut source = pair.part(ISOLATED);
    pair.fence();
    source.port = other.east;
    other.sql("east", &format!("SELECT pg_create_physical_replication_slot('{}')", source.slot));
    let system = pair.system();
    let refused = pair.rejoin(7, &source).unwrap_err();
    assert_eq!(refused.kind, FaultKind::Refused, "{refused}");
    let Done::Looked(look) = pair.ask(7, Act::Look).unwrap() else { panic!("no look") };
    assert_eq!((look.system, look.running), (system, false), "{refused}");
}

#[test]
fn a_kill_in_the_middle_of_a_rewind_leads_to_a_copy() {
    let pair = Pair::start();
    let source = pair.part(ISOLATED);
    pair.fence();
    hang_in_rewind(&pair, "rm global/pg_control");
    let act = Act::Rejoin { source: source.clone(), drop_slots: Vec::new() };
    kill_in_rewind(&pair, &act);
    // What it left goes on and holds the lock: the next one waits, and says so when its limit is over.
    let mut hurried = pair.request(7, act);
    hurried.limit_ms = 200;
    let busy = pair.say(&serde_json::to_vec(&hurried).unwrap()).unwrap_err();
    assert_eq!(busy.kind, FaultKind::Unclear, "{busy}");
    let left = format!("{}/east", pair.folder.path().display());
    end_rewind(&pair);
    // The source is lost as well: no copy can be made, and nothing is started.
    pair.ctl_stop("west", "fast");
    let lost = pair.rejoin(7, &source).unwrap_err();
    assert_eq!(lost.kind, FaultKind::Unreachable, "{lost}");
    assert!(!pair.data("east").join("postmaster.pid").exists(), "{left} was started");
    pair.ctl("start", "west");
    let rejoined = pair.rejoin(7, &source).unwrap();
    assert_eq!(rejoined.way, RejoinWay::Rebuild, "{rejoined:?}");
    assert_follows(&pair);
}

#[test]
fn a_kill_between_the_two_renames_of_a_swap_is_made_good() {
    let pair = Pair::start();
    let source = pair.part(ISOLATED);
    pair.fence();
    assert_eq!(pair.ask(7, Act::Stop).unwrap(), Done::Stopped { already: false });
    let top = pair.folder.path();
    // As the tool leaves it: the host's own files kept, a whole copy beside, the old folder aside, the new not there.
    let mut keep = String::from("set -e; umask 077; cd ");
    keep.push_str(&format!("{}; mkdir state/orders.kept; ", top.display()));
    keep.push_str("cp east/*.conf state/orders.kept/; mv east east.diverged-e7; ");
    keep.push_str(&format!("{}/pg_basebackup -N -c fast -h 127.0.0.1 -U postgres ", programs().display()));
    keep.push_str(&format!("-p {} -D east.lifeboat-new", pair.west));
    let mut shell = as_servers_user(std::path::Path::new("/bin/sh"));
    assert!(shell.args(["-c", &keep]).status().unwrap().success());
    let begun = serde_json::json!({
        "epoch": 7, "run": "shop-e7", "system": pair.system(), "stage": "swapping", "because": "it was interrupted",
    });
    pair.write(&top.join("state/orders.rejoining"), &begun.to_string());
    let rejoined = pair.rejoin(7, &source).unwrap();
    assert_eq!(rejoined.way, RejoinWay::Rebuild, "{rejoined:?}");
    assert_follows(&pair);
    assert!(top.join("east.diverged-e7").exists() && !top.join("east.lifeboat-new").exists());
}
