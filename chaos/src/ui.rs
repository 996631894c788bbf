//! All that `chaos` prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the one module that prints")]

/// One line of result.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// What went wrong, with its causes.
pub(crate) fn failed(error: &anyhow::Error) {
    eprintln!("chaos: {error:#}");
}
