//! The undertaker: a process that outlives its lab by a moment, and leaves nothing of it.
//!
//! Children of the lab die with it by themselves (`process.rs`), but not *their* children, as a pg_rewind that a
//! region's host had started; and a lab that is killed with -9 cannot remove its folder.
//!
//! **Invariant:** it begins when the lab's end of its standard input closes, which the kernel does however the
//! lab ends, and kills only what works inside the lab's folder.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::process::{self, ProcessError};

/// Starts the undertaker of a lab: `chaos undertaker`. It is not tethered, and works outside the lab's folder.
/// Dropping the child's standard input sets it to work.
///
/// # Errors
/// When the program cannot be started.
pub fn start(chaos: &Path, lab: &Path, keep: bool) -> io::Result<Child> {
    let mut command = Command::new(chaos);
    command.arg("undertaker").arg("--lab").arg(lab);
    if keep {
        command.arg("--keep");
    }
    // A group of its own: Ctrl-C on the terminal is for the lab, whose end it waits for.
    command.current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Waits until `lab` has ended, kills every process left in its folder and removes that, unless it is kept. A lab
/// that has cleaned up after itself leaves nothing to do.
///
/// # Errors
/// When processes survive.
pub fn serve(folder: &Path, keep: bool, mut lab: impl Read) -> Result<(), ProcessError> {
    // Nothing is ever written to it; an error is an end too.
    let _ = io::copy(&mut lab, &mut io::sink());
    process::kill_within(folder)?;
    if !keep {
        // Gone already after an orderly end.
        let _ = std::fs::remove_dir_all(folder);
    }
    Ok(())
}
