//! The public socket. A new process may take the port beside an old one.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use nix::{
    libc, setsockopt_impl, sockopt_impl,
    sys::socket::{setsockopt, sockopt::AttachReusePortCbpf},
};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel keeps for us while we do something else.
const BACKLOG: i32 = 4096;
/// A connection is shown to us once it has said something, or after this. Short, so that the limit on silent
/// connections counts from about when they came.
const SILENCE: Duration = Duration::from_secs(1);

/// Opens a listening socket that shares its port with other processes of this user.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    open(address, true)
}

/// Opens a listening socket that has its port alone: an error while anybody else listens there.
pub fn listen_alone(address: SocketAddr) -> io::Result<TcpListener> {
    open(address, false)
}

fn open(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 visitors, too.
        socket.set_only_v6(false)?;
    }
    // Accepted sockets inherit it, which saves a call for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    setsockopt(&socket, TcpDeferAccept, &u32::try_from(SILENCE.as_secs()).unwrap_or(1))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

sockopt_impl!(
    /// Show a connection only once it has said something.
    TcpDeferAccept,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_DEFER_ACCEPT,
    u32
);

/// Sends new connections to a process that listens beside us, if there is one.
///
/// Each process has one socket for an address, and the kernel numbers those of a port in the order they
/// came, so a newer process is number 1. A filter that picks a number nobody has is passed over, and the
/// kernel chooses by its hash as before: alone, we go on accepting. Sockets that close make no difference
/// to it: the last one takes the empty place.
pub fn prefer_newcomer(listener: &TcpListener) -> io::Result<()> {
    /// "Return this constant", in the language of classic BPF.
    const RETURN: u16 = 0x06;
    let mut program = [libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: 1 }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // A connection that said nothing yet belongs to us; show it now, while we still answer.
    setsockopt(listener, TcpDeferAccept, &0)?;
    setsockopt(listener, AttachReusePortCbpf, &filter)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
        thread,
        time::Instant,
    };

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test without a reactor")]
    fn accept(listener: &TcpListener) -> Option<TcpStream> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {
            if let Ok((stream, _)) = listener.accept() {
                return Some(stream);
            }
            thread::sleep(Duration::from_millis(2));
        }
        None
    }

    #[test]
    fn a_port_of_its_own_is_not_shared() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(listen_alone(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let alone = listen_alone(address).unwrap();
        assert!(listen(address).is_err());
        drop(alone);
        assert!(listen(address).is_ok());
    }

    #[test]
    fn the_newcomer_gets_all_and_the_one_that_stays_behind_gets_them_again() {
        let old = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = old.local_addr().unwrap();
        prefer_newcomer(&old).unwrap();
        let mut alone = TcpStream::connect(address).unwrap();
        alone.write_all(b"hello").unwrap();
        assert!(accept(&old).is_some(), "alone, it goes on accepting");
        let new = listen(address).unwrap();
        for _ in 0..20 {
            let mut visitor = TcpStream::connect(address).unwrap();
            visitor.write_all(b"hello").unwrap();
            let mut accepted = accept(&new).expect("the newcomer accepts");
            accepted.set_nonblocking(false).unwrap();
            let mut said = [0; 5];
            accepted.read_exact(&mut said).unwrap();
        }
        drop(new);
        let mut again = TcpStream::connect(address).unwrap();
        again.write_all(b"hello").unwrap();
        assert!(accept(&old).is_some());
    }
}
