//! What lies between the two sides: a byte pipe that holds so much and no more, and an ear on it that reads the
//! frames for itself.

use std::collections::HashMap;

use snitun::{
    cipher::Opener,
    frame::{ChannelId, Flow, HEADER_LEN, Header},
    version::ProtocolVersion,
};

/// One direction of the connection.
pub(crate) struct Pipe {
    bytes: Vec<u8>,
    capacity: usize,
    ear: Ear,
}

impl Pipe {
    pub(crate) fn new(capacity: usize, ear: Ear) -> Self {
        Self { bytes: Vec::new(), capacity, ear }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes as much as fits.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.capacity - self.bytes.len());
        self.ear.hear(&bytes[..count]);
        self.bytes.extend_from_slice(&bytes[..count]);
        count
    }

    pub(crate) fn read(&mut self, count: usize) -> Vec<u8> {
        self.bytes.drain(..count.min(self.bytes.len())).collect()
    }
}

/// Follows one direction's frames and holds their sender to the protocol.
pub(crate) struct Ear {
    opener: Opener,
    /// What the receiver understands.
    receiver: ProtocolVersion,
    opens_channels: bool,
    heard: Vec<u8>,
    body: usize,
    address: usize,
    /// Channels the sender has spoken of: is the receiver told to pause, and is it closed?
    told: HashMap<ChannelId, Told>,
}

#[derive(Default)]
struct Told {
    paused: bool,
    closed: bool,
}

impl Ear {
    pub(crate) fn new(opener: Opener, receiver: ProtocolVersion, opens_channels: bool) -> Self {
        Self {
            opener,
            receiver,
            opens_channels,
            heard: Vec::new(),
            body: 0,
            address: 0,
            told: HashMap::new(),
        }
    }

    fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.body > 0 {
                let passed = self.body.min(bytes.len());
                (self.body, bytes) = (self.body - passed, &bytes[passed..]);
                continue;
            }
            // The address in a NEW is a unit of the running cipher, as a header is.
            let address = std::mem::take(&mut self.address);
            let len = if address > 0 { address } else { HEADER_LEN } + self.opener.overhead();
            let missing = (len - self.heard.len()).min(bytes.len());
            self.heard.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.heard.len() < len {
                self.address = address;
                return;
            }
            let mut unit = std::mem::take(&mut self.heard);
            let plain: &[u8] = self.opener.open(&mut unit).expect("every unit authenticates");
            if address == 0 {
                self.header(&Header::decode(plain.try_into().expect("a header is 32 bytes")));
            }
        }
    }

    fn header(&mut self, header: &Header) {
        let size = header.size as usize;
        (self.address, self.body) = if header.flow == Flow::New { (size, 0) } else { (0, size) };
        if header.flow == Flow::Ping {
            return;
        }
        let known = self.told.contains_key(&header.channel);
        let told = self.told.entry(header.channel).or_default();
        match header.flow {
            Flow::New => assert!(self.opens_channels && !known, "NEW twice, or from the client"),
            Flow::Data => assert!(!told.closed, "DATA after CLOSE"),
            Flow::Close => assert!(!std::mem::replace(&mut told.closed, true), "CLOSE twice"),
            Flow::Pause | Flow::Resume => {
                let pause = header.flow == Flow::Pause;
                assert!(
                    self.receiver.understands_pause(),
                    "a peer of version 0 was told to {:?}",
                    header.flow
                );
                assert!(!told.closed && told.paused != pause, "{:?} out of turn", header.flow);
                told.paused = pause;
            }
            Flow::Ping | Flow::Unknown(_) => panic!("{:?} in a session of ours", header.flow),
        }
    }
}
