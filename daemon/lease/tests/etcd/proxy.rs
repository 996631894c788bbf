//! A TCP proxy before an etcd member: it answers late, or takes what is sent and never answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Gone with the test.
pub(crate) struct Proxy {
    pub(crate) endpoint: String,
    mute: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Before that endpoint; each answer comes that much later.
    pub(crate) async fn start(endpoint: &str, late: Duration) -> Self {
        let target = endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let mute = Arc::new(AtomicBool::new(false));
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
        self.mute.store(true, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(near: TcpStream, target: String, late: Duration, mute: Arc<AtomicBool>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let there = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_near, &mut to_far).await;
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from_far.read(&mut buffer).await {
        if mute.load(Ordering::SeqCst) {
            continue;
        }
        tokio::time::sleep(late).await;
        if to_near.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    there.abort();
}
