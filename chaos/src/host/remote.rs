//! The host's end of `chaos host exec`: runs a program for a caller.
//!
//! **Invariant:** a caller that goes away closes the program's pipes and nothing else: the program goes on to its
//! end, as one started over ssh without a terminal does.

use std::io;
use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::supervisor::Supervisor;
use super::{Call, Kind, LINE_LIMIT, NO_CONNECTION};
use crate::process::tethered;

/// Answers one caller. Hangs up without a word on one who does not know the secret, and while the region is off.
pub(super) async fn answer(host: &Supervisor, stream: TcpStream) {
    // Without this small frames wait for an acknowledgement; refused only for sockets that are closed.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut text = String::new();
    let read = (&mut reader).take(LINE_LIMIT).read_line(&mut text).await;
    let call = read.ok().and_then(|_| serde_json::from_str::<Call>(&text).ok());
    let Some(call) = call.filter(|call| call.secret == host.secret && !host.is_off()) else { return };
    // Frames of at most 16 KiB: 16 of them are what a slow caller makes a program wait for.
    let (frames, queue) = mpsc::channel(16);
    let writing = tokio::task::spawn_local(write(writer, queue));
    match spawn(host, &call.argv) {
        Ok(child) => attend(child, reader, frames).await,
        Err(error) => {
            let text = format!("cannot run {:?}: {error}\n", call.argv.first());
            // A caller that has gone misses nothing.
            let _ = frames.send((Kind::Errors, Bytes::from(text))).await;
            let _ = frames.send(exit(126)).await;
        }
    }
    // It ends by itself: all its senders are gone.
    let _ = writing.await;
}

fn exit(code: i32) -> (Kind, Bytes) {
    (Kind::Exit, Bytes::copy_from_slice(&code.to_be_bytes()))
}

fn spawn(host: &Supervisor, argv: &[String]) -> io::Result<Child> {
    let (program, args) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::from(tethered(Path::new(program), host.owner));
    command.args(args).current_dir(&host.folder).env_clear();
    command.env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").env("HOME", &host.folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn()
}

async fn attend(mut child: Child, stdin: BufReader<OwnedReadHalf>, frames: mpsc::Sender<(Kind, Bytes)>) {
    if let Some(pipe) = child.stdin.take() {
        tokio::task::spawn_local(feed(stdin, pipe));
    }
    let output =
        child.stdout.take().map(|pipe| tokio::task::spawn_local(pump(Kind::Output, pipe, frames.clone())));
    let errors =
        child.stderr.take().map(|pipe| tokio::task::spawn_local(pump(Kind::Errors, pipe, frames.clone())));
    let status = child.wait().await;
    // All it said goes before its end.
    for pump in [output, errors].into_iter().flatten() {
        let _ = pump.await;
    }
    // Without a code a signal ended it: ssh says the same then as when it has no connection.
    let code = status.ok().and_then(|status| status.code()).unwrap_or(NO_CONNECTION.into());
    let _ = frames.send(exit(code)).await;
}

/// Passes the caller's input on until it ends or the program closes its own.
async fn feed(mut from: BufReader<OwnedReadHalf>, mut pipe: tokio::process::ChildStdin) {
    // Either end closing it is its end.
    let _ = tokio::io::copy_buf(&mut from, &mut pipe).await;
}

async fn pump(kind: Kind, mut pipe: impl AsyncRead + Unpin, frames: mpsc::Sender<(Kind, Bytes)>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        if frames.send((kind, Bytes::copy_from_slice(&buffer[..count]))).await.is_err() {
            return;
        }
    }
}

async fn write(mut to: OwnedWriteHalf, mut frames: mpsc::Receiver<(Kind, Bytes)>) {
    while let Some((kind, content)) = frames.recv().await {
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
        let head = [kind as u8, length[0], length[1], length[2], length[3]];
        if to.write_all(&head).await.is_err() || to.write_all(&content).await.is_err() {
            return;
        }
    }
}
