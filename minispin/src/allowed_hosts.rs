//! Where a component may connect to. The rules are those of Spin's `allowed_outbound_hosts`: what is not
//! listed is refused, whatever the protocol.

use std::{fmt, net::IpAddr, ops::Range};

use url::{Host, Url};

/// The entries of one component, templates filled in.
#[derive(Debug, Default)]
pub struct AllowedHosts(Vec<Entry>);

#[derive(Debug, PartialEq)]
struct Entry {
    /// `None` allows every scheme.
    scheme: Option<String>,
    host: HostRule,
    /// `None` allows every port.
    ports: Option<Range<u32>>,
}

#[derive(Debug, PartialEq)]
enum HostRule {
    Any,
    /// Holds the domain with its leading dot.
    Subdomain(String),
    Is(Host),
}

impl AllowedHosts {
    /// Parses entries such as `postgres://127.0.0.1:5432`, `http://*.example.com`, `*://*:*`, `redis://db:1..9`.
    /// Entries that a template left empty are skipped, as in Spin: an optional endpoint.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, String> {
        entries
            .iter()
            .map(AsRef::as_ref)
            .map(str::trim)
            .filter(|entry| !["", "http://", "https://"].contains(entry))
            .map(|entry| parse_entry(entry).map_err(|problem| format!("{entry:?} {problem}")))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub fn allow(&self, destination: &Destination) -> bool {
        self.0.iter().any(|entry| entry.allows(destination))
    }
}

impl Entry {
    fn allows(&self, destination: &Destination) -> bool {
        let scheme = self.scheme.as_ref().is_none_or(|scheme| *scheme == destination.scheme);
        let host = match (&self.host, &destination.host) {
            (HostRule::Any, _) => true,
            (HostRule::Subdomain(suffix), Host::Domain(domain)) => domain.ends_with(suffix.as_str()),
            (HostRule::Subdomain(_), _) => false,
            (HostRule::Is(host), other) => host == other,
        };
        let port = match &self.ports {
            None => true,
            Some(ports) => destination.port.is_some_and(|port| ports.contains(&u32::from(port))),
        };
        scheme && host && port
    }
}

fn parse_entry(entry: &str) -> Result<Entry, String> {
    let (scheme, rest) = entry.split_once("://").ok_or("has no scheme: write <scheme>://<host>[:<port>]")?;
    let scheme = match scheme {
        "*" => None,
        _ if !scheme.is_empty() && scheme.chars().all(char::is_alphabetic) => Some(scheme.to_owned()),
        _ => return Err(format!("has the scheme {scheme:?}; minispin takes letters or `*`")),
    };
    // The colons inside an IPv6 address's brackets do not separate a port.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (rest, ""),
    };
    Ok(Entry {
        host: parse_host(host.strip_suffix('/').unwrap_or(host))?,
        ports: parse_ports(port.strip_suffix('/').unwrap_or(port), scheme.as_deref())?,
        scheme,
    })
}

fn parse_host(host: &str) -> Result<HostRule, String> {
    if host == "*" {
        return Ok(HostRule::Any);
    }
    if host == "self" || host == "self.alt" || host.ends_with(".spin.internal") {
        return Err(format!("addresses the application itself ({host}): Spin does that, minispin does not"));
    }
    if host.contains('/') {
        return Err("has a path or is a network: minispin takes hosts only".into());
    }
    let (rule, name): (fn(String) -> HostRule, _) = match host.strip_prefix("*.") {
        Some(domain) => (|domain| HostRule::Subdomain(format!(".{domain}")), domain),
        None => (|domain| HostRule::Is(Host::Domain(domain)), host),
    };
    match Host::parse(name) {
        Ok(Host::Domain(domain)) if !domain.contains('*') => Ok(rule(domain)),
        Ok(Host::Domain(_)) => Err("has a `*` that is not a whole first label".into()),
        Ok(address) if name == host => Ok(HostRule::Is(address)),
        Ok(_) => Err("has a wildcard before an address".into()),
        Err(error) => Err(format!("has no valid host: {error}")),
    }
}

fn parse_ports(port: &str, scheme: Option<&str>) -> Result<Option<Range<u32>>, String> {
    let number = |text: &str| text.parse::<u16>().map_err(|error| format!("has the port {text:?}: {error}"));
    match port {
        "*" => Ok(None),
        "" => {
            let default = scheme.and_then(default_port).map(u32::from);
            let default = default.ok_or("needs a port: its scheme has none by default")?;
            Ok(Some(default..default + 1))
        }
        _ => match port.split_once("..") {
            // As in Spin, the end of a range is not part of it.
            Some((start, end)) => Ok(Some(number(start)?.into()..number(end)?.into())),
            None => number(port).map(|port| Some(port.into()..u32::from(port) + 1)),
        },
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "postgres" => Some(5432),
        "redis" => Some(6379),
        "http" => Some(80),
        "https" => Some(443),
        "mysql" => Some(3306),
        "mqtt" => Some(1883),
        _ => None,
    }
}

/// What a component asked to connect to, as far as the rules look at it. Prints without user and password.
#[derive(Debug)]
pub struct Destination {
    scheme: String,
    host: Host,
    port: Option<u16>,
}

impl Destination {
    /// Takes a URL, or `host:port`, which `scheme` then completes.
    pub fn parse(address: &str, scheme: &str) -> Result<Self, String> {
        let url = match Url::parse(address) {
            Ok(url) if url.has_host() => url,
            // `db:5432` parses as a URL with the scheme `db` and no host.
            _ => Url::parse(&format!("{scheme}://{address}")).map_err(|error| error.to_string())?,
        };
        let host = url.host_str().ok_or("there is no host in it")?;
        Ok(Self {
            host: Host::parse(host).map_err(|error| error.to_string())?,
            port: url.port().or_else(|| default_port(url.scheme())),
            scheme: url.scheme().to_owned(),
        })
    }
}

impl Destination {
    /// An IP address as a URL holds it.
    pub fn literal(address: IpAddr) -> String {
        match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(entry: &str, address: &str, scheme: &str) -> bool {
        let hosts = AllowedHosts::parse(&[entry]).expect("valid entry");
        hosts.allow(&Destination::parse(address, scheme).expect("valid address"))
    }

    #[test]
    fn scheme_host_and_port_all_have_to_match() {
        for (entry, address, allowed) in [
            ("http://example.com", "http://example.com/path", true),
            ("http://example.com", "http://example.com:8080", false),
            ("http://example.com", "https://example.com", false),
            ("http://example.com:*", "http://example.com:8080", true),
            ("http://*:8080", "http://other:8080", true),
            ("*://localhost:6379", "redis://:pass@localhost:6379/1", true),
            ("*://*:*", "ftp://anything:1", true),
            ("http://*.example.com", "http://api.example.com", true),
            ("http://*.example.com", "http://example.com", false),
            ("http://*.example.com", "http://badexample.com", false),
            ("http://127.0.0.1:8000..9000", "http://127.0.0.1:8999", true),
            ("http://127.0.0.1:8000..9000", "http://127.0.0.1:9000", false),
            ("http://[::1]:8080", "http://[::1]:8080", true),
            ("http://[::1]", "http://[::1]", true),
            ("redis://localhost", "redis://localhost", true),
        ] {
            assert_eq!(allows(entry, address, "http"), allowed, "{entry} {address}");
        }
    }

    #[test]
    fn an_address_without_a_scheme_takes_that_of_its_protocol() {
        assert!(allows("postgres://127.0.0.1:5432", "127.0.0.1", "postgres"));
        assert!(allows("postgres://db:6000", "db:6000", "postgres"));
        assert!(!allows("http://db:6000", "db:6000", "postgres"));
    }

    #[test]
    fn entries_that_a_template_left_empty_allow_nothing() {
        let hosts = AllowedHosts::parse(&["http://", ""]).expect("skipped");
        assert!(!hosts.allow(&Destination::parse("http://x", "http").expect("valid")));
    }

    #[test]
    fn entries_that_cannot_be_honoured_are_refused() {
        for entry in [
            "example.com",
            "http://self",
            "http://api.spin.internal",
            "http://10.0.0.0/8",
            "http://x/path",
            "http://a*b",
            "http://*.*.com",
            "http://x:port",
            "*://x",
            "{a,b}://x",
            "ftp://x",
        ] {
            let error = AllowedHosts::parse(&[entry]).expect_err(entry);
            assert!(error.contains(entry), "{error}");
        }
    }

    #[test]
    fn a_destination_prints_without_its_password() {
        let destination = Destination::parse("redis://user:secret@db/0", "redis").expect("valid");
        assert_eq!(destination.to_string(), "redis://db:6379");
    }
}
