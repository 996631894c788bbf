//! moto, on the loopback: one for all tests of a process, and one that checks signatures.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The bucket that is there.
pub(crate) const BUCKET: &str = "archive";

/// A server; it ends with this process, whose end of its standard input is then gone.
pub(crate) struct Server {
    pub(crate) port: u16,
    /// Id and secret, of who may do all and of who may read.
    pub(crate) keys: Vec<(String, String)>,
    _process: Child,
}

/// One that takes any signature.
pub(crate) fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| started(&[BUCKET]))
}

/// One that checks signatures, and who may do what.
pub(crate) fn signed() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| started(&[BUCKET, "signed"]))
}

/// Where `tests/install.sh` puts it.
fn python() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    cache.unwrap_or_else(home).join("lifeboat/clouds/bin/python")
}

fn started(words: &[&str]) -> Server {
    let python = python();
    let mut process = Command::new(&python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/s3/bucket.py"))
        .args(words)
        .env_clear()
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; run tests/install.sh test", python.display()));
    let mut line = String::new();
    let said = process.stdout.take().expect("its output");
    BufReader::new(said).read_line(&mut line).expect("it says its port");
    let words: Vec<&str> = line.split_whitespace().collect();
    let port = words.first().and_then(|port| port.parse().ok()).expect("it says its port");
    let keys = words[1..].chunks_exact(2).map(|key| (key[0].to_owned(), key[1].to_owned())).collect();
    Server { port, keys, _process: process }
}
