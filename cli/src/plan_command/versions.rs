//! Versions that instances report, from a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use imbl::OrdMap;
use planner::Report;
use route_table::InstanceId;

/// Largest file.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Reads `namespace/name: version` lines. JSON is the same thing in braces.
pub(crate) fn read(path: &Path) -> Result<OrdMap<InstanceId, Arc<Report>>, String> {
    let wrong = |what: String| format!("{}: {what}", path.display());
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(wrong(format!("is larger than {MAX_BYTES} bytes")));
    }
    parse(&text).map_err(wrong)
}

fn parse(text: &str) -> Result<OrdMap<InstanceId, Arc<Report>>, String> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(OrdMap::new());
    }
    let options = serde_yaml::options! { with_snippet: false };
    // A version that looks like a number is read as it is written: 2023.10 stays 2023.10.
    let versions: BTreeMap<String, String> =
        serde_yaml::from_str_with_options(text, options).map_err(|error| {
            format!("{error}; write lines like `homes/lake-house: 2026.11.1`, or one JSON object")
        })?;
    versions
        .into_iter()
        .map(|(id, version)| {
            let id = id.parse().map_err(|error: route_table::InstanceIdError| error.to_string())?;
            Ok((id, Arc::new(Report { version: Some(version), ..Report::default() })))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(text: &str) -> Result<Vec<(String, String)>, String> {
        let read = parse(text)?;
        let pair =
            |(id, report): (&InstanceId, &Arc<Report>)| (id.to_string(), report.version.clone().unwrap());
        Ok(read.iter().map(pair).collect())
    }

    #[test]
    fn lines_and_json_say_the_same() {
        let expected =
            vec![("a/b".to_owned(), "2023.10".to_owned()), ("a/c".to_owned(), "1.2.3-rc.1".to_owned())];
        assert_eq!(versions("# seen\na/b: 2023.10\n\na/c: \"1.2.3-rc.1\"\n"), Ok(expected.clone()));
        assert_eq!(versions(r#"{"a/b": "2023.10", "a/c": "1.2.3-rc.1"}"#), Ok(expected));
        assert_eq!(versions("# nothing\n\n"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_neither_is_told() {
        for (text, told) in
            [("a b c", "homes/lake-house"), ("ab: 1", "namespace/name"), ("a/b: 1\na/b: 2\n", "a/b")]
        {
            let error = versions(text).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
