//! How a visitor is refused: a TLS alert before any handshake, then a close that lets it arrive.

use std::{io::Write, net::TcpStream as StdTcpStream};

use byte_relay::leaving::leave;

use super::client_hello::NameProblem;
use crate::metrics::RefusalReason;

/// Why a visitor is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The hello names no host that could be served.
    NoName(NameProblem),
    /// Nobody is known by that name.
    UnknownHost,
    /// The instance's owner has switched remote access off.
    Disabled,
    /// The instance's version is blocked.
    Blocked,
    /// The route carries a restriction this build does not know.
    NotUnderstood,
    /// The instance's networks do not include the visitor's.
    Network,
    /// The instance has as many visitors as it may.
    InstanceFull,
    /// The visitor's address opens connections to the instance faster than it may.
    TooFast,
    /// Too many certificate validations of the instance in a minute.
    ValidationTooFast,
    /// The instance's agent is not connected.
    NoTunnel,
    /// The agent did not come back while the visitor waited.
    NotBack,
    /// Too many visitors wait already.
    ParkingFull,
}

const UNRECOGNIZED_NAME: u8 = 112;
const ACCESS_DENIED: u8 = 49;
const INTERNAL_ERROR: u8 = 80;

impl Refusal {
    /// The TLS alert that says it. Unknown, disabled and blocked hosts look alike from outside.
    pub const fn alert(self) -> u8 {
        match self {
            Self::NoName(_) | Self::UnknownHost | Self::Disabled | Self::Blocked | Self::NotUnderstood => {
                UNRECOGNIZED_NAME
            }
            Self::Network => ACCESS_DENIED,
            Self::InstanceFull
            | Self::TooFast
            | Self::ValidationTooFast
            | Self::NoTunnel
            | Self::NotBack
            | Self::ParkingFull => INTERNAL_ERROR,
        }
    }

    /// The same for metrics and logs.
    pub const fn reason(self) -> RefusalReason {
        match self {
            Self::NoName(_) => RefusalReason::NoHostname,
            Self::UnknownHost => RefusalReason::UnknownHost,
            Self::Disabled => RefusalReason::Disabled,
            Self::Blocked => RefusalReason::Blocked,
            Self::NotUnderstood => RefusalReason::NotUnderstood,
            Self::Network => RefusalReason::Network,
            Self::InstanceFull => RefusalReason::InstanceConnections,
            Self::TooFast => RefusalReason::ClientRate,
            Self::ValidationTooFast => RefusalReason::AcmeRate,
            Self::NoTunnel => RefusalReason::NoTunnel,
            Self::NotBack => RefusalReason::ParkedTimeout,
            Self::ParkingFull => RefusalReason::ParkingFull,
        }
    }
}

/// A fatal alert, in the record version every client accepts before one is agreed on.
const fn alert_record(alert: u8) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    [ALERT, 3, 3, 0, 2, FATAL, alert]
}

/// Says why and hangs up, without holding anybody else up. Call it on a data thread.
pub fn refuse(mut stream: StdTcpStream, refusal: Refusal) {
    // Seven bytes fit into any fresh socket's buffer; where they do not, nobody is reading.
    let said = stream.write(&alert_record(refusal.alert()));
    if said.is_ok_and(|count| count == 7) {
        leave(stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_not_served_look_alike() {
        for refusal in [Refusal::UnknownHost, Refusal::Disabled, Refusal::Blocked, Refusal::NotUnderstood] {
            assert_eq!(refusal.alert(), 112, "{refusal:?}");
        }
        assert_eq!(Refusal::Network.alert(), 49);
        assert_eq!(Refusal::NotBack.alert(), 80);
        assert_eq!(alert_record(112), [21, 3, 3, 0, 2, 2, 112]);
    }
}
