//! The caller's end of `chaos host exec`.
//!
//! Plain blocking code on the first thread: its standard input may stay open for ever without keeping it from
//! ending.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::{Call, Directory, Kind, line};
use crate::power;
use crate::region::{Region, Site};

/// The exit code when there is no connection, or it broke: that of ssh(1).
pub const NO_CONNECTION: u8 = 255;
/// How long the connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The largest frame a host sends.
const FRAME_LIMIT: u32 = 16 * 1024;

/// Runs a program on a region's host with this process's standard input, output and error, and returns its exit
/// code; [`NO_CONNECTION`] with a line on standard error when the region is off, lost or cut off, and when the
/// connection broke before the program ended. Then the program may go on.
///
/// Waits as long as the program runs, for ever on a host that is silent: the caller has the deadline.
#[must_use]
pub fn run(lab: &Path, from: Option<Site>, region: Region, argv: Vec<String>, errors: &mut dyn Write) -> u8 {
    match call(lab, from, region, argv, errors) {
        Ok(code) => u8::try_from(code).unwrap_or(NO_CONNECTION),
        Err(error) => {
            // There is nowhere else to say it.
            let _ = writeln!(errors, "chaos host exec: {region}: {error}");
            NO_CONNECTION
        }
    }
}

fn call(
    lab: &Path,
    from: Option<Site>,
    region: Region,
    argv: Vec<String>,
    errors: &mut dyn Write,
) -> io::Result<i32> {
    if let Some(off) = power::state(lab, region) {
        return Err(io::Error::other(format!("powered off (epoch {})", off.epoch)));
    }
    let Directory { secret, paths } = Directory::read(lab, from)?;
    let address = paths.get(&region).ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(address, CONNECT_LIMIT)?;
    stream.set_nodelay(true)?;
    stream.write_all(&line(&Call { secret, argv })?)?;
    let mut to = stream.try_clone()?;
    // Left behind when the program ends before its input does; it ends with this process.
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        // An input that breaks ends, and a connection that broke is seen by the reader below.
        let _ = io::copy(&mut io::stdin().lock(), &mut to);
        let _ = to.shutdown(Shutdown::Write);
    })?;
    loop {
        let (kind, content) = frame(&mut stream)?;
        match kind {
            // Whoever reads this may be gone; the program's end is waited for all the same.
            Kind::Output => {
                let mut output = io::stdout().lock();
                let _ = output.write_all(&content).and_then(|()| output.flush());
            }
            Kind::Errors => {
                let _ = errors.write_all(&content).and_then(|()| errors.flush());
            }
            Kind::Exit => {
                let code = content.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
                return Ok(i32::from_be_bytes(code));
            }
        }
    }
}

fn frame(stream: &mut TcpStream) -> io::Result<(Kind, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let (kind, length) = (Kind::of(kind), u32::from_be_bytes(length));
    let Some(kind) = kind.filter(|_| length <= FRAME_LIMIT) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut content = vec![0; length as usize];
    stream.read_exact(&mut content)?;
    Ok((kind, content))
}
