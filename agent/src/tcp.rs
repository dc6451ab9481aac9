//! Outbound TCP connections to the proxy.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::target::split_host_port;

/// One address gets this long before the next is tried.
const PER_ADDRESS: Duration = Duration::from_secs(4);
/// The kernel notices a dead path when nothing is said either.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// What the proxy may have on its way to us. It bounds what still comes after a pause.
const WINDOW: usize = 2 << 20;
/// What may wait in the kernel without being on its way: the rest stays where a pause can still stop it.
const UNSENT: u32 = 512 << 10;

/// Connects to `HOST:PORT`, trying the addresses behind the name one after the other.
pub async fn connect(server: &str) -> io::Result<TcpStream> {
    let (host, port) =
        split_host_port(server).map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in tokio::net::lookup_host((host.as_str(), port)).await? {
        match tokio::time::timeout(PER_ADDRESS, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
                let socket = SockRef::from(&stream);
                socket.set_tcp_keepalive(&keepalive)?;
                socket.set_recv_buffer_size(WINDOW)?;
                socket.set_tcp_notsent_lowat(UNSENT)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_connection_names_the_address() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = connect(&closed.to_string()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&closed.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_connection_is_without_delay() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(&listener.local_addr().unwrap().to_string()).await.unwrap();
        assert!(stream.nodelay().unwrap());
    }
}
