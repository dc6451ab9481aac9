//! How commands speak to a running installation: HTTP on a unix socket in the state folder of `latchkey up`, or on its admin
//! address or an operator's.

use std::{
    convert::Infallible,
    fs::{self, File},
    io,
    net::SocketAddr,
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixListener, UnixStream},
    sync::{Semaphore, watch},
};

use board::{Board, STATUS_PATH, Selection};

const SOCKET: &str = "up.sock";
/// The kernel takes no longer paths for sockets (107 bytes); below it by a margin.
const LONGEST_PATH: usize = 100;
const CONNECTIONS: usize = 16;
const TIME: Duration = Duration::from_secs(10);
/// A board of 100,000 instances is some 60 MB.
const LARGEST_BOARD: usize = 256 << 20;

/// Where a running installation can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// In the state folder of `latchkey up`.
    State(PathBuf),
    /// On the admin address of `latchkey up` or of an operator.
    Admin(SocketAddr),
}

/// Nothing, or nothing good, was heard.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there.
    #[error("nobody answers there ({0})")]
    NobodyThere(io::Error),
    /// Somebody is there and does not answer as they should.
    #[error("what runs there does not answer like `latchkey up` or an operator: {0}")]
    Strange(String),
}

/// A socket's path, and a folder that has to stay open for as long as it is used.
fn socket_path(state: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = state.join(SOCKET);
    if path.as_os_str().as_bytes().len() <= LONGEST_PATH {
        return Ok((path, None));
    }
    let folder = File::open(state)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd())), Some(folder)))
}

/// Begins to listen in a state folder that this process has for itself.
pub fn listen(state: &Path) -> io::Result<UnixListener> {
    let (path, _folder) = socket_path(state)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers for ever.
pub async fn serve(listener: UnixListener, board: watch::Receiver<Arc<Board>>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let board = board.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.method(), request.uri().path(), &board);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(TIME)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(TIME * 3, connection).await;
        });
    }
}

fn answer(method: &Method, path: &str, board: &watch::Receiver<Arc<Board>>) -> Response<Full<Bytes>> {
    let (status, body) = match (method, path) {
        (&Method::GET, STATUS_PATH) => (StatusCode::OK, document(board)),
        _ => (StatusCode::NOT_FOUND, "{}".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The board as JSON.
pub fn document(board: &watch::Receiver<Arc<Board>>) -> String {
    let board = board.borrow().clone();
    serde_json::to_string(&*board).unwrap_or_default()
}

/// Asks for the board. What runs one folder tells every instance, whatever is selected.
pub async fn ask(place: &Where, selection: &Selection) -> Result<Board, AskError> {
    let path = format!("{STATUS_PATH}?{}", selection.query());
    let asked = async {
        match place {
            Where::State(state) => {
                let (socket, _folder) = socket_path(state).map_err(AskError::NobodyThere)?;
                get(UnixStream::connect(&socket).await.map_err(AskError::NobodyThere)?, &path).await
            }
            Where::Admin(address) => {
                get(TcpStream::connect(address).await.map_err(AskError::NobodyThere)?, &path).await
            }
        }
    };
    let late = || AskError::Strange(format!("no answer within {} s", TIME.as_secs()));
    tokio::time::timeout(TIME, asked).await.map_err(|_| late())?
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
) -> Result<Board, AskError> {
    let strange = |error: &dyn std::fmt::Display| AskError::Strange(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| strange(&error))?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, "latchkey")
        .body(Empty::<Bytes>::new())
        .map_err(|error| strange(&error))?;
    let response = sender.send_request(request).await.map_err(|error| strange(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST_BOARD).collect().await;
    connection.abort();
    if status != StatusCode::OK {
        return Err(AskError::Strange(format!(
            "it says {status}; is it the admin address of a latchkey-proxy, or an operator of another version?"
        )));
    }
    serde_json::from_slice(&body.map_err(|error| strange(&error))?.to_bytes())
        .map_err(|error| strange(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_board_is_told_from_folders_with_short_and_long_paths() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["short".to_owned(), "long".repeat(40)] {
            let state = dir.path().join(name);
            fs::create_dir(&state).unwrap();
            let nobody = ask(&Where::State(state.clone()), &Selection::default()).await.unwrap_err();
            assert!(matches!(nobody, AskError::NobodyThere(_)), "{nobody}");
            let board = Board { domain: "localhost".to_owned(), revision: 7, ..Board::default() };
            let (_sender, receiver) = watch::channel(Arc::new(board.clone()));
            for _ in 0..2 {
                // The second finds what the first has left behind.
                let serving = tokio::spawn(serve(listen(&state).unwrap(), receiver.clone()));
                assert_eq!(ask(&Where::State(state.clone()), &Selection::default()).await.unwrap(), board);
                let mode = fs::metadata(state.join(SOCKET)).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
                serving.abort();
                assert!(serving.await.unwrap_err().is_cancelled());
            }
        }
    }
}
