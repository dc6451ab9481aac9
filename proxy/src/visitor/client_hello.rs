//! Reads the `ClientHello` that opens a TLS connection, as far as a proxy needs it: which host is
//! asked for, and is this an ACME validation?
//!
//! [`parse`] is called with everything gathered so far, again and again until it knows. It allocates
//! nothing, believes no length before the bytes are there, and looks at the body only once all of it
//! has come, so that asking again after every segment costs some nanoseconds. A hello in one record,
//! the usual case, is read in place; one that is spread over records is read across their borders,
//! and only a name that spans two of them is copied.
//!
//! What is not looked at (cipher suites, key shares, whether extensions repeat) is for the instance to
//! judge: it ends the TLS.

use std::{fmt, net::IpAddr};

/// The content type of the records of a handshake: how every TLS connection begins.
pub const FIRST_BYTE: u8 = 0x16;

const RECORD_HEADER: usize = 5;
const MAX_RECORD: usize = 1 << 14;
const MESSAGE_HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;
const MAX_NAME: usize = 253;
const HOST_NAME: u8 = 0;
const ACME_TLS_1: &[u8] = b"acme-tls/1";

const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const EXTENSION_ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// What the bytes gathered so far are.
#[expect(clippy::large_enum_variant, reason = "a joined name stays on the stack: nothing is allocated here")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The beginning of a hello; call again with more.
    NeedMore,
    /// No hello, or a broken one, or one over the limit; why.
    NotTls(&'static str),
    /// A whole hello.
    Hello(ClientHello<'a>),
}

/// What a hello says, as far as routing needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello<'a> {
    name: Result<Name<'a>, NameProblem>,
    /// Its only ALPN protocol is `acme-tls/1`: a certificate authority validates the name.
    pub only_acme_tls_1: bool,
    /// It carries an Encrypted `ClientHello`, or, as browsers do, noise that looks the same. The name
    /// is the outer one.
    pub has_ech: bool,
}

impl ClientHello<'_> {
    /// The host that is asked for: 1 to 253 letters, digits, `-`, `_` and `.`, in the visitor's case.
    ///
    /// RFC 6066 wants no trailing dot; where a visitor sends one, it is left out here, because
    /// `a.example.` means `a.example`.
    pub fn server_name(&self) -> Result<&str, NameProblem> {
        match &self.name {
            // It is ASCII: that was looked at before it was kept.
            Ok(name) => std::str::from_utf8(name.bytes()).map_err(|_| NameProblem::NotAHostname),
            Err(problem) => Err(*problem),
        }
    }
}

/// Why a hello asks for no host that could be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameProblem {
    /// No SNI at all: a very old client, or one that was given an address.
    Absent,
    /// An SNI without a name in it.
    Empty,
    /// More than 253 bytes.
    TooLong,
    /// An IP address, which RFC 6066 forbids.
    IpAddress,
    /// Bytes that no hostname has.
    NotAHostname,
    /// More than one name.
    Several,
}

impl NameProblem {
    /// For logs and metrics: one of a few fixed texts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "no server name",
            Self::Empty => "empty server name",
            Self::TooLong => "server name too long",
            Self::IpAddress => "server name is an IP address",
            Self::NotAHostname => "server name is no hostname",
            Self::Several => "several server names",
        }
    }
}

impl fmt::Display for NameProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Looks at all the bytes gathered so far. The last byte of the hello has to come within `cap` bytes,
/// record headers included; a caller never needs to keep more than that.
pub fn parse(bytes: &[u8], cap: usize) -> Answer<'_> {
    let whole = match find_end(bytes.get(..cap).unwrap_or(bytes), cap) {
        Ok(Some(message)) => message,
        Ok(None) if bytes.len() >= cap => return Answer::NotTls(TOO_LARGE),
        Ok(None) => return Answer::NeedMore,
        Err(reason) => return Answer::NotTls(reason),
    };
    match read_body(whole) {
        Some(hello) => Answer::Hello(hello),
        None => Answer::NotTls("a broken ClientHello"),
    }
}

const TOO_LARGE: &str = "a ClientHello over the size limit";

/// Splits off the payload of the first record, as much of it as is there.
/// `None`: its header is not there yet.
fn first_record(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, &'static str> {
    match bytes {
        [kind, ..] if *kind != FIRST_BYTE => Err("no TLS handshake record"),
        [_, major, ..] if *major != 3 => Err("a record of no TLS version"),
        [_, _, _, high, low, payload @ ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            match length {
                0 => Err("an empty TLS record"),
                1..=MAX_RECORD => Ok(Some((length, payload))),
                _ => Err("a TLS record that is too long"),
            }
        }
        _ => Ok(None),
    }
}

/// Walks the records, without looking into the hello beyond its length. `None`: not all here yet.
fn find_end(bytes: &[u8], cap: usize) -> Result<Option<Message<'_>>, &'static str> {
    let Some((length, payload)) = first_record(bytes)? else { return Ok(None) };
    // The usual case: one record that holds all of it.
    if let [CLIENT_HELLO, a, b, c, ..] = payload
        && length >= MESSAGE_HEADER
    {
        let body = length_24(*a, *b, *c);
        if RECORD_HEADER + MESSAGE_HEADER + body > cap {
            return Err(TOO_LARGE);
        }
        if MESSAGE_HEADER + body <= length {
            let here = payload.get(MESSAGE_HEADER..MESSAGE_HEADER + body);
            return Ok(here.map(|here| Message { here, later: &[], left: body }));
        }
    }
    walk_records(bytes, cap)
}

/// The unusual case: a hello over several records.
fn walk_records(bytes: &[u8], cap: usize) -> Result<Option<Message<'_>>, &'static str> {
    let mut rest = bytes;
    let mut header = [0; MESSAGE_HEADER];
    let mut seen = 0;
    while let Some((length, payload)) = first_record(rest)? {
        let here = payload.get(..length).unwrap_or(payload);
        // The header of the message may itself be spread over records.
        for (slot, byte) in header.iter_mut().skip(seen).zip(here) {
            *slot = *byte;
        }
        seen += here.len();
        let [kind, a, b, c] = header;
        if seen >= 1 && kind != CLIENT_HELLO {
            return Err("a handshake that does not begin with a ClientHello");
        }
        if seen >= MESSAGE_HEADER {
            let body = length_24(a, b, c);
            if RECORD_HEADER + MESSAGE_HEADER + body > cap {
                return Err(TOO_LARGE);
            }
            if seen >= MESSAGE_HEADER + body {
                let mut message = Message { here: &[], later: bytes, left: MESSAGE_HEADER + body };
                // All its bytes are there, so that this cannot fail.
                return Ok(message.skip(MESSAGE_HEADER).map(|()| message));
            }
        }
        match payload.get(length..) {
            Some(next) => rest = next,
            None => return Ok(None),
        }
    }
    Ok(None)
}

fn length_24(a: u8, b: u8, c: u8) -> usize {
    usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
}

/// The rest of a handshake message, whose bytes are all there and whose records have been checked.
#[derive(Clone, Copy)]
struct Message<'a> {
    /// The rest of the current record, if not of the message.
    here: &'a [u8],
    /// The records after it.
    later: &'a [u8],
    /// How many bytes of the message (or of the vector in it that is being read) are left.
    left: usize,
}

impl<'a> Message<'a> {
    /// The next bytes, at most `count` and up to the end of their record.
    fn some(&mut self, count: usize) -> Option<&'a [u8]> {
        if self.here.is_empty() && count > 0 {
            let (length, payload) = first_record(self.later).ok()??;
            (self.here, self.later) = payload.split_at_checked(length).unwrap_or((payload, &[]));
        }
        let (bytes, rest) = self.here.split_at_checked(count).unwrap_or((self.here, &[]));
        self.here = rest;
        self.left = self.left.checked_sub(bytes.len())?;
        Some(bytes)
    }

    /// Hands the next `count` bytes, in one piece or more, to `each`.
    fn pieces(&mut self, mut count: usize, mut each: impl FnMut(&'a [u8])) -> Option<()> {
        if count > self.left {
            return None;
        }
        while count > 0 {
            let bytes = self.some(count)?;
            if bytes.is_empty() {
                return None;
            }
            count -= bytes.len();
            each(bytes);
        }
        Some(())
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.pieces(count, |_| ())
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        // In place where it can be, for speed.
        if N <= self.left
            && let Some((array, rest)) = self.here.split_first_chunk::<N>()
        {
            self.here = rest;
            self.left -= N;
            return Some(*array);
        }
        let mut array = [0; N];
        let mut slots = array.iter_mut();
        self.pieces(N, |bytes| bytes.iter().zip(&mut slots).for_each(|(byte, slot)| *slot = *byte))?;
        Some(array)
    }

    fn u8(&mut self) -> Option<usize> {
        self.array().map(|[byte]| usize::from(byte))
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn length_16(&mut self) -> Option<usize> {
        self.u16().map(usize::from)
    }

    /// A vector of `length` bytes within this one, which goes on after it.
    fn vector(&mut self, length: usize) -> Option<Self> {
        let inner = Self { left: length, ..*self };
        self.skip(length)?;
        Some(inner)
    }

    fn is_empty(&self) -> bool {
        self.left == 0
    }
}

/// Reads the body of a hello. `None`: it contradicts itself.
fn read_body(mut hello: Message<'_>) -> Option<ClientHello<'_>> {
    hello.skip(2 + 32)?; // the version before there was a better place for it, and the random
    let session_id = hello.u8().filter(|length| *length <= 32)?;
    hello.skip(session_id)?;
    let cipher_suites = hello.length_16().filter(|length| *length > 0 && length.is_multiple_of(2))?;
    hello.skip(cipher_suites)?;
    let compressions = hello.u8().filter(|length| *length > 0)?;
    hello.skip(compressions)?;

    let mut name = None;
    let mut only_acme_tls_1 = None;
    let mut has_ech = false;
    // TLS 1.2 allows a hello that ends here.
    if !hello.is_empty() {
        let extensions = hello.length_16()?;
        if extensions != hello.left {
            return None;
        }
    }
    while !hello.is_empty() {
        let kind = hello.u16()?;
        let length = hello.length_16()?;
        match kind {
            EXTENSION_SERVER_NAME => {
                let found = read_server_name(hello.vector(length)?)?;
                if name.replace(found).is_some() {
                    return None;
                }
            }
            EXTENSION_ALPN => {
                let found = read_alpn(hello.vector(length)?)?;
                if only_acme_tls_1.replace(found).is_some() {
                    return None;
                }
            }
            _ => {
                has_ech |= kind == EXTENSION_ENCRYPTED_CLIENT_HELLO;
                hello.skip(length)?;
            }
        }
    }
    Some(ClientHello {
        name: name.unwrap_or(Err(NameProblem::Absent)),
        only_acme_tls_1: only_acme_tls_1.unwrap_or(false),
        has_ech,
    })
}

/// `None`: not even a list of names.
fn read_server_name(mut extension: Message<'_>) -> Option<Result<Name<'_>, NameProblem>> {
    if extension.length_16()? != extension.left {
        return None;
    }
    let mut names = extension;
    let mut found = None;
    while !names.is_empty() {
        // How long a name of another kind is nobody knows, so that nothing after it can be read.
        if names.u8()? != usize::from(HOST_NAME) {
            break;
        }
        let length = names.length_16()?;
        let name = Name::read(names.vector(length)?);
        found = match found {
            None => Some(name?),
            Some(_) => Some(Err(NameProblem::Several)),
        };
    }
    Some(found.unwrap_or(Err(NameProblem::Empty)))
}

/// Is `acme-tls/1` the only protocol of the list? `None`: no lawful list.
fn read_alpn(mut extension: Message<'_>) -> Option<bool> {
    let length = extension.length_16()?;
    if length != extension.left || length == 0 {
        return None;
    }
    let mut protocols = extension;
    let mut only_acme = true;
    while !protocols.is_empty() {
        let length = protocols.u8().filter(|length| *length > 0)?;
        let mut expected = ACME_TLS_1;
        protocols.pieces(length, |piece| match expected.strip_prefix(piece) {
            Some(rest) => expected = rest,
            None => only_acme = false,
        })?;
        only_acme &= length == ACME_TLS_1.len() && expected.is_empty();
        // `acme-tls/1` twice is not what a certificate authority sends.
        only_acme &= protocols.is_empty();
    }
    Some(only_acme)
}

/// A hostname: where it stands, or joined where it spans records.
#[expect(clippy::large_enum_variant, reason = "a joined name stays on the stack: nothing is allocated here")]
#[derive(Clone)]
enum Name<'a> {
    InPlace(&'a [u8]),
    Joined { bytes: [u8; MAX_NAME + 1], length: usize },
}

impl<'a> Name<'a> {
    /// `None`: the bytes are not there, which cannot be.
    fn read(mut bytes: Message<'a>) -> Option<Result<Self, NameProblem>> {
        let length = bytes.left;
        if length == 0 {
            return Some(Err(NameProblem::Empty));
        }
        if length > MAX_NAME + 1 {
            return Some(Err(NameProblem::TooLong));
        }
        let first = bytes.some(length)?;
        let name = if first.len() == length {
            Self::InPlace(first)
        } else {
            let mut joined = [0; MAX_NAME + 1];
            let mut slots = joined.iter_mut();
            let mut copy = |piece: &[u8]| {
                piece.iter().zip(&mut slots).for_each(|(byte, slot)| *slot = *byte);
            };
            copy(first);
            bytes.pieces(bytes.left, copy)?;
            Self::Joined { bytes: joined, length }
        };
        Some(name.checked())
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::InPlace(bytes) => bytes,
            Self::Joined { bytes, length } => bytes.get(..*length).unwrap_or_default(),
        }
    }

    fn checked(mut self) -> Result<Self, NameProblem> {
        if self.bytes().last() == Some(&b'.') {
            match &mut self {
                Self::InPlace(bytes) => *bytes = bytes.get(..bytes.len() - 1).unwrap_or_default(),
                Self::Joined { length, .. } => *length -= 1,
            }
        }
        let bytes = self.bytes();
        if bytes.is_empty() {
            return Err(NameProblem::Empty);
        }
        if bytes.len() > MAX_NAME {
            return Err(NameProblem::TooLong);
        }
        let mut lawful = true;
        let mut has_letter = false;
        for byte in bytes {
            has_letter |= byte.is_ascii_alphabetic() || *byte == b'-' || *byte == b'_';
            lawful &= byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        }
        // Parsing an address is only worth its time where the name could be one.
        if !lawful || !has_letter {
            let address = std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<IpAddr>().is_ok());
            if address {
                return Err(NameProblem::IpAddress);
            }
        }
        if lawful { Ok(self) } else { Err(NameProblem::NotAHostname) }
    }
}

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Name<'_> {}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.bytes().escape_ascii().to_string(), f)
    }
}
