//! Where the state of a folder of manifests is kept, and what `up` leaves there for other commands.

use std::{
    env,
    path::{Path, PathBuf},
};

use latchkey_agent::{identity::hex, state_folder::StateFolder};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const RECORD: &str = "up.json";
/// The folder of the session API's CA and certificate.
pub const CA_FOLDER: &str = "ca";
/// The CA's certificate in it.
pub const CA_CERTIFICATE: &str = "ca.crt";

/// The state folder: the one asked for, else `$XDG_STATE_HOME/latchkey/<name>-<hash of the path>`, so that two folders
/// of one name have nothing in common.
pub fn state_folder(folder: &Path, asked: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(asked) = asked {
        return Ok(asked.to_owned());
    }
    let folder = folder
        .canonicalize()
        .map_err(|error| format!("{}: {error}; name the folder of your manifests", folder.display()))?;
    let home = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = home("XDG_STATE_HOME")
        .or_else(|| home("HOME").map(|home| home.join(".local/state")))
        .ok_or("neither XDG_STATE_HOME nor HOME says where state is kept: name a folder with --state DIR")?;
    let name: String = folder
        .file_name()
        .map_or_else(|| "root".into(), std::ffi::OsStr::to_string_lossy)
        .chars()
        .map(|each| if each.is_ascii_alphanumeric() || "-_".contains(each) { each } else { '_' })
        .take(40)
        .collect();
    let hash = hex(&Sha256::digest(folder.as_os_str().as_encoded_bytes()));
    Ok(base.join("latchkey").join(format!("{name}-{}", hash.get(..12).unwrap_or_default())))
}

/// What `up` was started with last; for commands that come later, whether it still runs or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// How agents on this machine reach it, `HOST:PORT`; none where that cannot be told.
    pub server: Option<String>,
    /// The name its session API answers on.
    pub server_name: String,
}

impl Record {
    /// Leaves it in a state folder.
    pub fn write(&self, state: &StateFolder) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        state.write(RECORD, &text).map_err(|error| error.to_string())
    }

    /// The one in a state folder; `None` where `up` has never run.
    pub fn read(state: &StateFolder) -> Result<Option<Self>, String> {
        let Some(text) = state.read(RECORD).map_err(|error| error.to_string())? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            let path = state.path_of(RECORD);
            format!("{}: {error}; start `latchkey up` again, it writes this file anew", path.display())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_one_name_have_states_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            let folder = dir.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            state_folder(&folder, None)
        };
        let (Ok(one), Ok(two)) = (place("a/my homes"), place("b/my homes")) else { return };
        assert_ne!(one, two);
        let name = one.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("my_homes-") && name.len() == "my_homes-".len() + 12, "{name}");
        assert_eq!(place("a/my homes"), Ok(one));
        assert_eq!(state_folder(dir.path(), Some(Path::new("/x"))), Ok(PathBuf::from("/x")));
        assert!(state_folder(&dir.path().join("none"), None).unwrap_err().contains("name the folder"));
    }

    #[test]
    fn a_record_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder::open(dir.path()).unwrap();
        assert_eq!(Record::read(&state), Ok(None));
        let record =
            Record { server: Some("127.0.0.1:8443".to_owned()), server_name: "connect.localhost".to_owned() };
        record.write(&state).unwrap();
        assert_eq!(Record::read(&state), Ok(Some(record)));
    }
}
