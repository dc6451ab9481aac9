//! The secret from which assigned names come.

use planner::Seed;
use rand::TryRng as _;

use super::folder::{StateError, StateFolder};

const FILE: &str = "seed";
const HELP: &str =
    "restore it from a backup; without it every instance would get another name, so it is never made anew";

impl StateFolder {
    /// The seed, made at the first call.
    pub(crate) fn seed(&self) -> Result<Seed, StateError> {
        if let Some(seed) = self.existing_seed()? {
            return Ok(seed);
        }
        let mut bytes = [0_u8; 32];
        rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(|error| StateError::System {
            doing: "cannot get random bytes for",
            path: self.path().join(FILE),
            source: std::io::Error::other(error.to_string()),
        })?;
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let mut text: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
        text.push('\n');
        self.write(FILE, text.as_bytes())?;
        Ok(Seed::new(bytes))
    }

    /// The seed, where there is one.
    pub(crate) fn existing_seed(&self) -> Result<Option<Seed>, StateError> {
        let Some(content) = self.read(FILE)? else { return Ok(None) };
        match read(content.trim_ascii()) {
            Some(bytes) => Ok(Some(Seed::new(bytes))),
            None => Err(self.damaged(FILE, "it is not 64 hex digits".to_owned(), HELP)),
        }
    }
}

fn read(text: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes: Option<Vec<u8>> = text
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? * 16 + digit(*low)?),
            _ => None,
        })
        .collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_never_anew() {
        let dir = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(&dir.path().join("state")).unwrap();
        assert!(folder.existing_seed().unwrap().is_none());
        let seed = folder.seed().unwrap();
        assert!(folder.seed().unwrap() == seed);
        let content = folder.read(FILE).unwrap().unwrap();
        assert_eq!(content.len(), 65);
        for damaged in ["", "abc", &"0".repeat(63), &"0".repeat(66), &"g".repeat(64)] {
            folder.write(FILE, damaged.as_bytes()).unwrap();
            let told = folder.seed().unwrap_err().to_string();
            assert!(told.contains("backup"), "{told}");
            assert_eq!(folder.read(FILE).unwrap().unwrap(), damaged.as_bytes());
        }
    }
}
