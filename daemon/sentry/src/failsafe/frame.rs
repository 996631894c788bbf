//! Frames: four bytes of length, then JSON; sealed ones say whose they are and bear the seal on their very bytes.
//!
//! **Invariant:** nothing longer than the bound is read, whatever the length says.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};

use lifeboat_core::AgentName;
use lifeboat_engine::ports::Seal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest frame: a question is under 1 KiB.
const LONGEST: u32 = 8 << 10;

/// What seals are made on begins with this, so that no seal on anything else is ever taken for one of ours.
const PURPOSE: &str = "lifeboat failsafe 1\n";

/// A body under a seal.
#[derive(Serialize, Deserialize)]
struct Sealed {
    by: AgentName,
    /// JSON, as it was sealed.
    body: String,
    /// Hexadecimal.
    seal: String,
}

pub(super) async fn write<T: Serialize>(stream: &mut (impl AsyncWrite + Unpin), value: &T) -> io::Result<()> {
    let body = serde_json::to_vec(value)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= LONGEST);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a frame too long"))?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(body);
    stream.write_all(&frame).await?;
    stream.flush().await
}

pub(super) async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let length = stream.read_u32().await?;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

pub(super) async fn write_sealed<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    value: &T,
    by: &AgentName,
    seal: &dyn Seal,
) -> io::Result<()> {
    let body = serde_json::to_string(value)?;
    let seal = text(&seal.sign(format!("{PURPOSE}{body}").as_bytes()));
    write(stream, &Sealed { by: by.clone(), body, seal }).await
}

/// What was read, and whose it is.
pub(super) async fn read_sealed<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    seal: &dyn Seal,
) -> io::Result<(AgentName, T)> {
    let sealed: Sealed = read(stream).await?;
    let bytes = bytes(&sealed.seal).unwrap_or_default();
    if !seal.is_of(&sealed.by, format!("{PURPOSE}{}", sealed.body).as_bytes(), &bytes) {
        let why = format!("the seal is not {}'s", sealed.by);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok((sealed.by, serde_json::from_str(&sealed.body)?))
}

/// A word that is said once: 128 bits of the kernel's.
pub(super) fn word() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(text(&bytes))
}

fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    // Writing into a String cannot fail.
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(byte).collect()
}
