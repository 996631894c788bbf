//! Little TCP listeners that answer whenever the network works: what the agent proves its connectivity with.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// A running witness. It ends when this value is dropped.
#[derive(Debug)]
pub struct Witness(AbortHandle);

impl Witness {
    /// Listens; says hello to everyone who connects, and closes.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(listen: SocketAddr) -> io::Result<Witness> {
        let listener = TcpListener::bind(listen).await?;
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // Whoever only wanted the connection may have closed it.
                tokio::spawn(
                    async move { tokio::io::AsyncWriteExt::write_all(&mut stream, b"here\n").await },
                );
            }
        });
        Ok(Witness(task.abort_handle()))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.abort();
    }
}
