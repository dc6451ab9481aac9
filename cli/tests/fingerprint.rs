//! `latchkey fingerprint` against real TLS on loopback.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests may")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use latchkey_agent::certificates::CertificateFacts;
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

/// Serves each connection on a thread of its own, for as long as the test runs.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    address
}

/// A server with a certificate of its own for `home.localhost`.
fn tls_server(versions: &'static [&'static SupportedProtocolVersion]) -> (SocketAddr, CertificateFacts) {
    let made = rcgen::generate_simple_self_signed(["home.localhost".to_owned()]).unwrap();
    let facts = CertificateFacts::of(made.cert.der()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let address = listen(move |mut stream| {
        let mut session = ServerConnection::new(config.clone()).unwrap();
        while session.is_handshaking() {
            if session.complete_io(&mut stream).is_err() {
                return;
            }
        }
        // The visitor leaves when it has seen enough.
        let _ = stream.read(&mut [0]);
    });
    (address, facts)
}

/// A server that reads the hello and says these bytes.
fn answering(bytes: &'static [u8]) -> SocketAddr {
    listen(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

fn latchkey(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_latchkey")).arg("fingerprint").args(arguments).output().unwrap()
}

fn said(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

#[test]
fn the_certificate_shown_is_told_line_by_line() {
    static OLD: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
    static NEW: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
    for (versions, protocol) in [(NEW, "TLS 1.3"), (OLD, "TLS 1.2")] {
        let (address, facts) = tls_server(versions);
        let (out, err, code) = said(&latchkey(&[&format!("https://home.localhost:{}/", address.port())]));
        assert_eq!((err.as_str(), code), ("", Some(0)));
        let lines = [
            format!("SHA-256 fingerprint  {}\n", facts.fingerprint_as_browsers_show_it()),
            "names                home.localhost\n".to_owned(),
            "issuer               CN=rcgen self signed cert\n".to_owned(),
            "trusted here         no: no CA that is trusted here has signed it\n".to_owned(),
            format!("connection           {protocol} with {address}\n"),
        ];
        for line in lines {
            assert!(out.contains(&line), "{line} in\n{out}");
        }
    }
}

#[test]
fn another_certificate_than_expected_exits_4() {
    let (address, facts) = tls_server(rustls::ALL_VERSIONS);
    let at = address.to_string();
    let with = |expected: &str| {
        said(&latchkey(&["https://elsewhere.example/", "--connect", &at, "--expect", expected]))
    };
    let (_, err, code) = with(&facts.fingerprint_as_browsers_show_it());
    assert_eq!((err.as_str(), code), ("", Some(0)));
    let (out, err, code) = with(&"ab".repeat(32));
    assert_eq!(code, Some(4), "{err}");
    assert!(err.contains("somebody else answered"), "{err}");
    assert!(out.contains(&facts.fingerprint_as_browsers_show_it()), "{out}");
    assert_eq!(with("abc").2, Some(1), "that is no fingerprint");
}

#[test]
fn a_proxys_alerts_are_explained() {
    for (alert, words) in [
        (&[0x15, 3, 3, 0, 2, 2, 112], "It is unknown, its remote access is off, or its version is blocked"),
        (&[0x15, 3, 3, 0, 2, 2, 49], "your network is not among those"),
        (&[0x15, 3, 3, 0, 2, 2, 80], "Its tunnel is down"),
    ] {
        let at = answering(alert).to_string();
        let (_, err, code) = said(&latchkey(&["https://home.example.com/", "--connect", &at]));
        assert_eq!(code, Some(1));
        assert!(err.contains(words), "{err}");
    }
}

#[test]
fn what_does_not_speak_tls_is_named() {
    let at = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n").to_string();
    let (_, err, code) = said(&latchkey(&["https://home.example.com/", "--connect", &at]));
    assert_eq!(code, Some(1));
    assert!(err.contains(&at) && err.contains("not with TLS"), "{err}");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (_, err, code) = said(&latchkey(&["https://home.example.com/", "--connect", &closed]));
    assert_eq!(code, Some(1));
    assert!(err.contains("Connection refused") && err.contains("port open"), "{err}");
}

#[test]
fn silence_ends_in_time() {
    let at = listen(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let begin = Instant::now();
    let arguments = ["https://home.example.com/", "--connect", &at.to_string(), "--timeout", "1"];
    let (_, err, code) = said(&latchkey(&arguments));
    assert_eq!(code, Some(1));
    assert!(err.contains("did not answer within 1 s"), "{err}");
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}
