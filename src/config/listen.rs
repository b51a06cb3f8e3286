//! Where a pool listens, and to whom.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::Problem;

/// Bytes in `sockaddr_un::sun_path`, without the final NUL.
const MAX_SOCKET_PATH: usize = 107;

/// A pool's listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// What to bind.
    pub address: Address,
    /// For listen(2): connections that may wait to be accepted; -1 is the system's maximum.
    pub backlog: i32,
    /// Name or number of the user that owns a Unix socket.
    pub owner: Option<String>,
    /// Name or number of the group of a Unix socket.
    pub group: Option<String>,
    /// The permissions of a Unix socket.
    pub mode: u32,
    /// Who may connect over TCP; `None` is anybody. IPv4-mapped addresses are kept as IPv4.
    pub allowed_clients: Option<Vec<IpAddr>>,
    /// Entries of `listen.allowed_clients` that are no addresses. They let nobody in; php-fpm's processes log each at
    /// their start.
    pub wrong_clients: Vec<String>,
}

impl Listen {
    /// Whether a client may connect. Whole addresses are compared, and an IPv4-mapped one counts as IPv4.
    ///
    /// Has no meaning for Unix sockets, whose permissions decide.
    pub fn allows(&self, client: IpAddr) -> bool {
        self.allowed_clients
            .as_ref()
            .is_none_or(|allowed| allowed.contains(&client.to_canonical()))
    }
}

/// What a socket is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// The first of these that can be bound; the others are then left alone. A port alone means `[::]`, which takes
    /// IPv4 as well, or else `0.0.0.0`.
    Tcp(Vec<SocketAddr>),
    /// A path.
    Unix(PathBuf),
}

impl Address {
    /// Reads a value of `listen`; `full_path` puts the pool's prefix before a relative path.
    pub(super) fn read(
        text: &str,
        full_path: impl FnOnce(&str) -> String,
    ) -> Result<Self, Problem> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let port = port(text, text)?;
            let any = [
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ];
            return Ok(Self::Tcp(any.map(|ip| SocketAddr::new(ip, port)).to_vec()));
        }
        match text.rsplit_once(':') {
            Some((host, digits)) if !text.starts_with('/') => {
                tcp(text, host, port(text, digits)?).map(Self::Tcp)
            }
            _ => {
                let path = full_path(text);
                match path.len() {
                    0..=MAX_SOCKET_PATH => Ok(Self::Unix(path.into())),
                    length => Err(Problem::SocketPathTooLong { path, length }),
                }
            }
        }
    }

    /// Whether both are the same socket.
    pub(super) fn collides(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(ours), Self::Tcp(theirs)) => ours.first() == theirs.first(),
            (ours, theirs) => ours == theirs,
        }
    }
}

impl fmt::Display for Address {
    /// `127.0.0.1:9000` or `/run/php.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addresses) => addresses.first().map_or(Ok(()), |address| address.fmt(f)),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

fn port(address: &str, digits: &str) -> Result<u16, Problem> {
    Some(digits)
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .filter(|&port| port != 0)
        .ok_or_else(|| Problem::BadPort {
            address: address.to_owned(),
            port: digits.to_owned(),
        })
}

/// Addresses are taken as they are; a name is resolved, now, so that a wrong one is found by `-t`.
fn tcp(address: &str, host: &str, port: u16) -> Result<Vec<SocketAddr>, Problem> {
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let bad = |reason: String| Problem::BadHost {
        address: address.to_owned(),
        host: host.to_owned(),
        reason,
    };
    if host.is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    let found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| bad(error.to_string()))?
        .collect();
    if found.is_empty() {
        Err(bad("it has no address".to_owned()))
    } else {
        Ok(found)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Address, Problem> {
        Address::read(text, |path| {
            if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/run/{path}")
            }
        })
    }

    #[test]
    fn every_form_of_php_fpm_is_read() {
        for (text, address) in [
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("[::1]:9000", "[::1]:9000"),
            ("::1:9000", "[::1]:9000"),
            ("[::]:9000", "[::]:9000"),
            ("9000", "[::]:9000"),
            ("/run/php.sock", "/run/php.sock"),
            ("php.sock", "/run/php.sock"),
            ("/run/a:b.sock", "/run/a:b.sock"),
        ] {
            assert_eq!(read(text).unwrap().to_string(), address, "{text}");
        }
    }

    #[test]
    fn a_port_alone_is_every_address() {
        assert_eq!(
            read("9000").unwrap(),
            Address::Tcp(vec![
                "[::]:9000".parse().unwrap(),
                "0.0.0.0:9000".parse().unwrap()
            ])
        );
    }

    #[test]
    fn a_host_may_be_a_name() {
        let Address::Tcp(addresses) = read("localhost:9000").unwrap() else {
            panic!("not TCP")
        };
        assert!(
            addresses
                .iter()
                .all(|address| address.ip().is_loopback() && address.port() == 9000),
            "{addresses:?}"
        );
    }

    #[test]
    fn ports_that_are_none_are_refused() {
        for text in [
            "0",
            "65536",
            "127.0.0.1:69002",
            "127.0.0.1:",
            "127.0.0.1:php",
            "127.0.0.1:+9",
            "unix:/run/php.sock",
            "[::1]",
        ] {
            assert!(
                matches!(read(text), Err(Problem::BadPort { .. })),
                "{text}: {:?}",
                read(text)
            );
        }
        for text in [":9000", "[]:9000"] {
            assert!(
                matches!(read(text), Err(Problem::BadHost { .. })),
                "{text}: {:?}",
                read(text)
            );
        }
    }

    #[test]
    fn a_socket_path_has_at_most_107_bytes() {
        let path = |length: usize| format!("/{}", "a".repeat(length - 1));
        assert!(read(&path(107)).is_ok());
        assert!(matches!(
            read(&path(108)),
            Err(Problem::SocketPathTooLong { length: 108, .. })
        ));
    }

    #[test]
    fn the_same_socket_collides_however_it_is_written() {
        let collide = |a: &str, b: &str| read(a).unwrap().collides(&read(b).unwrap());
        assert!(collide("9000", "[::]:9000"));
        assert!(collide("/run/php.sock", "php.sock"));
        assert!(!collide("127.0.0.1:9000", "127.0.0.2:9000"));
        assert!(!collide("9000", "/run/php.sock"));
    }

    #[test]
    fn clients_are_compared_whole() {
        let mut listen = Listen {
            address: Address::Unix("/x".into()),
            backlog: 511,
            owner: None,
            group: None,
            mode: 0o660,
            allowed_clients: None,
            wrong_clients: Vec::new(),
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(listen.allows(ip("192.0.2.1")));
        listen.allowed_clients = Some(Vec::new());
        assert!(!listen.allows(ip("127.0.0.1")));
        listen.allowed_clients = Some(vec![ip("127.0.0.1"), ip("2001:db8::1")]);
        assert!(listen.allows(ip("127.0.0.1")));
        assert!(listen.allows(ip("::ffff:127.0.0.1")));
        assert!(listen.allows(ip("2001:db8::1")));
        // php-fpm compared the first 12 bytes only.
        assert!(!listen.allows(ip("2001:db8::2")));
        assert!(!listen.allows(ip("127.0.0.2")));
    }
}
