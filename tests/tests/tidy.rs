//! The rules of the repository, as tests. Each says which rule, where, and why it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat_tests::workspace;
use serde_json::Value;

/// Which packages may depend on which: on lower ranks only (`daemon/ARCHITECTURE.md`).
const RANKS: [(&str, u8); 15] = [
    ("lifeboat-runbooks", 0),
    ("lifeboat-core", 1),
    ("lifeboat-config", 2),
    ("lifeboat-engine", 2),
    ("lifeboat-probe", 3),
    ("lifeboat-postgres", 3),
    ("lifeboat-dns", 3),
    ("lifeboat-lease", 3),
    ("lifeboat-sentry", 3),
    ("lifeboat-archive", 3),
    ("lifeboat-aws", 3),
    ("lifeboat-gcp", 3),
    ("lifeboat-chaos", 3),
    ("lifeboat", 4),
    ("lifeboat-tests", 5),
];

fn metadata() -> Value {
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(workspace())
        .output()
        .expect("cargo runs");
    serde_json::from_slice(&cargo.stdout).expect("cargo metadata is JSON")
}

/// Every tracked or new source file of the workspace with the given ending, with its text.
fn sources(ending: &str) -> Vec<(PathBuf, String)> {
    let git = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace())
        .output()
        .expect("git runs");
    let list = String::from_utf8(git.stdout).expect("paths are UTF-8");
    let paths = list.lines().filter(|path| path.ends_with(ending)).map(PathBuf::from);
    let read = |path: PathBuf| Some((path.clone(), std::fs::read_to_string(workspace().join(&path)).ok()?));
    let files: Vec<_> = paths.filter_map(read).collect();
    assert!(!files.is_empty(), "no {ending} file was found");
    files
}

/// Product code: what ships, without its unit tests.
fn product() -> Vec<(PathBuf, String)> {
    let shipped = |path: &Path| {
        let inside = |folder: &str| path.components().any(|c| c.as_os_str() == folder);
        !inside("tests") && !inside("benches") && !inside("examples") && !path.ends_with("tests.rs")
    };
    let files = sources(".rs").into_iter().filter(|(path, _)| shipped(path) && !path.starts_with("chaos"));
    files
        .map(|(path, text)| (path, text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()))
        .collect()
}

/// Lines of code (no comments) that hold any of the words, outside the files allowed to.
fn offences(words: &[&str], allowed: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in product().iter().filter(|(path, _)| !allowed(path)) {
        for (number, line) in (1..).zip(text.lines()) {
            let code = line.trim_start();
            if !code.starts_with("//") && words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{number}: {}", path.display(), code));
            }
        }
    }
    found
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}\n{}", found.join("\n"));
}

#[test]
fn packages_depend_on_lower_ranks_only() {
    let ranks: BTreeMap<&str, u8> = RANKS.into();
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    assert_eq!(packages.len(), RANKS.len(), "each package has a rank in this table");
    for package in packages {
        let name = package["name"].as_str().expect("name");
        let rank = ranks.get(name).unwrap_or_else(|| panic!("{name} has no rank"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let other = dependency["name"].as_str().expect("name");
            // A package may name itself, to give its own tests what it gives to others behind a feature.
            if let Some(lower) = ranks.get(other).filter(|_| other != name) {
                assert!(lower < rank, "{name} (rank {rank}) must not depend on {other} (rank {lower})");
            }
        }
    }
}

#[test]
fn nothing_waits_where_things_are_decided() {
    let pure = |path: &Path| ["runbooks", "config", "daemon/core"].iter().any(|room| path.starts_with(room));
    assert_none(
        &offences(&[".await", "async fn"], |path| !pure(path)),
        "runbooks, config and core are synchronous: a decision that waits could be interleaved",
    );
}

#[test]
fn clocks_are_read_in_one_place() {
    let words = ["Instant::now", "SystemTime::now", "Utc::now", ".elapsed()"];
    assert_none(
        &offences(&words, |path| path == Path::new("daemon/engine/src/clock.rs")),
        "clocks are read in daemon/engine/src/clock.rs only, so that a pretend clock reaches everything",
    );
}

#[test]
fn the_epoch_is_raised_in_core_only() {
    let names = std::fs::read_to_string(workspace().join("daemon/core/src/names.rs")).expect("names.rs");
    assert!(names.contains("pub(crate) const fn next(self)"), "Epoch::next is for core alone");
    let found: Vec<String> = offences(&["Epoch::new("], |path| path.starts_with("daemon/core"))
        .into_iter()
        .filter(|line| line.contains('+'))
        .collect();
    assert_none(&found, "an epoch is raised in core only: two places that raise it would each be right");
}

#[test]
fn the_journal_is_appended_to_in_the_loop_only() {
    let allowed = |path: &Path| {
        ["guard.rs", "guard/", "journal.rs"]
            .iter()
            .any(|place| path.to_string_lossy().contains(&format!("engine/src/{place}")))
    };
    assert_none(
        &offences(&[".append(", "append_now("], |path| allowed(path) || !path.starts_with("daemon/engine")),
        "only the loop appends to the journal, so that the record has one order",
    );
    let journal =
        std::fs::read_to_string(workspace().join("daemon/engine/src/journal.rs")).expect("journal.rs");
    assert!(journal.contains("pub(crate) async fn append"), "appending is for the engine alone");
}

#[test]
fn printing_and_exiting_have_one_home_each() {
    let print = ["println!", "eprintln!", "print!(", "eprint!(", "std::io::stdout()", "dbg!("];
    assert_none(&offences(&print, |path| path.ends_with("ui.rs")), "printing is the ui's alone");
    assert_none(
        &offences(&["process::exit", "process::abort"], |path| path.ends_with("main.rs")),
        "only main ends the process",
    );
}

#[test]
fn one_tls_stack() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--all-features",
            "-e",
            "normal,build",
            "--prefix",
            "none",
            "--offline",
        ])
        .current_dir(workspace())
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).expect("UTF-8");
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("aws-lc-rs"), "the tree was not read");
    for foreign in ["ring", "openssl", "openssl-sys", "native-tls"] {
        assert!(
            !names.contains(foreign),
            "{foreign} is in the tree; with two providers rustls panics at run time"
        );
    }
}

#[test]
fn files_are_named_and_sized_to_be_read() {
    let mut found = Vec::new();
    for (path, text) in sources(".rs") {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let shown = path.display();
        if ["mod.rs", "utils.rs", "helpers.rs", "common.rs", "manager.rs", "types.rs"].contains(&name) {
            found.push(format!("{shown}: say what it is about"));
        }
        if text.lines().count() > 600 {
            found.push(format!("{shown}: {} lines; look for the second noun in it", text.lines().count()));
        }
        if !text.starts_with("//!") && !text.starts_with("#!") {
            found.push(format!("{shown}: does not say what it is for (//!)"));
        }
    }
    assert_none(&found, "a file says what it is for, has a noun for a name and ends before the reader tires");
}

#[test]
fn nothing_unfinished_is_called_done() {
    let words = ["todo!(", "unimplemented!(", "#[ignore", "FIXME", "XXX", "#[allow("];
    let here = |path: &Path| path.ends_with("tidy.rs");
    let mut found = Vec::new();
    for (path, text) in sources(".rs").into_iter().filter(|(path, _)| !here(path)) {
        for (number, line) in (1..).zip(text.lines()) {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert_none(
        &found,
        "unfinished work is not committed, and lints are expected with a reason, never allowed",
    );
}

#[test]
fn decisions_are_numbered_without_gaps() {
    let folder = workspace().join("daemon/decisions");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("daemon/decisions")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    for (number, name) in (1..).zip(&names) {
        assert!(
            name.starts_with(&format!("{number:04}-")) && name.ends_with(".md"),
            "{name} should be {number:04}-…"
        );
    }
    assert!(!names.is_empty());
}

#[test]
fn readme_names_the_two_commands() {
    let readme = std::fs::read_to_string(workspace().join("README.md")).expect("README.md");
    for command in ["make demo", "make test"] {
        assert!(readme.contains(command), "README.md names {command}");
    }
}
