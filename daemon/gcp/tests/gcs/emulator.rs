//! An emulator of Cloud Storage by others, on the loopback.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::BUCKET;

/// The emulator; it ends when dropped, or with this process, whose end of its standard input is then gone.
pub(crate) struct Emulator {
    pub(crate) port: u16,
    process: Child,
}

impl Emulator {
    pub(crate) fn start() -> Self {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
        let python = cache.unwrap_or_else(home).join("lifeboat/clouds/bin/python");
        let mut process = Command::new(&python)
            .args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gcs/emulator.py"), BUCKET])
            .env_clear()
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; run tests/install.sh test", python.display()));
        let mut line = String::new();
        let said = process.stdout.take().expect("its output");
        BufReader::new(said).read_line(&mut line).expect("it says its port");
        Self { port: line.trim().parse().expect("it says its port"), process }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
