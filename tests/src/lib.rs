//! Tests of the whole: what they share. The tests themselves are in `tests/`.

pub mod commits;
pub mod council;
pub mod scene;
pub mod strike;

use std::path::{Path, PathBuf};

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// A binary of the workspace, built beside this test.
///
/// # Errors
/// When it is not there: `cargo test` builds the binaries of the packages it tests only, `make test` builds all.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path = test.ancestors().nth(2).unwrap_or(Path::new(".")).join(name);
    anyhow::ensure!(path.exists(), "{} is not built; run: cargo build --workspace --bins", path.display());
    Ok(path)
}
