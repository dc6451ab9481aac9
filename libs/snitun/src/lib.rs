//! The SniTun protocol: many visitors' connections through one TCP connection that an agent behind a home's router
//! opened, without I/O; and one tokio driver for it.
//!
//! The core takes bytes and `now`, and gives bytes, actions and the next deadline. It has no sockets, no clock and no
//! source of randomness of its own ([`random::Random`] is passed in), so that a test can play any schedule through it.
//!
//! | module | what it knows |
//! |---|---|
//! | [`token`], [`fernet`] | the token an agent opens its connection with, under several keys at once |
//! | [`handshake`] | the proof that both sides hold the session's key |
//! | [`cipher`] | `aes-cbc`, `aes-gcm` and `aes-gcm-siv`, by the unit |
//! | [`version`] | versions 0, 1 and 2: each side is told the other's |
//! | [`frame`] | the 32-byte header |
//! | [`multiplexer`] | channels over one stream: the heart of it, which answers to a [`multiplexer::Local`] |
//! | [`channel`], [`flow_control`], [`heartbeat`], [`outbox`] | its parts: keys, marks and budgets, signs of life, bytes to send |
//! | `driver` (feature `tokio`) | one future that owns a tunnel's socket and those of all its channels |
//!
//! # A request through a tunnel in memory
//!
//! ```
//! use std::{net::IpAddr, time::{Duration, Instant}};
//! use snitun::{
//!     channel::ChannelKey,
//!     cipher::{AesIv, AesKey, CipherKind, Role, pair},
//!     multiplexer::{Ended, Local, Multiplexer, Settings, Signal},
//!     outbox::Outbox,
//!     random::Random,
//!     version::ProtocolVersion,
//! };
//!
//! /// A real program passes in a cryptographic generator.
//! struct Counting(u8);
//! impl Random for Counting {
//!     fn fill(&mut self, out: &mut [u8]) {
//!         self.0 += 1;
//!         out.fill(self.0);
//!     }
//! }
//!
//! /// What each end does with what it is told: here it remembers.
//! #[derive(Default)]
//! struct Memory {
//!     visit: Option<(ChannelKey, Option<IpAddr>)>,
//!     heard: Vec<u8>,
//! }
//! impl Local for Memory {
//!     fn opened(&mut self, key: ChannelKey, visitor: Option<IpAddr>) -> bool {
//!         self.visit = Some((key, visitor));
//!         true
//!     }
//!     fn data(&mut self, _: ChannelKey, bytes: &[u8]) -> usize {
//!         self.heard.extend_from_slice(bytes);
//!         bytes.len() // fewer: the rest waits in the channel, and the peer is told to pause in time
//!     }
//!     fn closed(&mut self, _: ChannelKey, _: Ended, _: bool) {}
//!     fn held(&mut self, _: ChannelKey, _: bool) {}
//!     fn alive(&mut self, _: Duration) {}
//!     fn signal(&mut self, _: Signal) {}
//! }
//!
//! let (key, iv, random, now) = (AesKey([1; 32]), AesIv([2; 16]), &mut Counting(0), Instant::now());
//! let mut end = |role| {
//!     let ciphers = pair(CipherKind::AesGcmSiv, &key, &iv, role, &mut *random);
//!     Multiplexer::new(role, ProtocolVersion::V2, ciphers, Settings::default(), now)
//! };
//! let (mut proxy, mut agent) = (end(Role::Server), end(Role::Client));
//! let (mut to_agent, mut to_proxy) = (Outbox::default(), Outbox::default());
//! let (mut at_proxy, mut at_agent) = (Memory::default(), Memory::default());
//!
//! // A visitor comes to the proxy and asks.
//! let address: IpAddr = "2001:db8::7".parse()?;
//! let visit = proxy.open(Some(address), &mut to_agent, random)?;
//! proxy.send_data(visit, 64, &mut to_agent, random, |buffer| {
//!     buffer[..4].copy_from_slice(b"GET "); // a driver reads a socket straight into the buffer
//!     (4, ())
//! });
//!
//! // The bytes arrive at the agent.
//! let mut bytes = to_agent.unsent().to_vec();
//! to_agent.sent(bytes.len());
//! agent.receive(&mut bytes, now, &mut to_proxy, random, &mut at_agent)?;
//! let (arrived, visitor) = at_agent.visit.ok_or("nobody came")?;
//! assert_eq!((visitor, &at_agent.heard[..]), (Some(address), &b"GET "[..]));
//!
//! // It answers and hangs up.
//! agent.send_data(arrived, 64, &mut to_proxy, random, |buffer| {
//!     buffer[..2].copy_from_slice(b"OK");
//!     (2, ())
//! });
//! agent.close(arrived, &mut to_proxy, random);
//! let mut bytes = to_proxy.unsent().to_vec();
//! proxy.receive(&mut bytes, now, &mut to_agent, random, &mut at_proxy)?;
//! assert_eq!(at_proxy.heard, b"OK");
//! assert_eq!((proxy.open_channels(), agent.open_channels()), (0, 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod channel;
pub mod cipher;
#[cfg(feature = "tokio")]
pub mod driver;
pub mod fernet;
pub mod flow_control;
pub mod frame;
pub mod handshake;
pub mod heartbeat;
pub mod multiplexer;
pub mod outbox;
pub mod random;
pub mod token;
pub mod version;
