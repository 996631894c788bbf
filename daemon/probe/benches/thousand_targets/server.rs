//! The thousand targets: one small server in a process of its own, with a path for each.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::BODY;
use crate::process::Ended;

/// Requests of this path are never answered.
const SILENT: &str = "/silent";
const SILENT_REQUEST: &[u8] = b"GET /silent";

/// The server's process.
pub(crate) struct Server {
    _process: Ended,
    port: u16,
}

impl Server {
    pub(crate) fn start() -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut process =
            Command::new(program).arg("--serve").stdout(Stdio::piped()).spawn().expect("this program again");
        let mut line = String::new();
        let output = process.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("the server's port");
        Self { _process: Ended(process), port: line.trim().parse().expect("a port") }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    pub(crate) fn silent_url(&self) -> String {
        self.url() + SILENT
    }
}

/// Serves until it is ended.
pub(crate) fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        println!("{}", listener.local_addr().expect("an address").port());
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        }
    });
}

async fn answer(mut stream: TcpStream) {
    let mut request = vec![0; 2048];
    let read = stream.read(&mut request).await;
    if request.starts_with(SILENT_REQUEST) {
        // Until the probe hangs up.
        let _ = stream.read(&mut request).await;
    } else if read.is_ok_and(|length| length > 0) {
        let length = BODY.len();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close";
        let answer = format!("{head}\r\nContent-Length: {length}\r\n\r\n{BODY}");
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}
