//! The hello parser against hellos of real clients, against rustls' own reading of them, and against
//! every way the network may cut them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail that way")]

use std::{io::Read, sync::Arc};

use latchkey_proxy::visitor::client_hello::{Answer, ClientHello, NameProblem, parse};
use proptest::prelude::*;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    client::{EchGreaseConfig, EchMode},
    crypto::aws_lc_rs::{
        default_provider, hpke::DH_KEM_X25519_HKDF_SHA256_AES_128, kx_group::X25519MLKEM768,
    },
    crypto::hpke::Hpke,
    server::Acceptor,
};

const CAP: usize = 16 << 10;
const NAME: &str = "lake-house.ui.example.com";

#[track_caller]
fn hello(bytes: &[u8]) -> ClientHello<'_> {
    match parse(bytes, CAP) {
        Answer::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

/// Takes the records apart: the handshake bytes they carry.
fn handshake(mut records: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [0x16, 3, _, high, low, rest @ ..] = records {
        let (payload, next) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        message.extend_from_slice(payload);
        records = next;
    }
    message
}

/// Puts handshake bytes into records of the given sizes, over and over.
fn in_records(message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut records = Vec::new();
    let mut rest = message;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (payload, next) = rest.split_at((*size).min(rest.len()));
        records.extend_from_slice(&[0x16, 3, 1]);
        records.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        records.extend_from_slice(payload);
        rest = next;
    }
    records
}

/// Builds a hello from its extensions.
fn hello_with(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, body) in extensions {
        list.extend_from_slice(&kind.to_be_bytes());
        list.extend(prefixed_16(body));
    }
    let body = [
        &[3, 3][..],
        &[0x5a; 32],
        &[32],
        &[0xa5; 32],
        &prefixed_16(&[0x1a, 0x1a, 0x13, 0x01, 0x13, 0x02]),
        &[1, 0],
        &prefixed_16(&list),
    ]
    .concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    in_records(&[&[1], &length[1..], &body].concat(), &[1 << 14])
}

fn prefixed_16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn sni(name: &[u8]) -> (u16, Vec<u8>) {
    (0, prefixed_16(&[&[0][..], &prefixed_16(name)].concat()))
}

fn alpn(protocols: &[&str]) -> (u16, Vec<u8>) {
    let list: Vec<u8> = protocols
        .iter()
        .flat_map(|protocol| [&[u8::try_from(protocol.len()).unwrap()], protocol.as_bytes()].concat())
        .collect();
    (16, prefixed_16(&list))
}

/// What Chrome puts around the extensions that matter: GREASE, noise in the place of an Encrypted
/// ClientHello, and a post-quantum key share.
fn browser_like(name: &str) -> Vec<u8> {
    hello_with(&[
        (0x2a2a, vec![]),
        (0xfe0d, [&[0, 0, 1, 0, 1, 7][..], &prefixed_16(&[9; 32]), &prefixed_16(&[8; 144])].concat()),
        (43, vec![6, 0x3a, 0x3a, 3, 4, 3, 3]),
        (51, prefixed_16(&[&[0x4a, 0x4a, 0, 1, 0, 0x11, 0xec][..], &prefixed_16(&[7; 1216])].concat())),
        sni(name.as_bytes()),
        (13, prefixed_16(&[4, 3, 8, 4])),
        alpn(&["h2", "http/1.1"]),
        (0x5a5a, vec![0]),
    ])
}

fn rustls_hello(config: ClientConfig) -> Vec<u8> {
    let mut client = ClientConnection::new(Arc::new(config), NAME.try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn rustls_config() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// Hellos of several kinds, each with a name for messages.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let mut samples: Vec<(&'static str, Vec<u8>)> = vec![
        ("curl", include_bytes!("client_hellos/curl.bin").to_vec()),
        ("curl, TLS 1.2", include_bytes!("client_hellos/curl-http1.bin").to_vec()),
        ("curl, by address", include_bytes!("client_hellos/curl-address.bin").to_vec()),
        ("openssl", include_bytes!("client_hellos/openssl-default.bin").to_vec()),
        ("openssl, TLS 1.2", include_bytes!("client_hellos/openssl-tls12.bin").to_vec()),
        ("openssl, no name", include_bytes!("client_hellos/openssl-no-name.bin").to_vec()),
        ("openssl, acme", include_bytes!("client_hellos/openssl-acme.bin").to_vec()),
        ("openssl, acme and h2", include_bytes!("client_hellos/openssl-acme-and-h2.bin").to_vec()),
        ("openssl, several records", include_bytes!("client_hellos/openssl-fragments.bin").to_vec()),
        ("openssl, groups", include_bytes!("client_hellos/openssl-many-groups.bin").to_vec()),
        ("browser-like", browser_like(NAME)),
        ("rustls", rustls_hello(rustls_config())),
    ];
    let mut config = rustls_config();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    samples.push(("rustls, acme", rustls_hello(config)));
    let mut config = rustls_config();
    config.max_fragment_size = Some(64);
    samples.push(("rustls, small records", rustls_hello(config)));
    let mut provider = default_provider();
    provider.kx_groups = vec![X25519MLKEM768];
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    samples.push(("rustls, post-quantum", rustls_hello(config)));
    let suite = DH_KEM_X25519_HKDF_SHA256_AES_128;
    let (public, _) = suite.generate_key_pair().unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_ech(EchMode::Grease(EchGreaseConfig::new(suite, public)))
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    samples.push(("rustls, ECH grease", rustls_hello(config)));
    samples
}

fn sample(wanted: &str) -> Vec<u8> {
    samples().into_iter().find(|(name, _)| *name == wanted).unwrap().1
}

#[test]
fn real_hellos_are_read() {
    for (name, bytes) in samples() {
        let hello = hello(&bytes);
        let expected = match name {
            "openssl, no name" | "curl, by address" => Err(NameProblem::Absent),
            "openssl" => Ok("Lake-House.UI.example.com"),
            _ => Ok(NAME),
        };
        assert_eq!(hello.server_name(), expected, "{name}");
        let acme = matches!(name, "openssl, acme" | "rustls, acme");
        assert_eq!(hello.only_acme_tls_1, acme, "{name}");
        assert_eq!(hello.has_ech, matches!(name, "browser-like" | "rustls, ECH grease"), "{name}");
    }
    assert!(sample("rustls, post-quantum").len() > 1300);
    assert!(sample("browser-like").len() > 1400);
}

#[test]
fn rustls_reads_the_same_names() {
    for (name, bytes) in samples() {
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut bytes.as_slice()).unwrap();
        let accepted = acceptor.accept().map_err(|(error, _)| error);
        let accepted = accepted.unwrap_or_else(|error| panic!("{name}: {error}")).unwrap();
        let theirs = accepted.client_hello();
        let ours = hello(&bytes);
        assert_eq!(
            theirs.server_name().map(str::to_ascii_lowercase),
            ours.server_name().ok().map(str::to_ascii_lowercase),
            "{name}"
        );
        let acme = theirs.alpn().is_some_and(|list| list.eq([b"acme-tls/1"]));
        assert_eq!(acme, ours.only_acme_tls_1, "{name}");
    }
}

#[test]
fn every_beginning_of_a_hello_asks_for_more() {
    for (name, bytes) in samples() {
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length], CAP), Answer::NeedMore, "{name}, {length} bytes");
        }
        // What follows a hello (early data, say) changes nothing.
        let more = [&bytes[..], b"\x14\x03\x03\0\x01\x01"].concat();
        assert_eq!(parse(&more, CAP), parse(&bytes, CAP), "{name}");
    }
}

#[test]
fn a_hello_in_records_of_any_size_reads_the_same() {
    for (name, bytes) in samples() {
        let message = handshake(&bytes);
        for size in [1, 2, 3, 5, 7, 64, 255, 256, 1000] {
            let records = in_records(&message, &[size]);
            assert_eq!(parse(&records, CAP), parse(&bytes, CAP), "{name} in records of {size}");
        }
    }
}

#[test]
fn names_that_cannot_be_served_have_a_reason() {
    let long_label = "a".repeat(63);
    let longest = [&long_label[..]; 4].join(".")[..253].to_owned();
    for (name, expected) in [
        (&b""[..], Err(NameProblem::Empty)),
        (b".", Err(NameProblem::Empty)),
        (b"192.0.2.1", Err(NameProblem::IpAddress)),
        (b"192.0.2.1.", Err(NameProblem::IpAddress)),
        (b"2001:db8::1", Err(NameProblem::IpAddress)),
        (b"::ffff:192.0.2.1", Err(NameProblem::IpAddress)),
        (b"[::1]", Err(NameProblem::NotAHostname)),
        (b"a.example:443", Err(NameProblem::NotAHostname)),
        (b"a\0.example", Err(NameProblem::NotAHostname)),
        (b"a b", Err(NameProblem::NotAHostname)),
        ("ä.example".as_bytes(), Err(NameProblem::NotAHostname)),
        (b"\xff\xfe", Err(NameProblem::NotAHostname)),
        (b"A.Example", Ok("A.Example")),
        (b"a.example.", Ok("a.example")),
        (b"_acme.xn--4ca.example", Ok("_acme.xn--4ca.example")),
        (b"1.2.3", Ok("1.2.3")),
        (longest.as_bytes(), Ok(longest.as_str())),
        (format!("{longest}.").as_bytes(), Ok(longest.as_str())),
        (format!("{longest}a").as_bytes(), Err(NameProblem::TooLong)),
        (&[b'a'; 5000], Err(NameProblem::TooLong)),
    ] {
        let bytes = hello_with(&[sni(name)]);
        assert_eq!(hello(&bytes).server_name(), expected, "{}", name.escape_ascii());
        let split = in_records(&handshake(&bytes), &[11]);
        assert_eq!(hello(&split).server_name(), expected, "{}", name.escape_ascii());
    }
    let empty_list = (0, vec![0, 0]);
    assert_eq!(hello(&hello_with(&[empty_list])).server_name(), Err(NameProblem::Empty));
    let two = [&[0][..], &prefixed_16(b"a.example"), &[0], &prefixed_16(b"b.example")].concat();
    assert_eq!(hello(&hello_with(&[(0, prefixed_16(&two))])).server_name(), Err(NameProblem::Several));
    let other_kind = [&[0][..], &prefixed_16(b"a.example"), &[9, 9, 9]].concat();
    assert_eq!(hello(&hello_with(&[(0, prefixed_16(&other_kind))])).server_name(), Ok("a.example"));
}

#[test]
fn only_a_lone_acme_protocol_is_a_validation() {
    for (protocols, expected) in [
        (&["acme-tls/1"][..], true),
        (&["acme-tls/1", "h2"], false),
        (&["h2", "acme-tls/1"], false),
        (&["acme-tls/1", "acme-tls/1"], false),
        (&["acme-tls/11"], false),
        (&["acme-tls/"], false),
        (&["acme-", "tls/1"], false),
        (&["http/1.1"], false),
    ] {
        let bytes = hello_with(&[alpn(protocols), sni(b"a.example")]);
        assert_eq!(hello(&bytes).only_acme_tls_1, expected, "{protocols:?}");
        let split = in_records(&handshake(&bytes), &[3]);
        assert_eq!(hello(&split).only_acme_tls_1, expected, "{protocols:?}");
    }
}

#[test]
fn a_hello_without_extensions_is_one() {
    let body = [&[3, 1][..], &[0; 32], &[0], &prefixed_16(&[0, 0x2f]), &[1, 0]].concat();
    let message = [&[1, 0, 0, u8::try_from(body.len()).unwrap()][..], &body].concat();
    assert_eq!(hello(&in_records(&message, &[1 << 14])).server_name(), Err(NameProblem::Absent));
}

#[test]
fn broken_hellos_are_told_apart() {
    let good = hello_with(&[sni(b"a.example")]);
    let with = |position: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[position] = byte;
        match parse(&bytes, CAP) {
            Answer::NotTls(reason) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(with(0, b'G'), "no TLS handshake record");
    assert_eq!(with(1, 2), "a record of no TLS version");
    assert_eq!(with(3, 0xff), "a TLS record that is too long");
    assert_eq!(with(5, 2), "a handshake that does not begin with a ClientHello");
    assert_eq!(with(6, 1), "a ClientHello over the size limit");
    assert_eq!(with(43, 33), "a broken ClientHello"); // the session id
    assert_eq!(parse(&[0x16, 3, 1, 0, 0], CAP), Answer::NotTls("an empty TLS record"));
    assert_eq!(parse(b"GET", CAP), Answer::NotTls("no TLS handshake record"));
    for broken in [
        (0, vec![]),                       // no list
        (0, vec![0, 9, 0, 0, 1, b'a']),    // a list longer than its extension
        (0, vec![0, 4, 0, 0, 9, b'a']),    // a name longer than its list
        (0, vec![0, 4, 0, 0, 1, b'a', 0]), // something after the list
        (16, vec![0, 0]),                  // no protocols
        (16, vec![0, 1, 0]),               // one without a name
        (16, vec![0, 3, 5, b'h', b'2']),   // one longer than its list
    ] {
        let bytes = hello_with(std::slice::from_ref(&broken));
        assert_eq!(parse(&bytes, CAP), Answer::NotTls("a broken ClientHello"), "{broken:?}");
        let split = in_records(&handshake(&bytes), &[2]);
        assert_eq!(parse(&split, CAP), Answer::NotTls("a broken ClientHello"), "{broken:?}");
    }
    let twice = hello_with(&[sni(b"a.example"), sni(b"a.example")]);
    assert_eq!(parse(&twice, CAP), Answer::NotTls("a broken ClientHello"));
}

#[test]
fn the_cap_holds_however_the_hello_is_cut() {
    let bytes = hello_with(&[(21, vec![0; 3000]), sni(b"a.example")]);
    let too_large = Answer::NotTls("a ClientHello over the size limit");
    assert!(matches!(parse(&bytes, bytes.len()), Answer::Hello(_)));
    assert_eq!(parse(&bytes, bytes.len() - 1), too_large);
    // Its length alone tells, as soon as that is there.
    assert_eq!(parse(&bytes[..9], bytes.len() - 1), too_large);
    // The headers of many small records count, too.
    let split = in_records(&handshake(&bytes), &[1]);
    assert!(matches!(parse(&split, split.len()), Answer::Hello(_)));
    assert_eq!(parse(&split, split.len() - 1), too_large);
    for length in 0..split.len() - 1 {
        assert_eq!(parse(&split[..length], split.len() - 1), Answer::NeedMore);
    }
    assert_eq!(parse(&split[..split.len() - 1], split.len() - 1), too_large);
}

/// The first answer that is one, when the bytes come in pieces of these sizes.
fn parse_in_pieces<'a>(bytes: &'a [u8], sizes: &[usize], cap: usize) -> Answer<'a> {
    let mut end = 0;
    let mut sizes = sizes.iter().cycle();
    loop {
        match parse(&bytes[..end], cap) {
            Answer::NeedMore if end < bytes.len() => {
                end = bytes.len().min(end + sizes.next().copied().unwrap_or(1));
            }
            answer => return answer,
        }
    }
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_answer(
        which in any::<prop::sample::Index>(),
        records in prop::collection::vec(1..700_usize, 1..8),
        pieces in prop::collection::vec(1..900_usize, 1..8),
    ) {
        let samples = samples();
        let (_, bytes) = which.get(&samples);
        let cut = in_records(&handshake(bytes), &records);
        prop_assert_eq!(parse_in_pieces(&cut, &pieces, CAP), parse(bytes, CAP));
    }

    #[test]
    fn damage_is_survived_and_every_cut_agrees_on_it(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        pieces in prop::collection::vec(1..300_usize, 1..8),
        cap in 0..3000_usize,
    ) {
        let samples = samples();
        let mut bytes = which.get(&samples).1.clone();
        for (place, byte) in damage {
            *place.get_mut(&mut bytes) = byte;
        }
        let whole = parse(&bytes, cap);
        prop_assert_eq!(parse_in_pieces(&bytes, &pieces, cap), whole);
    }

    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..400), cap in 0..500_usize) {
        let _ = parse(&bytes, cap);
        bytes.splice(..0, [0x16, 3, 1, 0, 200, 1, 0, 0, 190]);
        let _ = parse(&bytes, cap);
    }
}

#[test]
fn the_oracle_reads_what_it_is_given() {
    // `Acceptor` reads at most 4 KiB at a time; were the rest left, the comparison above would be void.
    let bytes = sample("rustls, post-quantum");
    let mut reader = bytes.as_slice();
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut reader).unwrap();
    assert_eq!(reader.bytes().count(), 0);
}
