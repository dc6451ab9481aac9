//! A close that lets the last words through.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long the other side may take to hang up after us.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// What it may still send in that time.
const ALLOWANCE: usize = 256 << 10;

/// Ends our direction, reads and drops what still comes until the other side has ended its own, and closes.
///
/// Closing at once would answer bytes in flight with a reset, and a reset can overtake what we said last.
pub async fn say_goodbye(mut stream: TcpStream) {
    let drain = async {
        stream.shutdown().await?;
        let mut left = ALLOWANCE;
        let mut buffer = [0; 1024];
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        Ok::<(), std::io::Error>(())
    };
    // Whatever went wrong, the connection ends here.
    let _ = timeout(PATIENCE, drain).await;
}
