//! Limits of this machine, and who may read the state folder.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::process::{Resource, getrlimit, getuid};

use super::check::Check;

/// A proxy needs two descriptors for some visitors, one for others, and one a tunnel.
const DESCRIPTORS: u64 = 65_536;
/// `latchkey up` watches each folder of the tree; one watcher is one instance.
const WATCHES: u64 = 8_192;
const WATCHERS: u64 = 64;
/// State has few files; what is more was put there by somebody else.
const MOST_ENTRIES: usize = 10_000;
const DEEPEST: usize = 4;

/// File descriptors: what the process may take, which it does by itself at its start.
pub fn descriptors() -> Check {
    const NAME: &str = "descriptors";
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < DESCRIPTORS => Check::warn(
            NAME,
            format!("this process may open {most} files, so many connections at most"),
            format!("For a proxy of many visitors: LimitNOFILE={DESCRIPTORS} in its unit, or `ulimit -Hn`."),
        ),
        Some(most) => Check::ok(NAME, format!("{most} files may be open at once")),
        None => Check::ok(NAME, "any number of files may be open at once"),
    }
}

/// Watching a folder of manifests takes watches, which all programs of a user share.
pub fn watches() -> Check {
    const NAME: &str = "inotify";
    let limit = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let (Some(watches), Some(users)) = (limit("max_user_watches"), limit("max_user_instances")) else {
        return Check::skipped(NAME, "this system does not tell");
    };
    let found = format!("{users} watchers and {watches} watches for all programs of a user");
    if watches < WATCHES || users < WATCHERS {
        Check::warn(
            NAME,
            found,
            format!(
                "sysctl fs.inotify.max_user_instances={WATCHERS} fs.inotify.max_user_watches={WATCHES} or more."
            ),
        )
    } else {
        Check::ok(NAME, found)
    }
}

/// The state folder holds keys: nobody else may read it.
pub fn state_folder(folder: Option<&Path>) -> Check {
    const NAME: &str = "state folder";
    let Some(folder) = folder else { return Check::skipped(NAME, "no folder of manifests was named") };
    let shown = folder.display();
    match fs::metadata(folder) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Check::skipped(NAME, format!("{shown} is not there yet: `latchkey up` makes it"));
        }
        Err(error) => {
            return Check::fail(NAME, format!("{shown}: {error}"), "Run this as the user of `latchkey up`.");
        }
    }
    let mut open = Vec::new();
    let mut seen = 0;
    look(folder, 0, &mut seen, &mut open);
    match open.as_slice() {
        [] => Check::ok(NAME, format!("{shown}: its {seen} files and folders are for its owner alone")),
        [first, more @ ..] => Check::fail(
            NAME,
            match more.len() {
                0 => first.clone(),
                count => format!("{first}; and {count} more"),
            },
            format!("Others could take the keys in it: chmod -R go= {shown}, and look who had access."),
        ),
    }
}

fn look(path: &Path, depth: usize, seen: &mut usize, open: &mut Vec<String>) {
    *seen += 1;
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let (mode, shown) = (metadata.permissions().mode() & 0o777, path.display());
    if metadata.file_type().is_symlink() {
        return;
    }
    if mode & 0o077 != 0 {
        open.push(format!("{shown} has mode {mode:03o}"));
    }
    if metadata.uid() != getuid().as_raw() {
        open.push(format!("{shown} belongs to user {}, not to you", metadata.uid()));
    }
    if metadata.is_dir() && depth < DEEPEST {
        let Ok(entries) = fs::read_dir(path) else { return };
        for entry in entries.flatten() {
            if *seen >= MOST_ENTRIES {
                return;
            }
            look(&entry.path(), depth + 1, seen, open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_found_however_deep() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        assert_eq!(state_folder(Some(&state)).verdict, Verdict::Skipped);
        assert_eq!(state_folder(None).verdict, Verdict::Skipped);
        let inner = state.join("ca");
        fs::create_dir_all(&inner).unwrap();
        let key = inner.join("ca.key");
        fs::write(&key, "secret").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(&state, 0o700);
        mode(&inner, 0o700);
        mode(&key, 0o600);
        assert_eq!(state_folder(Some(&state)).verdict, Verdict::Ok);
        mode(&key, 0o640);
        let check = state_folder(Some(&state));
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.found.contains("ca.key has mode 640"), "{check:?}");
        assert!(check.next.unwrap().contains("chmod -R go="), "it says what to do");
    }

    #[test]
    fn limits_of_this_machine_can_be_read() {
        assert_ne!(descriptors().verdict, Verdict::Fail);
        assert_ne!(watches().verdict, Verdict::Fail);
    }
}
