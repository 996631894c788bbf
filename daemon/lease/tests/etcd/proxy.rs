//! A TCP proxy before an etcd member: it answers late, or takes what is sent and never answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Whether, and when, nothing comes back.
#[derive(Default)]
struct Silence {
    now: AtomicBool,
    at: Mutex<Vec<u8>>,
}

/// Gone with the test.
pub(crate) struct Proxy {
    pub(crate) endpoint: String,
    mute: Arc<Silence>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Before that endpoint; each answer comes that much later.
    pub(crate) async fn start(endpoint: &str, late: Duration) -> Self {
        let target = endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let mute = Arc::new(Silence::default());
        let silent = Arc::clone(&mute);
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.expect("accepted");
                tokio::spawn(pass(near, target.clone(), late, Arc::clone(&silent)));
            }
        });
        Self { endpoint, mute, task }
    }

    /// From now on nothing comes back; what is sent arrives all the same.
    pub(crate) fn mute(&self) {
        self.mute.now.store(true, Ordering::SeqCst);
    }

    /// The same, from the moment when something with these bytes is sent.
    pub(crate) fn mute_at(&self, bytes: &str) {
        *self.mute.at.lock().expect("a lock") = bytes.as_bytes().to_vec();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(near: TcpStream, target: String, late: Duration, mute: Arc<Silence>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let silence = Arc::clone(&mute);
    let there = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_near.read(&mut buffer).await {
            let at = silence.at.lock().expect("a lock").clone();
            if !at.is_empty() && buffer[..length].windows(at.len()).any(|bytes| bytes == at) {
                silence.now.store(true, Ordering::SeqCst);
            }
            if to_far.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from_far.read(&mut buffer).await {
        if mute.now.load(Ordering::SeqCst) {
            continue;
        }
        tokio::time::sleep(late).await;
        if to_near.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    there.abort();
}
