//! The command line as a person meets it: every message of it that needs no agent, and its exit code, held
//! against `tests/golden/cli/*.txt`. `LIFEBOAT_BLESS=1` writes them anew; read the difference before you commit it.

#![expect(clippy::unwrap_used, reason = "a test that cannot look has failed")]

use std::path::Path;
use std::process::Command;

use lifeboat_tests::{binary, workspace};

/// Runs `lifeboat` with a home of its own; paths of the scratch folder read `SCRATCH`.
fn lifeboat(scratch: &Path, args: &[&str]) -> String {
    let said = Command::new(binary("lifeboat").unwrap())
        .args(args)
        .current_dir(scratch)
        .env_clear()
        .env("USER", "ada")
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    let code = said.status.code().unwrap();
    let text = |bytes: &[u8]| {
        String::from_utf8(bytes.to_vec()).unwrap().replace(scratch.to_str().unwrap(), "SCRATCH")
    };
    let (out, err) = (text(&said.stdout), text(&said.stderr));
    let args = args.join(" ").replace(scratch.to_str().unwrap(), "SCRATCH");
    format!("$ lifeboat {args}\n{out}--- standard error\n{err}--- exit {code}\n")
}

/// Holds what was said against the golden text of that name.
fn golden(name: &str, said: &str) {
    let path = workspace().join("tests/golden/cli").join(format!("{name}.txt"));
    if std::env::var_os("LIFEBOAT_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, said).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        said == wanted,
        "{name} changed; LIFEBOAT_BLESS=1 writes it anew.\n--- now\n{said}\n--- was\n{wanted}"
    );
}

/// A folder with a sound configuration, whose agent is not running.
fn scratch() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(workspace().join("config/lifeboat.example.toml")).unwrap();
    let state = format!("state = \"{}/state\"", folder.path().display());
    let text = text.replace("state = \"/var/lib/lifeboat\"", &state);
    std::fs::write(folder.path().join("lifeboat.toml"), text).unwrap();
    folder
}

#[test]
fn help_teaches() {
    let folder = scratch();
    for verb in [
        "run",
        "archive",
        "backup",
        "wal",
        "restore",
        "check",
        "status",
        "plan",
        "failover",
        "approve",
        "pause",
        "resume",
        "history",
        "explain",
        "host",
        "key",
        "sentry",
        "share",
        "switchover",
        "failback",
        "rejoin",
        "cancel",
        "skip",
        "abandon",
        "runbook",
    ] {
        golden(&format!("help-{verb}"), &lifeboat(folder.path(), &[verb, "--help"]));
    }
    for (name, args) in [
        ("archive-init", ["archive", "init"]),
        ("archive-rekey", ["archive", "rekey"]),
        ("backup-run", ["backup", "run"]),
        ("backup-expire", ["backup", "expire"]),
        ("wal-receive", ["wal", "receive"]),
        ("wal-get", ["wal", "get"]),
    ] {
        golden(&format!("help-{name}"), &lifeboat(folder.path(), &[args[0], args[1], "--help"]));
    }
    golden("help", &lifeboat(folder.path(), &["--help"]));
    golden("help-plan-failover", &lifeboat(folder.path(), &["plan", "failover", "--help"]));
    golden("help-config", &lifeboat(folder.path(), &["config", "--help"]));
}

#[test]
fn without_an_agent_each_verb_says_so() {
    let folder = scratch();
    let c = "--config=lifeboat.toml";
    for (name, args) in [
        ("status", &["status", c][..]),
        ("plan", &["plan", "failover", "shop", c]),
        ("failover", &["failover", "shop", "--to", "west", c]),
        ("switchover", &["switchover", "shop", "--to", "west", c]),
        ("failback", &["failback", "shop", c]),
        ("rejoin", &["rejoin", "shop", "--region", "east", c]),
        ("cancel", &["cancel", "shop-e1", "--reason", "too late", c]),
        ("skip", &["skip", "shop-e1", "verify", "--reason", "seen by hand", c]),
        ("approve", &["approve", "shop-e1", c]),
        ("pause", &["pause", "shop", "--reason", "work", "--for", "1h", c]),
        ("resume", &["resume", "shop", c]),
        ("history", &["history", c]),
        ("explain", &["explain", "shop-e1", c]),
        ("why-not", &["explain", "shop", "--why-not", c]),
    ] {
        let said = lifeboat(folder.path(), args);
        assert!(said.contains("--- exit 4"), "{said}");
        golden(&format!("no-agent-{name}"), &said);
    }
}

#[test]
fn usage_errors_say_what_to_type() {
    let folder = scratch();
    for (name, args) in [
        ("verb", &["fail-over"][..]),
        ("no-target", &["failover", "shop"]),
        ("duration", &["pause", "shop", "--reason", "x", "--for", "90"]),
        ("both", &["approve", "r", "--accept-loss", "1s", "--accept-unfenced", "east"]),
        ("log", &["run", "--config=lifeboat.toml", "--log", "a=b=c"]),
    ] {
        let said = lifeboat(folder.path(), args);
        assert!(said.contains("--- exit 2"), "{said}");
        golden(&format!("usage-{name}"), &said);
    }
}

#[test]
fn an_archive_is_made_opened_and_given_another_key() {
    let folder = scratch();
    let at = |name: &str| folder.path().join(name);
    let c = "--config=lifeboat.toml";
    let place = |name: &str| format!("place = \"{}\"", at(name).display());
    let text = std::fs::read_to_string(at("lifeboat.toml")).unwrap();
    let key = format!("key_file = \"{}\"", at("vault.key").display());
    let text = text
        .replace("place = \"s3://example-backups/lifeboat\"", &place("vault"))
        .replace("key_file = \"/etc/lifeboat/vault.key\"", &key);
    std::fs::write(at("lifeboat.toml"), text).unwrap();
    for (name, code, args) in [
        ("none", 3, &["archive", "check", c][..]),
        ("init", 0, &["archive", "init", c]),
        ("again", 5, &["archive", "init", c]),
        ("check", 0, &["archive", "check", c]),
        ("empty", 0, &["backup", "list", c]),
        ("no-log", 0, &["wal", "status", c]),
        ("rekey", 0, &["archive", "rekey", "--new-key", "next.key", c]),
        ("old-key", 5, &["archive", "check", c]),
        (
            "no-backup",
            5,
            &["restore", "shop/orders", "--target", "never", "--place", "vault", "--key", "next.key"],
        ),
        ("unknown", 2, &["backup", "list", "--archive", "attic", c]),
        ("no-database", 2, &["backup", "run", "shop/carts", c]),
        (
            "no-backup-named",
            2,
            &["backup", "show", "20260101T000000Z-000000", "--place", "SCRATCH", "--key", "next.key"],
        ),
    ] {
        let place = at("vault").display().to_string();
        let args: Vec<&str> =
            args.iter().map(|arg| if *arg == "SCRATCH" || *arg == "vault" { &place } else { *arg }).collect();
        let said = lifeboat(folder.path(), &args);
        assert!(said.contains(&format!("--- exit {code}\n")), "{said}");
        // The names of keys are made up anew each time.
        if name == "old-key" {
            assert!(said.contains("is sealed by the key file"), "{said}");
        } else {
            golden(&format!("archive-{name}"), &said);
        }
    }
    assert!(!at("never").exists(), "what is refused writes nothing");
}

#[test]
fn a_bad_configuration_is_refused_with_all_its_problems() {
    let folder = scratch();
    let at = |name: &str| folder.path().join(name);
    let example = std::fs::read_to_string(at("lifeboat.toml")).unwrap();
    let broken = example.replace("[[notify]]", "[[notifi]]").replace("rpo = \"5m\"", "rpo = \"5 minutes\"");
    std::fs::write(at("broken.toml"), broken).unwrap();
    std::fs::write(at("bytes.toml"), [0xFF, 0xFE, 0x00, 0x41]).unwrap();
    std::fs::write(at("huge.toml"), "# x\n".repeat(2_500_000)).unwrap();
    std::fs::create_dir(at("folder.toml")).unwrap();
    for name in ["broken", "bytes", "huge", "folder", "absent"] {
        let config = format!("--config={name}.toml");
        for verb in ["check", "run"] {
            let said = lifeboat(folder.path(), &[verb, &config]);
            assert!(said.contains("--- exit 3"), "{said}");
            golden(&format!("config-{name}-{verb}"), &said);
        }
    }
}

#[test]
fn a_sound_configuration_needs_no_secrets_to_be_checked() {
    let folder = scratch();
    let said = lifeboat(folder.path(), &["check", "--config=lifeboat.toml"]);
    assert!(said.contains("--- exit 0"), "{said}");
    golden("check", &said);
    assert!(!folder.path().join("state").exists(), "checking made something");
    let schema = lifeboat(folder.path(), &["config", "schema"]);
    let body = schema.split_once('\n').unwrap().1.split("--- standard error").next().unwrap();
    let schema: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let shown = lifeboat(folder.path(), &["config", "show", "--config=lifeboat.toml"]);
    assert!(shown.contains("approval_expires = \"1h\"") && shown.contains("--- exit 0"), "{shown}");
}

#[test]
fn an_agent_whose_record_is_damaged_does_not_start() {
    let folder = scratch();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    std::fs::write(
        folder.path().join("state/journal.db"),
        b"this is no journal, and long enough to be sure of it",
    )
    .unwrap();
    let said = lifeboat(folder.path(), &["run", "--config=lifeboat.toml"]);
    assert!(said.contains("--- exit 1") && said.contains("cannot be used"), "{said}");
    let kept = std::fs::read(folder.path().join("state/journal.db")).unwrap();
    assert!(kept.starts_with(b"this is no journal"), "what was there was overwritten");
}

#[test]
fn own_runbooks_are_judged_all_at_once() {
    let folder = scratch();
    let at = |name: &str| folder.path().join(name);
    let pages = at("pages");
    let example = std::fs::read_to_string(at("lifeboat.toml")).unwrap();
    let written = format!("[agent]\nrunbooks = \"{}\"\n", pages.display());
    std::fs::write(at("own.toml"), example.replace("[agent]\n", &written)).unwrap();
    let c = "--config=own.toml";
    golden("runbooks-no-folder", &lifeboat(folder.path(), &["check", c]));

    std::fs::create_dir(&pages).unwrap();
    let shipped = |name: &str| std::fs::read_to_string(workspace().join("runbooks").join(name)).unwrap();
    std::fs::write(pages.join("home.toml"), shipped("failback.toml")).unwrap();
    std::fs::write(pages.join("README.md"), "no page").unwrap();
    golden("runbooks-sound", &lifeboat(folder.path(), &["check", c]));

    std::fs::write(pages.join("again.toml"), shipped("failback.toml")).unwrap();
    std::fs::write(pages.join("lost.toml"), shipped("failover.toml").replace("needs", "neds")).unwrap();
    for verb in ["check", "run"] {
        let said = lifeboat(folder.path(), &[verb, c]);
        assert!(said.contains("--- exit 3"), "{said}");
        golden(&format!("runbooks-broken-{verb}"), &said);
    }
}

#[test]
fn runbooks_are_listed_shown_and_checked() {
    let folder = scratch();
    let at = |name: &str| folder.path().join(name);
    let c = "--config=lifeboat.toml";
    golden("runbook-list", &lifeboat(folder.path(), &["runbook", "list", c]));
    golden("runbook-list-json", &lifeboat(folder.path(), &["runbook", "list", "--json", c]));
    golden("runbook-show", &lifeboat(folder.path(), &["runbook", "show", "failover", c]));
    golden("runbook-show-unknown", &lifeboat(folder.path(), &["runbook", "show", "evacuate", c]));
    golden("runbook-check", &lifeboat(folder.path(), &["runbook", "check", c]));

    let shipped = |name: &str| std::fs::read_to_string(workspace().join("runbooks").join(name)).unwrap();
    let failover = shipped("failover.toml");
    std::fs::write(at("mine.toml"), &failover).unwrap();
    let unfenced = failover.replace("needs = [\"fenced\"]", "needs = [\"loss\"]");
    std::fs::write(at("unfenced.toml"), unfenced.replace("attempts = 5", "attempts = 0")).unwrap();
    // Files are judged without a configuration.
    golden(
        "runbook-check-file",
        &lifeboat(folder.path(), &["runbook", "check", "mine.toml", "--config=none"]),
    );
    let said = lifeboat(folder.path(), &["runbook", "check", "mine.toml", "unfenced.toml", "absent.toml"]);
    assert!(said.contains("--- exit 3"), "{said}");
    golden("runbook-check-broken", &said);

    // A page of one's own stands in the place of the shipped one.
    std::fs::create_dir(at("pages")).unwrap();
    std::fs::write(at("pages/lost.toml"), failover.replace("primary region is lost", "east is gone"))
        .unwrap();
    let example = std::fs::read_to_string(at("lifeboat.toml")).unwrap();
    let written = format!("[agent]\nrunbooks = \"{}\"\n", at("pages").display());
    std::fs::write(at("own.toml"), example.replace("[agent]\n", &written)).unwrap();
    golden("runbook-list-own", &lifeboat(folder.path(), &["runbook", "list", "--config=own.toml"]));
    let shown = lifeboat(folder.path(), &["runbook", "show", "failover", "--config=own.toml"]);
    assert!(shown.contains("Failover: the east is gone"), "{shown}");
}

#[test]
fn runbooks_are_written_down_to_be_followed_by_hand() {
    let folder = scratch();
    for kind in ["failover", "switchover", "failback", "rejoin"] {
        let args = ["runbook", "render", kind, "--workload", "shop", "--config=lifeboat.toml"];
        golden(&format!("runbook-render-{kind}"), &lifeboat(folder.path(), &args));
    }
    let bastion = workspace().join("config/examples/bastion-rfc2136.toml");
    let own = std::fs::read_to_string(workspace().join("runbooks/failover.toml")).unwrap();
    let step = "[[step]]\nname = \"tell\"\ntitle = \"Tell the status page\"\ndo = \"http\"\napprove = \"May {workload} be announced?\"\n\
        with = { method = \"POST\", url = \"https://status.example.com/{workload}\", body = \"it's moving to {to}\" }\ntimeout = \"5s\"\n\n\
        [[step]]\nname = \"fence\"\n";
    std::fs::create_dir(folder.path().join("pages")).unwrap();
    std::fs::write(folder.path().join("pages/own.toml"), own.replace("[[step]]\nname = \"fence\"\n", step))
        .unwrap();
    let pages = format!("[agent]\nrunbooks = \"{}\"\n", folder.path().join("pages").display());
    let state = format!("state = \"{}/state\"\n# ", folder.path().display());
    let text = std::fs::read_to_string(bastion).unwrap().replace("[agent]\n", &pages);
    let text = text.replace("state = \"/var/lib/lifeboat\"\nsocket = ", &format!("{state}socket = "));
    std::fs::write(folder.path().join("bastion.toml"), text).unwrap();
    let bastion = ["runbook", "render", "failover", "--workload", "shop", "--config=bastion.toml"];
    let said = lifeboat(folder.path(), &bastion);
    golden("runbook-render-bastion", &said);

    let into = [&bastion[..], &["--output", "page.md"]].concat();
    assert!(lifeboat(folder.path(), &into).contains("--- exit 0"));
    let written = std::fs::read_to_string(folder.path().join("page.md")).unwrap();
    assert!(said.contains(&written), "the file holds what is shown");
    for (name, args) in [
        ("workload", &["runbook", "render", "failover", "--workload", "shoe", "--config=bastion.toml"][..]),
        ("region", &[&bastion[..], &["--to", "paris"]].concat()),
    ] {
        let said = lifeboat(folder.path(), args);
        assert!(said.contains("--- exit 2"), "{said}");
        golden(&format!("runbook-render-unknown-{name}"), &said);
    }
}
