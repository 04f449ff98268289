//! Which hosts `http/request` may reach, and which addresses. Pure.
//!
//! A name is allowed by an entry, and says nothing yet about where it leads: whoever serves the name decides that. So an
//! address that was found by a name must be a public one, unless the person who wrote the entry wrote the address
//! itself, or `localhost`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An entry of the list: `HOST`, `*.DOMAIN`, an address, or `localhost`, each with `:PORT` or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost {
    name: Name,
    /// Without it, that of the scheme.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Exact(String),
    /// What follows the `*`, with its dot.
    Below(String),
    Address(IpAddr),
    Localhost,
}

/// The text is no entry of the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no host: expected `HOST[:PORT]`, `*.DOMAIN[:PORT]`, `ADDRESS[:PORT]` or `[ADDRESS]:PORT`"
)]
pub struct AllowedHostError {
    /// What was given.
    pub text: String,
}

impl FromStr for AllowedHost {
    type Err = AllowedHostError;

    fn from_str(text: &str) -> Result<Self, AllowedHostError> {
        parse(text).ok_or_else(|| AllowedHostError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<AllowedHost> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(AllowedHost { name: Name::Address(address), port: None });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, Some(port.parse().ok().filter(|port| *port != 0)?))
        }
        _ => (text, None),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
        return (address.is_ipv4() || bare.is_some())
            .then_some(AllowedHost { name: Name::Address(address), port });
    }
    let host = host.to_ascii_lowercase();
    let name = match host.strip_prefix('*') {
        _ if host == "localhost" => Name::Localhost,
        // One domain at least: `*.com` would be everybody.
        Some(below) if below.strip_prefix('.').is_some_and(|domain| domain.contains('.')) => {
            Name::Below(below.to_owned())
        }
        Some(_) => return None,
        None => Name::Exact(host.clone()),
    };
    let labels = host.strip_prefix("*.").unwrap_or(&host);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    labels.split('.').all(is_label).then_some(AllowedHost { name, port })
}

/// Where a request wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) is_tls: bool,
    /// In lower case, without brackets and without a last dot.
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Which addresses a permitted destination may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those that anybody may reach.
    Public,
    /// This one, which nobody resolves.
    Only(IpAddr),
    /// This machine.
    Loopback,
}

impl Reach {
    /// Whether an address lies within.
    pub(super) fn contains(self, address: IpAddr) -> bool {
        match self {
            Self::Public => is_public(address),
            Self::Only(only) => only == address,
            Self::Loopback => address.is_loopback(),
        }
    }
}

/// What an entry of `list` permits of a destination; nothing if none does.
pub(super) fn reach(list: &[AllowedHost], destination: &Destination) -> Option<Reach> {
    let Destination { is_tls, host, port } = destination;
    let usual = if *is_tls { 443 } else { 80 };
    let entries = list.iter().filter(|entry| entry.port.unwrap_or(usual) == *port);
    let address = host.parse::<IpAddr>().ok();
    entries.map(|entry| entry.name.reach(host, address)).find(Option::is_some).flatten()
}

impl Name {
    fn reach(&self, host: &str, address: Option<IpAddr>) -> Option<Reach> {
        match self {
            Self::Exact(name) => (address.is_none() && name == host).then_some(Reach::Public),
            Self::Below(domain) => {
                let is_below = host.len() > domain.len() && host.ends_with(domain.as_str());
                (address.is_none() && is_below).then_some(Reach::Public)
            }
            Self::Address(own) => (address == Some(*own)).then_some(Reach::Only(*own)),
            Self::Localhost => (host == "localhost").then_some(Reach::Loopback),
        }
    }
}

/// Whether an address is one of the internet's: not of this machine, its network, its provider's services, or several
/// machines at once (the registries of RFC 6890, and what carries an IPv4 address within).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        // Carriers' own networks, where some providers have their metadata.
        || (a == 100 && (64..128).contains(&b))
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a == 198 && matches!(b, 18 | 19))
        // Several machines, and what is reserved.
        || a >= 224
        // Azure's services for a machine, on a public address.
        || address == Ipv4Addr::new(168, 63, 129, 16);
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let within = |high: u16, low: u16| {
        let [one, two] = high.to_be_bytes();
        let [three, four] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(one, two, three, four))
    };
    match (a, b) {
        (0, 0) if [c, d, e] == [0; 3] && f == 0xffff => within(g, h),
        // NAT64 (RFC 6052) and 6to4 (RFC 3056) lead to the IPv4 address in them.
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => within(g, h),
        (0x2002, _) => within(b, c),
        // Teredo, benchmarks, documentation: all of 2001::/23, and what is written in books.
        (0x2001, b) if b < 0x200 || b == 0xdb8 => false,
        (0x3fff, b) if b < 0x1000 => false,
        // Global unicast, the rest of which is anybody's.
        (a, _) => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(host: &str, port: u16) -> Destination {
        Destination { is_tls: port == 443, host: host.to_owned(), port }
    }

    fn permitted(entry: &str, host: &str, port: u16) -> Option<Reach> {
        reach(&[entry.parse().unwrap()], &to(host, port))
    }

    #[test]
    fn an_entry_permits_its_host_at_its_port() {
        assert_eq!(permitted("example.com", "example.com", 443), Some(Reach::Public));
        assert_eq!(permitted("Example.COM", "example.com", 80), Some(Reach::Public));
        assert_eq!(permitted("example.com", "example.com", 8080), None);
        assert_eq!(permitted("example.com:8080", "example.com", 8080), Some(Reach::Public));
        assert_eq!(permitted("example.com:8080", "example.com", 80), None);
        for other in ["www.example.com", "notexample.com", "example.com.evil.org", "example.org"] {
            assert_eq!(permitted("example.com", other, 443), None, "{other}");
        }
    }

    #[test]
    fn a_star_permits_what_is_below_a_domain() {
        assert_eq!(permitted("*.example.com", "a.b.example.com", 443), Some(Reach::Public));
        for other in ["example.com", ".example.com", "notexample.com", "example.com.org"] {
            assert_eq!(permitted("*.example.com", other, 443), None, "{other}");
        }
    }

    #[test]
    fn an_address_is_reached_only_by_itself() {
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(permitted("127.0.0.1:9", "127.0.0.1", 9), Some(Reach::Only(local)));
        assert_eq!(permitted("[::1]:9", "::1", 9), Some(Reach::Only("::1".parse().unwrap())));
        assert_eq!(permitted("127.0.0.1:9", "127.0.0.2", 9), None);
        assert_eq!(permitted("127.0.0.1:9", "localhost", 9), None);
        assert_eq!(permitted("localhost:9", "localhost", 9), Some(Reach::Loopback));
        assert_eq!(permitted("localhost:9", "127.0.0.1", 9), None);
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for text in [
            "",
            "*",
            "*.com",
            "a*.example.com",
            "http://a",
            "a b",
            "a:0",
            "a:x",
            "a..b",
            "a/b",
            "::1:9x",
            "*.1",
        ] {
            assert!(text.parse::<AllowedHost>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_leads_to_public_addresses_only() {
        let refused = [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.1.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00:ec2::254",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "::7f00:1",
            "100::1",
        ];
        for address in refused {
            assert!(!Reach::Public.contains(address.parse().unwrap()), "{address}");
        }
        for address in
            ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101", "2a00::1"]
        {
            assert!(Reach::Public.contains(address.parse().unwrap()), "{address}");
        }
    }
}
