//! The Fernet keys that seal and open session tokens: from a watched file, from an operator, or made at start.
//!
//! A file that turns invalid changes nothing: the last good keys stay in force, and the error is reported
//! (log, metric, [`KeyStatus`]).

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rand::TryRng as _;
use sha2::{Digest as _, Sha256};
use snitun::token::{FernetKeys, KeyError};
use zeroize::Zeroizing;

use crate::metrics::{Metrics, unix_now};

/// How often a watched file is looked at. Reading some 100 bytes costs nothing, and unlike events it also
/// works on network file systems and when a mounted Secret is swapped under its folder.
pub const WATCH_EVERY: Duration = Duration::from_secs(2);

/// The largest key file that is read.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Why keys could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("the Fernet key file {} cannot be read: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file says something that is no key.
    #[error("the Fernet key file {}: {source}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The system gave no random bytes.
    #[error("no Fernet key can be made: the system gives no random bytes: {0}")]
    Random(String),
}

/// Where keys come from, and how that goes.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyStatus {
    /// The watched file; `None` for a key made at start.
    pub file: Option<PathBuf>,
    /// How many keys are in force.
    pub keys: usize,
    /// Since when, in Unix seconds.
    pub loaded_at: f64,
    /// Why the file as it is now was not taken, if so.
    pub error: Option<String>,
}

/// The Fernet keys in force.
pub struct FernetKeyRing {
    keys: ArcSwap<Shown>,
    file: Option<PathBuf>,
    /// A key made here that stays among those of an operator.
    own: Option<Zeroizing<String>>,
    state: Mutex<State>,
}

impl std::fmt::Debug for FernetKeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FernetKeyRing")
            .field("keys", &self.keys.load())
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Keys without a way to print them.
struct Shown(Arc<FernetKeys>);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} Fernet keys", self.0.len())
    }
}

#[derive(Debug)]
struct State {
    digest: [u8; 32],
    loaded_at: f64,
    error: Option<String>,
}

impl FernetKeyRing {
    /// Loads a file, which must be good now and is read again by [`FernetKeyRing::watch`].
    pub fn from_file(path: &Path) -> Result<Self, KeyFileError> {
        let (keys, digest) = load(path)?;
        warn_if_readable_by_others(path);
        Ok(Self::new(keys, digest, Some(path.to_owned())))
    }

    /// Makes one random key that lives as long as the process.
    pub fn random() -> Result<Self, KeyFileError> {
        let (keys, _) = made_here()?;
        tracing::warn!(
            target: "latchkey::keys",
            "no --fernet-keys given: made a key that ends with this process; tokens issued now open no tunnel \
             after a restart or on another replica, and agents then ask for a new session"
        );
        Ok(Self::new(keys, [0; 32], None))
    }

    /// A key made here, until [`FernetKeyRing::take_from_operator`] brings those that all replicas have.
    ///
    /// A process that was restarted while the operator is away has a table (its cache) and no keys: those are kept in
    /// memory alone. With a key of its own it lets an agent in at once that asks for its session and opens its tunnel
    /// here; one that opens it at another replica is refused there, and asks again. Without a key it could only send
    /// every agent away, so with two replicas half as many would be back, and with one nobody.
    pub fn until_an_operator_comes() -> Result<Self, KeyFileError> {
        let (keys, own) = made_here()?;
        Ok(Self { own: Some(own), ..Self::new(keys, [0; 32], None) })
    }

    /// Puts the operator's keys in force, the newest first; those it sent before are gone. The key made here still
    /// opens what it sealed, for agents between their session and their tunnel. `Ok(true)` when that changed something.
    pub fn take_from_operator(&self, keys: &[Zeroizing<[u8; 32]>]) -> Result<bool, KeyError> {
        if keys.is_empty() {
            return Err(KeyError::Empty);
        }
        let mut lines = Zeroizing::new(String::with_capacity(64 * (keys.len() + 1)));
        for line in keys.iter().map(|key| Zeroizing::new(Self::written(key))).chain(self.own.clone()) {
            lines.push_str(&line);
            lines.push('\n');
        }
        let keys = FernetKeys::from_lines(&lines)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = keys != *self.current();
        if changed {
            state.loaded_at = unix_now();
            self.keys.store(Arc::new(Shown(Arc::new(keys))));
        }
        Ok(changed)
    }

    /// A key as a line of a key file.
    pub fn written(key: &[u8; 32]) -> String {
        url_safe_base64(key)
    }

    fn new(keys: FernetKeys, digest: [u8; 32], file: Option<PathBuf>) -> Self {
        Self {
            keys: ArcSwap::from_pointee(Shown(Arc::new(keys))),
            file,
            own: None,
            state: Mutex::new(State { digest, loaded_at: unix_now(), error: None }),
        }
    }

    /// The keys in force; lock-free.
    pub fn current(&self) -> Arc<FernetKeys> {
        Arc::clone(&self.keys.load().0)
    }

    /// How the keys are.
    pub fn status(&self) -> KeyStatus {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        KeyStatus {
            file: self.file.clone(),
            keys: self.current().len(),
            loaded_at: state.loaded_at,
            error: state.error.clone(),
        }
    }

    /// Reads the file again. `Ok(true)` when other keys are in force now; on an error the old ones stay.
    pub fn reload(&self) -> Result<bool, KeyFileError> {
        let Some(path) = &self.file else { return Ok(false) };
        let loaded = load(path);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match loaded {
            Err(error) => {
                state.error = Some(error.to_string());
                Err(error)
            }
            Ok((keys, digest)) => {
                state.error = None;
                if digest == state.digest {
                    return Ok(false);
                }
                state.digest = digest;
                let changed = keys != *self.current();
                if changed {
                    state.loaded_at = unix_now();
                    self.keys.store(Arc::new(Shown(Arc::new(keys))));
                }
                Ok(changed)
            }
        }
    }

    /// Reads the file again and again, for ever; tells changes and errors once each.
    pub async fn watch(self: Arc<Self>, every: Duration, metrics: Arc<Metrics>) {
        self.show(&metrics);
        if self.file.is_none() {
            return std::future::pending().await;
        }
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told: Option<String> = None;
        loop {
            ticks.tick().await;
            match self.reload() {
                Ok(true) => {
                    tracing::info!(target: "latchkey::keys", keys = self.current().len(), "new Fernet keys in force");
                    told = None;
                }
                Ok(false) => told = None,
                Err(error) => {
                    let error = error.to_string();
                    if told.as_ref() != Some(&error) {
                        tracing::error!(target: "latchkey::keys", %error, "the Fernet keys loaded before stay in force");
                        told = Some(error);
                    }
                }
            }
            self.show(&metrics);
        }
    }

    /// Sets the metrics of the keys.
    pub fn show(&self, metrics: &Metrics) {
        let status = self.status();
        metrics.fernet_keys.set(i64::try_from(status.keys).unwrap_or(i64::MAX));
        metrics.fernet_keys_loaded.set(status.loaded_at);
        metrics.fernet_keys_error.set(i64::from(status.error.is_some()));
    }
}

/// One random key, and how it is written.
fn made_here() -> Result<(FernetKeys, Zeroizing<String>), KeyFileError> {
    let mut raw = Zeroizing::new([0_u8; 32]);
    rand::rngs::SysRng.try_fill_bytes(&mut *raw).map_err(|error| KeyFileError::Random(error.to_string()))?;
    let line = Zeroizing::new(url_safe_base64(&raw[..]));
    let keys = FernetKeys::from_lines(&line).map_err(|error| KeyFileError::Random(error.to_string()))?;
    Ok((keys, line))
}

fn load(path: &Path) -> Result<(FernetKeys, [u8; 32]), KeyFileError> {
    let read = || -> io::Result<Zeroizing<String>> {
        let mut text = Zeroizing::new(String::with_capacity(1024));
        let read = fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
        if u64::try_from(read).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
            return Err(io::Error::other("it is larger than 64 KiB: this is no file of keys"));
        }
        Ok(text)
    };
    let text = read().map_err(|source| KeyFileError::Read { path: path.to_owned(), source })?;
    let keys = FernetKeys::from_lines(&text)
        .map_err(|source| KeyFileError::Content { path: path.to_owned(), source })?;
    Ok((keys, Sha256::digest(text.as_bytes()).into()))
}

#[cfg(unix)]
fn warn_if_readable_by_others(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o007 != 0) {
        tracing::warn!(
            target: "latchkey::keys",
            file = %path.display(),
            "every user of this machine can read the Fernet keys: chmod 600 the file"
        );
    }
}

#[cfg(not(unix))]
fn warn_if_readable_by_others(_path: &Path) {}

/// Base64 with the URL-safe alphabet and padding: how Fernet keys are written.
fn url_safe_base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> String {
        url_safe_base64(&[byte; 32])
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        (folder, path)
    }

    #[test]
    fn a_changed_file_is_taken_and_a_broken_one_is_not() {
        let (_folder, path) = folder();
        fs::write(&path, format!("# newest first\n{}\n", key(1))).unwrap();
        let ring = FernetKeyRing::from_file(&path).unwrap();
        let old = ring.current();
        assert!(!ring.reload().unwrap(), "nothing changed");

        let token = old.encrypt(b"content", 0, [0; 16]);
        fs::write(&path, format!("{}\n{}\n", key(2), key(1))).unwrap();
        assert!(ring.reload().unwrap());
        assert_eq!(ring.status().keys, 2);
        assert_eq!(ring.current().decrypt(token.as_bytes()).unwrap().as_slice(), b"content");

        fs::write(&path, "not a key\n").unwrap();
        let error = ring.reload().unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("keys"), "{error}");
        assert!(!error.contains("not a key"), "the content is never shown: {error}");
        assert_eq!(ring.status().error, Some(error));
        assert_eq!(ring.status().keys, 2, "the last good ones stay");

        fs::remove_file(&path).unwrap();
        assert!(ring.reload().unwrap_err().to_string().contains("cannot be read"));
        fs::write(&path, format!("{}\n{}\n", key(2), key(1))).unwrap();
        assert!(!ring.reload().unwrap());
        assert_eq!(ring.status().error, None);
    }

    #[test]
    fn the_first_load_must_be_good() {
        let (_folder, path) = folder();
        assert!(FernetKeyRing::from_file(&path).is_err());
        fs::write(&path, "# nothing yet\n").unwrap();
        assert!(FernetKeyRing::from_file(&path).unwrap_err().to_string().contains("no Fernet key"));
        fs::write(&path, vec![b'#'; 70_000]).unwrap();
        assert!(FernetKeyRing::from_file(&path).unwrap_err().to_string().contains("64 KiB"));
    }

    #[test]
    fn a_key_made_at_start_is_new_each_time_and_never_shown() {
        let (one, two) = (FernetKeyRing::random().unwrap(), FernetKeyRing::random().unwrap());
        let token = one.current().encrypt(b"x", 0, [0; 16]);
        assert!(one.current().decrypt(token.as_bytes()).is_ok());
        assert!(two.current().decrypt(token.as_bytes()).is_err());
        assert!(format!("{one:?}").contains("1 Fernet keys"));
        assert!(!one.reload().unwrap());
    }

    #[test]
    fn the_operators_keys_seal_and_the_one_made_here_still_opens() {
        let ring = FernetKeyRing::until_an_operator_comes().unwrap();
        let early = ring.current().encrypt(b"x", 0, [0; 16]);
        let from_operator =
            |bytes: &[u8]| -> Vec<_> { bytes.iter().map(|byte| Zeroizing::new([*byte; 32])).collect() };
        assert!(ring.take_from_operator(&[]).is_err());
        assert!(ring.take_from_operator(&from_operator(&[2, 1])).unwrap());
        assert!(!ring.take_from_operator(&from_operator(&[2, 1])).unwrap(), "the same again");
        let sealed = ring.current().encrypt(b"x", 0, [0; 16]);
        let operators = FernetKeys::from_lines(&key(2)).unwrap();
        assert!(operators.decrypt(sealed.as_bytes()).is_ok(), "the newest seals");
        assert!(ring.current().decrypt(early.as_bytes()).is_ok());
        assert!(ring.take_from_operator(&from_operator(&[3])).unwrap());
        assert!(ring.current().decrypt(sealed.as_bytes()).is_err(), "a key that is gone opens nothing");
        assert!(ring.current().decrypt(early.as_bytes()).is_ok());
        assert!(!format!("{ring:?}").contains(&*ring.own.clone().unwrap()), "never shown");
    }

    #[tokio::test(start_paused = true)]
    async fn watching_takes_a_new_file_and_shows_errors_as_metrics() {
        let (_folder, path) = folder();
        fs::write(&path, key(1)).unwrap();
        let ring = Arc::new(FernetKeyRing::from_file(&path).unwrap());
        let metrics = Arc::new(Metrics::new());
        let task = tokio::spawn(Arc::clone(&ring).watch(WATCH_EVERY, Arc::clone(&metrics)));
        tokio::time::sleep(WATCH_EVERY).await;
        assert_eq!((metrics.fernet_keys.get(), metrics.fernet_keys_error.get()), (1, 0));
        fs::write(&path, format!("{}\n{}", key(2), key(1))).unwrap();
        tokio::time::sleep(WATCH_EVERY * 2).await;
        assert_eq!((metrics.fernet_keys.get(), metrics.fernet_keys_error.get()), (2, 0));
        fs::write(&path, "?").unwrap();
        tokio::time::sleep(WATCH_EVERY * 2).await;
        assert_eq!((metrics.fernet_keys.get(), metrics.fernet_keys_error.get()), (2, 1));
        task.abort();
    }
}
