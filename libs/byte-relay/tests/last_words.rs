//! The last words arrive, even when the other side had said something that nobody read.
#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

use std::time::Duration;

use byte_relay::last_words::{PATIENCE, say_goodbye};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

const LONG: Duration = Duration::from_secs(10);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = TcpStream::connect(listener.local_addr().unwrap());
    let (visitor, ours) = tokio::join!(connect, listener.accept());
    (visitor.unwrap(), ours.unwrap().0)
}

#[tokio::test]
async fn a_visitor_that_was_not_read_still_gets_the_last_words() {
    let (mut visitor, mut ours) = pair().await;
    visitor.write_all(&[1; 10_000]).await.unwrap();
    // It is here, and stays unread: a plain close would answer it with a reset.
    ours.readable().await.unwrap();
    ours.write_all(b"goodbye").await.unwrap();
    let close = tokio::spawn(say_goodbye(ours));
    let mut heard = Vec::new();
    timeout(LONG, visitor.read_to_end(&mut heard)).await.unwrap().expect("no reset");
    assert_eq!(heard, b"goodbye");
    // It may even go on talking, and hear of no reset before it hangs up itself.
    visitor.write_all(&[2; 1000]).await.unwrap();
    visitor.shutdown().await.unwrap();
    timeout(LONG, close).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_plain_close_would_have_cut_them_off() {
    let (mut visitor, mut ours) = pair().await;
    visitor.write_all(&[1; 10_000]).await.unwrap();
    ours.readable().await.unwrap();
    ours.write_all(b"goodbye").await.unwrap();
    drop(ours);
    let mut heard = Vec::new();
    let ended = timeout(LONG, visitor.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_visitor_that_never_hangs_up_is_not_waited_for() {
    let (visitor, ours) = pair().await;
    let start = Instant::now();
    timeout(LONG, say_goodbye(ours)).await.unwrap();
    let took = start.elapsed();
    assert!(took >= PATIENCE && took < 2 * PATIENCE, "{took:?}");
    drop(visitor);
}

#[tokio::test]
async fn a_visitor_that_never_stops_talking_is_not_listened_to() {
    let (mut visitor, ours) = pair().await;
    let close = tokio::spawn(say_goodbye(ours));
    let words = vec![3; 64 << 10];
    let babble = async { while visitor.write_all(&words).await.is_ok() {} };
    timeout(LONG, babble).await.unwrap();
    timeout(LONG, close).await.unwrap().unwrap();
}
