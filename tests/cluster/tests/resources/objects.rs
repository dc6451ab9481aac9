//! Objects that the API server accepts and refuses: those in `objects/`, and the examples of docs/resources.md.

use std::path::{Path, PathBuf};

use http::Method;
use latchkey_cluster_tests::{Answer, Suite, TestError};
use libtest_mimic::Trial;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) fn tests(suite: &Suite) -> Vec<Trial> {
    let mut tests = Vec::new();
    for path in files("good") {
        tests.push(suite.test(format!("accepts::{}", stem(&path)), move |suite| accepts(suite, path)));
    }
    for path in files("bad") {
        tests.push(suite.test(format!("refuses::{}", stem(&path)), move |suite| refuses(suite, path)));
    }
    for (line, text) in documented() {
        let name = format!("accepts::docs_resources_md_line_{line}");
        tests.push(suite.test(name, move |suite| accepts_example(suite, text)));
    }
    for path in examples() {
        let name = format!("accepts::examples/{}", path.strip_prefix(example_folder()).unwrap().display());
        tests.push(suite.test(name, move |suite| async move {
            accepts_example(suite, std::fs::read_to_string(&path)?).await
        }));
    }
    tests.push(suite.test("refuses::as_kubectl_tells_it", as_kubectl_tells_it));
    tests
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("objects").join(folder);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20, "{} has lost its files", folder.display());
    files
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// What the API server said to a new object.
pub(crate) struct Verdict(Answer);

impl Verdict {
    pub(crate) fn expect_accepted(&self) {
        assert!(self.0.is_success(), "{}", self.0.message());
        assert_eq!(self.0.warnings, Vec::<String>::new());
    }

    /// The object as it would be stored.
    pub(crate) fn object<T: DeserializeOwned>(&self) -> T {
        serde_json::from_value(self.0.body.clone()).unwrap()
    }

    fn expect_refused(&self, names: &str, says: &str) {
        let message = self.0.message();
        assert!(matches!(self.0.code, 400 | 422), "code {}: {message}", self.0.code);
        assert!(names_member(message, names), "does not name {names}: {message}");
        assert!(message.contains(says), "does not say {says:?}: {message}");
    }
}

/// The path as a whole, not as a part of a longer one.
fn names_member(message: &str, path: &str) -> bool {
    let goes_on = |next: char| next.is_alphanumeric() || next == '[' || next == '.';
    message.match_indices(path).any(|(at, _)| {
        let behind = &message[at + path.len()..];
        // A full stop and a space end a sentence, not a path.
        behind.starts_with(". ") || !behind.starts_with(goes_on)
    })
}

/// As kubectl creates: members that the schema does not know are refused. Nothing is stored.
pub(crate) async fn create(suite: &Suite, object: &Value) -> Result<Verdict, TestError> {
    let place = match object["kind"].as_str() {
        Some("RemoteInstance") => "namespaces/default/remoteinstances",
        Some("VersionBlock") => "versionblocks",
        other => return Err(format!("no such kind: {other:?}").into()),
    };
    let path = format!("/apis/{}/{place}?dryRun=All&fieldValidation=Strict", resources::API_VERSION);
    Ok(Verdict(suite.control_plane().await?.exchange(Method::POST, &path, object).await?))
}

fn read(path: &Path) -> (String, Value) {
    let text = std::fs::read_to_string(path).unwrap();
    let object = serde_yaml::from_str(&text).unwrap();
    (text, object)
}

async fn accepts(suite: Suite, path: PathBuf) -> Result<(), TestError> {
    let (_, object) = read(&path);
    create(&suite, &object).await?.expect_accepted();
    Ok(())
}

async fn refuses(suite: Suite, path: PathBuf) -> Result<(), TestError> {
    let (text, object) = read(&path);
    let head = |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("# {field}: ")));
        line.unwrap_or_else(|| panic!("{} has no \"# {field}: \"", path.display()))
    };
    create(&suite, &object).await?.expect_refused(head("Names"), head("Says"));
    Ok(())
}

/// Every YAML block of docs/resources.md that is a whole object, with its line.
fn documented() -> Vec<(usize, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/resources.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut found = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for (at, line) in page.lines().enumerate() {
        match (&mut block, line) {
            (None, "```yaml") => block = Some((at + 2, String::new())),
            (Some(_), "```") => found.extend(block.take()),
            (Some((_, text)), line) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    // An installation's settings are no custom resource.
    found.retain(|(_, text)| text.contains("apiVersion:") && !text.contains("kind: Installation"));
    assert!(found.len() >= 5, "docs/resources.md has lost its examples");
    found
}

fn example_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// Every manifest of examples/: what `latchkey up` is shown with must be good in a cluster, too.
fn examples() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![example_folder()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "examples/ has lost its manifests");
    found
}

/// Every document of a text that is a custom resource.
async fn accepts_example(suite: Suite, text: String) -> Result<(), TestError> {
    for mut object in serde_yaml::from_multiple::<Value>(&text)? {
        // Settings are for folders, and no custom resource.
        if object["kind"] == "Installation" {
            continue;
        }
        // Its namespace is not there.
        object["metadata"].as_object_mut().map(|metadata| metadata.remove("namespace"));
        create(&suite, &object).await?.expect_accepted();
    }
    Ok(())
}

/// The most common slip, word for word as people see it.
async fn as_kubectl_tells_it(suite: Suite) -> Result<(), TestError> {
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("objects/bad/version-without-quotes.yaml"),
    )?;
    let control_plane = suite.control_plane().await?;
    let output = control_plane.kubectl_with_input(&["apply", "-n", "default", "-f", "-"], &text).await?;
    assert!(!output.success);
    for part in [
        "The RemoteInstance \"lake-house\" is invalid",
        "spec.version in body must be of type string",
        "quote it: without quotes 2023.10 is the number 2023.1",
    ] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
    Ok(())
}
