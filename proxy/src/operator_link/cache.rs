//! The last good table in a file, so that a proxy that is restarted while no operator is there serves what it served.
//!
//! The file holds the messages an operator would send for it, so what is read is checked like what is heard, and a
//! restriction that was not understood still is not. It is for the build that wrote it alone: a newer one may understand a
//! restriction by name whose value the older one has already dropped. Secrets are not in it: token keys are kept in
//! memory only.
//!
//! ```text
//! latchkey-table 1 0.1.0 \n     format, version of the program
//! length (4 bytes) Update       as often as there are parts
//! 0 (4 bytes) SHA-256           of all before it
//! ```

use std::{
    fs,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use operator_link::{
    Position, Read as Reading, ReadError, UpdateReader, UpdateWriter,
    limits::{MAX_BLOCK_LISTS, MAX_MESSAGE_BYTES},
    wire,
};
use prost::Message as _;
use route_table::RouteTable;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::table::InForce;

/// What a file of this format and this program begins with.
const HEAD: &str = concat!("latchkey-table 1 ", env!("CARGO_PKG_VERSION"), "\n");
/// Every table but the first is written so long after it came into force: what it cuts is cut first.
const WRITE_AFTER: Duration = Duration::from_secs(1);
/// A large table is written less often: at most this part of the time is spent on it.
const SHARE: u32 = 20;

/// Why there is no table in the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    #[error("{0}")]
    File(#[from] io::Error),
    #[error("it was written by another build")]
    Foreign,
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    #[error("it is damaged: {0}")]
    Message(#[from] prost::DecodeError),
    #[error("its table makes no sense: {0}")]
    Table(#[from] ReadError),
    #[error("the table has more than {MAX_BLOCK_LISTS} lists of version blocks")]
    TooManyLists,
}

/// The table of the file; none when there is no file.
pub(super) fn read(path: &Path) -> Result<Option<(Position, RouteTable)>, CacheError> {
    let mut file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => Hashed { inner: BufReader::new(file?), digest: Sha256::new() },
    };
    let mut head = [0; HEAD.len()];
    file.read_exact(&mut head).map_err(|_| CacheError::Foreign)?;
    if head != HEAD.as_bytes() {
        return Err(CacheError::Foreign);
    }
    let (mut reader, mut found, mut frame) = (UpdateReader::default(), None, Vec::new());
    loop {
        let mut length = [0; 4];
        file.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length == 0 {
            break;
        }
        if length > MAX_MESSAGE_BYTES {
            return Err(CacheError::Damaged("a part is too long"));
        }
        frame.resize(length, 0);
        file.read_exact(&mut frame)?;
        if found.is_some() {
            return Err(CacheError::Damaged("there is more after the last part"));
        }
        if let Reading::Table(position, table) = reader.take(wire::Update::decode(frame.as_slice())?, None)? {
            found = Some((position, table));
        }
    }
    let expected = file.digest.finalize();
    let mut digest = [0; 32];
    file.inner.read_exact(&mut digest)?;
    if digest[..] != expected[..] {
        return Err(CacheError::Damaged("its digest is another"));
    }
    found.map(Some).ok_or(CacheError::Damaged("it has no last part"))
}

/// Writes the file beside and renames it, so that nobody ever reads half of it.
pub(super) fn write(path: &Path, position: Position, table: &RouteTable) -> Result<(), CacheError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Whoever reads it wants a domain; an operator's table always has one.
    let Some(domain) = &table.domain else { return Ok(()) };
    let beside = path.with_extension(format!("new{}", std::process::id()));
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let mut file = Hashed { inner: BufWriter::new(file), digest: Sha256::new() };
    let mut write = || -> Result<(), CacheError> {
        file.write_all(HEAD.as_bytes())?;
        let (mut writer, mut lists) = (UpdateWriter::default(), 0);
        for part in writer.everything(position, domain, table.routes().cloned()) {
            lists += part.block_lists.len();
            if lists > MAX_BLOCK_LISTS {
                return Err(CacheError::TooManyLists);
            }
            let part = part.encode_to_vec();
            let length = u32::try_from(part.len()).map_err(|_| CacheError::Damaged("a part is too long"))?;
            file.write_all(&length.to_be_bytes())?;
            file.write_all(&part)?;
        }
        file.write_all(&[0; 4])?;
        let digest = file.digest.clone().finalize();
        file.inner.write_all(&digest)?;
        file.inner.flush()?;
        file.inner.get_ref().sync_all()?;
        Ok(fs::rename(&beside, path)?)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

/// Passes bytes on and adds them up.
struct Hashed<T> {
    inner: T,
    digest: Sha256,
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.digest.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.digest.update(buffer.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes the table in force whenever it is another one, for ever.
pub(super) async fn keep(path: PathBuf, mut present: watch::Receiver<Option<InForce>>) {
    let (mut told, mut after) = (false, Duration::ZERO);
    while present.changed().await.is_ok() {
        tokio::time::sleep(std::mem::replace(&mut after, WRITE_AFTER)).await;
        let Some(InForce { position, table }) = present.borrow_and_update().clone() else { continue };
        let (start, path) = (Instant::now(), path.clone());
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || write(&path, position, &table)).await;
        match written {
            Ok(Ok(())) => told = false,
            Ok(Err(error)) if !told => {
                told = true;
                tracing::warn!(target: "latchkey::operator", file = shown, %error, "the table cannot be kept for a restart");
            }
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep((start.elapsed() * SHARE).saturating_sub(WRITE_AFTER)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use route_table::{AgentKey, Fingerprint, Route};

    use super::*;

    const POSITION: Position = Position { term: 3, revision: 9 };

    fn table(routes: u32) -> RouteTable {
        let routes = (0..routes).map(|at| {
            let fingerprint = Fingerprint::from_bytes([u8::try_from(at % 7).unwrap(); 32]);
            Route::new(format!("homes/house-{at}").parse().unwrap()).with(|terms| {
                terms.hostnames = vec![format!("house-{at}.ui.example.com").parse().unwrap()];
                if at <= 6 {
                    terms.agent_keys.push(AgentKey { fingerprint, generation: 1 });
                }
                terms.not_understood = vec!["maxBandwidth".to_owned()];
            })
        });
        RouteTable::from_routes(9, Some("ui.example.com".parse().unwrap()), routes).unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_only_its_owner_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        assert!(read(&path).unwrap().is_none(), "no file is no mistake");
        for size in [0, 3, 5_000] {
            let table = table(size);
            write(&path, POSITION, &table).unwrap();
            let (position, found) = read(&path).unwrap().unwrap();
            assert_eq!((position, found.len(), &found.domain), (POSITION, table.len(), &table.domain));
            for route in table.routes() {
                assert_eq!(found.by_id(route.id.as_str()), Some(route));
            }
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_is_damaged_or_of_another_build_is_no_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        write(&path, POSITION, &table(40)).unwrap();
        let good = fs::read(&path).unwrap();
        let reads = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read(&path)
        };
        assert!(reads(&good).is_ok());
        for end in (0..good.len()).step_by(97) {
            assert!(reads(&good[..end]).is_err(), "cut at {end}");
        }
        for at in (0..good.len()).step_by(31) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            assert!(reads(&bytes).is_err(), "another byte at {at}");
        }
        let foreign = [b"latchkey-table 1 0.0.9\n".as_slice(), &good[HEAD.len()..]].concat();
        assert!(matches!(reads(&foreign), Err(CacheError::Foreign)));
        let mut long = HEAD.as_bytes().to_vec();
        long.extend_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(reads(&long), Err(CacheError::Damaged(_))), "nothing is allocated for it");
    }

    #[tokio::test]
    async fn the_table_in_force_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        let (in_force, present) = watch::channel(None);
        let task = tokio::spawn(keep(path.clone(), present));
        in_force.send_replace(Some(InForce { position: POSITION, table: table(2).into() }));
        let kept = async {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), kept).await.unwrap();
        assert_eq!(read(&path).unwrap().unwrap().1.len(), 2);
        task.abort();
    }
}
