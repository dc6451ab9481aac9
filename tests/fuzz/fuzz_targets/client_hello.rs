//! The hello parser against rustls' `Acceptor`, and against itself on every beginning of the input.
//!
//! Where rustls accepts, we must have read the same. The differences that are lawful:
//! * rustls refuses much that a proxy has no opinion on: only what it accepts is compared.
//! * rustls takes records of up to 18 KiB; TLS allows 16, and so do we.
//! * rustls takes records that say SSL 2 or DTLS, of which no TLS client speaks; we want TLS's own 3.
//! * rustls waits for the end of the last record; we know enough at the end of the hello in it.
//! * rustls keeps a trailing dot and lower-cases nothing we compare: the dot is cut here.
#![no_main]

use std::sync::Arc;

use latchkey_proxy::visitor::client_hello::{Answer, NameProblem, parse};
use libfuzzer_sys::fuzz_target;
use rustls::server::{Accepted, Acceptor};

const CAP: usize = 16 << 10;

fuzz_target!(|bytes: &[u8]| {
    let answer = parse(bytes, CAP);
    // What is asked again with more bytes must not change its mind. All beginnings of a long input
    // would take too long: some, spread over it.
    for length in (0..bytes.len()).step_by(1 + bytes.len() / 200) {
        let earlier = parse(&bytes[..length], CAP);
        assert!(earlier == Answer::NeedMore || earlier == answer, "{length}: {earlier:?}, then {answer:?}");
    }
    if let Answer::Hello(hello) = &answer
        && let Ok(name) = hello.server_name()
    {
        assert!((1..=253).contains(&name.len()) && name.is_ascii());
    }
    let records = Records::of(bytes);
    if bytes.len() > CAP || records.too_long || records.no_tls {
        return;
    }
    let Ok(theirs) = accept(bytes) else { return };
    let Some(theirs) = theirs else {
        assert!(records.cut || !matches!(answer, Answer::Hello(_)), "rustls waits for more: {answer:?}");
        return;
    };
    let theirs = theirs.client_hello();
    let Answer::Hello(ours) = &answer else { panic!("rustls accepts: {answer:?}") };
    match (theirs.server_name(), ours.server_name()) {
        (Some(theirs), Ok(ours)) => {
            let theirs = theirs.strip_suffix('.').unwrap_or(theirs);
            assert!(theirs.eq_ignore_ascii_case(ours), "rustls: {theirs}, we: {ours}");
        }
        (None, Err(NameProblem::Absent | NameProblem::IpAddress)) => {}
        (theirs, ours) => panic!("rustls: {theirs:?}, we: {ours:?}"),
    }
    let acme = theirs.alpn().is_some_and(|protocols| protocols.eq([b"acme-tls/1"]));
    assert_eq!(acme, ours.only_acme_tls_1);
});

/// What the records of the input are like.
#[derive(Default)]
struct Records {
    too_long: bool,
    no_tls: bool,
    cut: bool,
}

impl Records {
    fn of(mut bytes: &[u8]) -> Self {
        let mut records = Self::default();
        while let [_, major, _, high, low, rest @ ..] = bytes {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            records.too_long |= length > 1 << 14;
            records.no_tls |= *major != 3;
            records.cut = rest.len() < length;
            bytes = rest.get(length..).unwrap_or_default();
        }
        records
    }
}

fn accept(mut bytes: &[u8]) -> Result<Option<Accepted>, ()> {
    // `Acceptor` wants a provider to be there, though it needs none to read a hello.
    static PROVIDER: std::sync::Once = std::sync::Once::new();
    PROVIDER.call_once(|| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let _ = Arc::unwrap_or_clone(provider).install_default();
    });
    let mut acceptor = Acceptor::default();
    loop {
        let read = acceptor.read_tls(&mut bytes).map_err(drop)?;
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(Some(accepted)),
            Ok(None) if read == 0 => return Ok(None),
            Ok(None) => {}
            Err(_) => return Err(()),
        }
    }
}
