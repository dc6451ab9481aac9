//! An instance: a web server on loopback that says its name.

use std::net::SocketAddr;

use latchkey_cluster_tests::TestError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A web server. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct WebServer {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl WebServer {
    /// One whose every page is this text.
    pub(crate) async fn start(page: &str) -> Result<Self, TestError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer.clone()));
            }
        });
        Ok(Self { address, task })
    }
}

/// A request without a body ends with an empty line.
async fn serve(mut stream: TcpStream, answer: String) {
    let mut heard = Vec::new();
    let mut some = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut some).await {
        heard.extend_from_slice(&some[..read]);
        while let Some(end) = heard.windows(4).position(|part| part == b"\r\n\r\n") {
            heard.drain(..end + 4);
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
