//! Whose request it is when a proxy stands in front.
//!
//! `X-Forwarded-For` is what the sender says, so it counts only as far as it was written by proxies that the
//! operator trusts. It is read from the right, where the nearest proxy wrote; the first address that is no
//! trusted proxy's is the client. What stands left of it may be invented and is never looked at.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// An IPv4 or IPv6 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an address nor a network like 10.0.0.0/8 or fd00::/8")]
pub struct InvalidNetwork(String);

impl FromStr for Network {
    type Err = InvalidNetwork;

    /// A single address is a network of its own.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidNetwork(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| invalid())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        match prefix.unwrap_or(longest) {
            prefix if prefix <= longest => Ok(Self { address, prefix }),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        let prefix = u32::from(self.prefix);
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(32 - prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(128 - prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The client's address: the peer's, unless trusted proxies forwarded the request. If all of the way is
/// trusted, its beginning; where an entry is no address, the proxy that passed it on.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    // A socket for both families shows IPv4 peers as ::ffff:a.b.c.d.
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    for entry in lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
        let Some(address) = std::str::from_utf8(entry).ok().and_then(|text| address_of(text.trim())) else {
            return client;
        };
        client = address.to_canonical();
        if !is_trusted(client) {
            return client;
        }
    }
    client
}

/// Some proxies add the port: `192.0.2.1:443`, `[2001:db8::1]:443`.
fn address_of(entry: &str) -> Option<IpAddr> {
    let bare = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || entry.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    entry.parse().ok().or_else(with_port).or_else(bare)
}

/// What one subscriber has, an IPv4 address or a /64 of IPv6, and the network around it: a /24, or the /48 that a site
/// may be given (RFC 6177, section 2).
pub fn networks(address: IpAddr) -> [(IpAddr, u8); 2] {
    match address {
        IpAddr::V4(v4) => [(address, 32), (Ipv4Addr::from_bits(v4.to_bits() >> 8 << 8).into(), 24)],
        IpAddr::V6(v6) => [64, 48].map(|bits: u8| {
            let rest = 128 - u32::from(bits);
            (Ipv6Addr::from_bits(v6.to_bits() >> rest << rest).into(), bits)
        }),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(peer: &str, lines: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let trusted: Vec<Network> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.4", "192.0.2.4", "192.0.2.5"),
            ("192.0.2.7/31", "192.0.2.6", "192.0.2.8"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network} {outside}");
        }
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "proxy.example", "10.0.0/8"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn without_a_trusted_peer_nothing_that_is_said_counts() {
        assert_eq!(client("203.0.113.9", &["198.51.100.1"], &[]), "203.0.113.9");
        assert_eq!(client("203.0.113.9", &["198.51.100.1"], &["10.0.0.0/8"]), "203.0.113.9");
        assert_eq!(client("::ffff:203.0.113.9", &["198.51.100.1"], &["10.0.0.0/8"]), "203.0.113.9");
    }

    #[test]
    fn the_nearest_address_that_is_no_proxy_is_the_client() {
        let ours = &["10.0.0.0/8", "fd00::/8"];
        assert_eq!(client("10.0.0.1", &["198.51.100.1"], ours), "198.51.100.1");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.1"], ours), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1, 10.0.0.7"], ours), "198.51.100.1");
        assert_eq!(client("fd00::1", &["2001:db8::5"], ours), "2001:db8::5");
        assert_eq!(client("10.0.0.1", &["198.51.100.1:4711"], ours), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::5]:4711"], ours), "2001:db8::5");
        assert_eq!(client("10.0.0.1", &[], ours), "10.0.0.1", "the proxy itself asks");
        assert_eq!(client("10.0.0.1", &["10.0.0.8, 10.0.0.7"], ours), "10.0.0.8", "all of it is ours");
    }

    #[test]
    fn what_a_client_invents_is_not_believed() {
        let ours = &["10.0.0.0/8"];
        // The client sent the left part; the proxy wrote the right one.
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 10.0.0.9, 198.51.100.1"], ours), "198.51.100.1");
        assert_eq!(
            client("10.0.0.1", &["1.1.1.1", "198.51.100.1"], ours),
            "198.51.100.1",
            "a line of its own"
        );
        assert_eq!(client("10.0.0.1", &["1.1.1.1, nonsense, 10.0.0.7"], ours), "10.0.0.7");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, \u{fc}"], ours), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, "], ours), "10.0.0.1");
    }
}
