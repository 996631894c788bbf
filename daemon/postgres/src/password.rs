//! Reading a password file.
//!
//! **Invariant:** what a file holds is in no error, only its path is.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::io::AsyncReadExt;

/// Bytes of a password file, at most. PostgreSQL's own clients take about 1 kB.
const LONGEST: u64 = 4096;

/// Why a password file gives no password.
#[derive(Debug, Error)]
pub(crate) enum PasswordError {
    #[error("password file {} cannot be read: {source}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("password file {} is not a regular file", .path.display())]
    NotAFile { path: PathBuf },
    #[error("password file {} is longer than {LONGEST} bytes", .path.display())]
    TooLong { path: PathBuf },
    #[error("password file {} must hold one line, and holds {lines}", .path.display())]
    NotOneLine { path: PathBuf, lines: usize },
}

/// Reads the one line of `path`, without white space around it.
pub(crate) async fn read(path: &Path) -> Result<Vec<u8>, PasswordError> {
    let unreadable = |source| PasswordError::Unreadable { path: path.to_owned(), source };
    // Asked before it is opened: opening a pipe would wait for a writer.
    if !tokio::fs::metadata(path).await.map_err(unreadable)?.is_file() {
        return Err(PasswordError::NotAFile { path: path.to_owned() });
    }
    let mut content = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    file.take(LONGEST + 1).read_to_end(&mut content).await.map_err(unreadable)?;
    if content.len() as u64 > LONGEST {
        return Err(PasswordError::TooLong { path: path.to_owned() });
    }
    let line = content.trim_ascii();
    let lines = if line.is_empty() { 0 } else { line.split(|byte| *byte == b'\n').count() };
    if lines != 1 {
        return Err(PasswordError::NotOneLine { path: path.to_owned(), lines });
    }
    Ok(line.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_file_of(content: &[u8]) -> Result<Vec<u8>, PasswordError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        read(file.path()).await
    }

    #[tokio::test]
    async fn one_line_is_a_password() {
        assert_eq!(read_file_of(b"hunter2\n").await.unwrap(), b"hunter2");
        assert_eq!(read_file_of(b"  with space inside \r\n").await.unwrap(), b"with space inside");
    }

    #[tokio::test]
    async fn anything_else_is_refused_without_its_content() {
        for content in [&b""[..], b"\n\n", b"sesame-1\nsesame-2\n", &[b's'; 5000]] {
            let error = read_file_of(content).await.unwrap_err().to_string();
            assert!(error.starts_with("password file /"), "{error}");
            assert!(!error.contains("sesame") && !error.contains("ssss"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path()).await, Err(PasswordError::NotAFile { .. })));
        assert!(matches!(read(&folder.path().join("none")).await, Err(PasswordError::Unreadable { .. })));
    }
}
