//! Tokens: any bytes as an envelope, and any bytes as what is inside a good one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snitun::token::{FernetError, FernetKeys, Guess, MAX_TOKEN_LEN, Token, TokenError, looks_like_token};

/// The keys of the vectors, so that tokens among the seeds open.
const KEYS: &str =
    "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\nCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
const NOW: f64 = 1_800_000_000.0;

fuzz_target!(|bytes: &[u8]| {
    let keys = FernetKeys::from_lines(KEYS).unwrap();

    // As it came from a stranger. Nobody without a key makes one that opens, but seeds hold some.
    let opened = Token::open(&keys, bytes, NOW);
    if opened.is_ok() {
        assert_eq!(looks_like_token(bytes), Guess::Token);
    }
    for length in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
        if let Err(TokenError::Expired { .. } | TokenError::Content(_)) = opened
            && length < bytes.len()
        {
            let error = Token::open(&keys, &bytes[..length], NOW).unwrap_err();
            assert!(error.more_bytes_may_help(), "a token in pieces: {error}");
        }
    }

    // As an issuer sealed it.
    let sealed = keys.encrypt(bytes, 1, [7; 16]);
    match keys.decrypt(sealed.as_bytes()) {
        Ok(payload) => assert_eq!(payload.as_slice(), bytes),
        Err(error) => {
            assert!(error == FernetError::TooLong && sealed.len() > MAX_TOKEN_LEN, "{error}");
            return;
        }
    }
    let Ok(token) = Token::open(&keys, sealed.as_bytes(), f64::MIN) else { return };
    assert!(token.hostnames().all(|name| (1..=253).contains(&name.len())));
    match token.seal(&keys, 1, [7; 16]) {
        Ok(again) => {
            let mut again = Token::open(&keys, again.as_bytes(), f64::MIN).unwrap();
            // A time may move by the last of its 53 bits: the JSON parser does not round exactly.
            assert!((again.valid - token.valid).abs() <= token.valid.abs() * 1e-15);
            again.valid = token.valid;
            assert_eq!(again, token);
        }
        // Defaults that were left out, numbers written at length: ours can be longer.
        Err(error) => assert_eq!(error, TokenError::TooLong),
    }

    // One character changed, somewhere.
    let mut changed = sealed.into_bytes();
    let place = bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % changed.len();
    changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
    assert!(keys.decrypt(&changed).is_err());
});
