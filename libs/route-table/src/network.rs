//! Networks visitors come from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A network in CIDR notation. An IPv4 address inside IPv6 (`::ffff:192.0.2.1`) is the IPv4 address, in
/// networks and in the addresses asked about; apart from that the two families never meet: `::/0` contains no
/// IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNet);

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not an address with a prefix length.
    #[error("{0:?} is not a network; write e.g. 192.0.2.0/24, 2001:db8::/32 or a single address")]
    Unreadable(String),
    /// Bits behind the prefix: nobody can tell whether the host or the network was meant.
    #[error(
        "{written} is not a network: write {network} for the whole network or {address} for the one address"
    )]
    HostBits {
        /// As written.
        written: IpNet,
        /// The network around it.
        network: IpNet,
        /// The address in it.
        address: IpAddr,
    },
    /// A prefix too short to be one family.
    #[error(
        "{0} reaches beyond the IPv4 addresses inside IPv6; write the IPv4 network itself, e.g. 0.0.0.0/0"
    )]
    MixesFamilies(IpNet),
}

/// Bits in front of an IPv4 address inside IPv6.
const MAPPED_PREFIX: u8 = 96;

impl Cidr {
    /// Is the address in this network?
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unreadable = || CidrError::Unreadable(text.chars().take(64).collect());
        let net = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| unreadable())?,
        };
        if net.addr() != net.network() {
            return Err(CidrError::HostBits { written: net, network: net.trunc(), address: net.addr() });
        }
        let IpAddr::V4(mapped) = net.addr().to_canonical() else { return Ok(Self(net)) };
        if net.addr().is_ipv4() {
            return Ok(Self(net));
        }
        let prefix = net.prefix_len().checked_sub(MAPPED_PREFIX).ok_or(CidrError::MixesFamilies(net))?;
        IpNet::new(mapped.into(), prefix).map(Self).map_err(|_| unreadable())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Cidr>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_inside_or_outside() {
        assert!(contains("192.0.2.0/24", "192.0.2.255"));
        assert!(!contains("192.0.2.0/24", "192.0.3.0"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.8"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!contains("2001:db8::/32", "2001:db9::1"));
        assert!(contains("::/0", "2001:db8::1"));
    }

    #[test]
    fn ipv4_inside_ipv6_is_ipv4() {
        assert!(contains("192.0.2.0/24", "::ffff:192.0.2.1"));
        assert!(contains("::ffff:192.0.2.0/120", "192.0.2.1"));
        assert_eq!("::ffff:192.0.2.0/120".parse::<Cidr>().unwrap().to_string(), "192.0.2.0/24");
        assert!(!contains("::/0", "::ffff:192.0.2.1"));
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_remedy() {
        let message = |text: &str| text.parse::<Cidr>().unwrap_err().to_string();
        assert!(message("10.0.0.1/8").contains("10.0.0.0/8 for the whole network or 10.0.0.1"));
        assert!(message("10.0.0.0/33").contains("not a network"));
        assert!(message("10.0.0/8").contains("not a network"));
        assert!(message("home").contains("192.0.2.0/24"));
    }
}
