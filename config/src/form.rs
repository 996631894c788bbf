//! Texts with a form of their own: names, addresses, URLs, files, DNS names.
//!
//! One reading of each, used when a document is checked and again when it is taken over, so that the two
//! cannot differ.
//!
//! **Invariant:** a text that was read is in its one canonical writing (DNS names in lower case with the final
//! dot, IP addresses as the standard library writes them), so that two of them can be compared.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::length::Length;
use crate::rule::Rule;

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) rule: Rule,
    pub(crate) message: String,
    pub(crate) help: String,
}

impl Flaw {
    pub(crate) fn new(rule: Rule, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { rule, message: message.into(), help: help.into() }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A text from the document as it is quoted in a message: at most 60 characters, nothing invisible.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let mut out: String = text.chars().take(MOST).flat_map(visible).collect();
    if text.chars().nth(MOST).is_some() {
        out.push('…');
    }
    out
}

/// A character as it may go to a terminal: control characters and those that change the direction of
/// writing are escaped, because they could make a message say something else.
pub(crate) fn visible(c: char) -> impl Iterator<Item = char> {
    let hidden = c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let escaped = hidden.then(|| c.escape_unicode()).into_iter().flatten();
    escaped.chain((!hidden).then_some(c))
}

/// Gives a type that is written as text its serde and schema sides.
macro_rules! text_form {
    ($name:ident, $format:literal, $pattern:expr, $about:literal) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::read(&text).map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string", "format": $format, "pattern": $pattern, "description": $about,
                })
            }
        }
    };
}
pub(crate) use text_form;

/// Checks `text` against one of the forms by the `format` its schema names.
pub(crate) fn check(format: &str, text: &str) -> Option<Result<(), Flaw>> {
    Some(match format {
        "lifeboat-duration" => Length::read(text).map(drop),
        "lifeboat-name" => Label::read(text).map(drop),
        "lifeboat-host-port" => HostPort::read(text).map(drop),
        "lifeboat-ip-port" => IpPort::read(text).map(drop),
        "lifeboat-dns-name" => Fqdn::read(text).map(drop),
        "lifeboat-url" => HttpUrl::read(text).map(drop),
        "lifeboat-hour" => crate::hour::Hour::read(text).map(drop),
        "lifeboat-path" => FilePath::read(text).map(drop),
        "lifeboat-archive-place" => crate::archive::ArchivePlace::read(text).map(drop),
        "lifeboat-slot" => crate::archive::SlotName::read(text).map(drop),
        "lifeboat-schedule" => crate::schedule::Schedule::read(text).map(drop),
        "lifeboat-time-zone" => crate::schedule::Zone::read(text).map(drop),
        "lifeboat-public-key" => crate::key::PublicKey::read(text).map(drop),
        "lifeboat-size" => crate::size::Size::read(text).map(drop),
        "lifeboat-target" => Target::read(text).map(drop),
        "lifeboat-system-identifier" => Cluster::read(text).map(drop),
        _ => return None,
    })
}

/// The name of something in the document: letters, digits and "-", at most 63 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label(String);

text_form! {
    Label, "lifeboat-name", r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$",
    "A name: letters, digits and \"-\" between them, at most 63 characters."
}

impl Label {
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let good = (1..=63).contains(&text.len())
            && text.chars().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if good {
            return Ok(Self(text.to_owned()));
        }
        let message = format!("`{}` cannot be a name here", shown(text));
        Err(Flaw::new(Rule::BadName, message, "1 to 63 letters, digits and \"-\", the \"-\" not at an end"))
    }

    /// A default of ours.
    pub(crate) fn known(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where something listens: a host name or an IP address, and a port from 1 to 65535.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// A host name in lower case without a final dot, or an IP address without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

text_form! {
    HostPort, "lifeboat-host-port", r"^.+:[0-9]{1,5}$",
    "\"HOST:PORT\": a host name or an IP address (IPv6 in brackets), and a port from 1 to 65535."
}

impl HostPort {
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        let bad = |why: &str| {
            let message = format!("`{}` is not HOST:PORT: {why}", shown(text));
            Flaw::new(
                Rule::BadAddress,
                message,
                "for example \"db.east.example.com:5432\", \"192.0.2.7:5432\" or \"[2001:db8::7]:5432\"",
            )
        };
        without_secret(text)?;
        if text.contains("://") {
            return Err(bad("it is a URL"));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        let port = port_number(port).ok_or_else(|| bad("the port must be 1 to 65535"))?;
        let host = read_host(host).ok_or_else(|| bad("the host is neither a name nor an address"))?;
        Ok(Self { host, port })
    }

    /// Whether it can only be this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Refuses an address with a user in it, without repeating it: a password may follow the user.
pub(crate) fn without_secret(text: &str) -> Result<(), Flaw> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    if !rest.split(['/', '?', '#']).next().unwrap_or_default().contains('@') {
        return Ok(());
    }
    let help = "secrets are references to files, never part of the configuration";
    Err(Flaw::new(Rule::SecretInAddress, "an address with a user or a password in it", help))
}

fn port_number(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| plain && *port != 0)
}

/// A host name, an IPv4 address or an IPv6 address in brackets, in canonical writing.
fn read_host(text: &str) -> Option<String> {
    if let Some(inner) = text.strip_prefix('[') {
        let ip: std::net::Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(ip.to_string());
    }
    if let Ok(ip) = text.parse::<std::net::Ipv4Addr>() {
        return Some(ip.to_string());
    }
    let bare = text.strip_suffix('.').unwrap_or(text);
    // A name whose last label is all digits is a mistyped address (RFC 3696, section 2).
    let last = bare.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit());
    (is_dns_name(bare) && !numeric).then(|| bare.to_ascii_lowercase())
}

/// Labels of 1 to 63 letters, digits, "-" and "_", at most 253 characters in all (RFC 1035, section 2.3.4).
fn is_dns_name(bare: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    (1..=253).contains(&bare.len()) && bare.split('.').all(label)
}

/// An IP address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpPort(pub SocketAddr);

text_form! {
    IpPort, "lifeboat-ip-port", r"^([0-9.]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$",
    "\"ADDRESS:PORT\": an IP address (IPv6 in brackets), and a port from 1 to 65535."
}

impl IpPort {
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0).map(Self).ok_or_else(|| {
            let message = format!("`{}` is not ADDRESS:PORT", shown(text));
            let help = "an IP address and a port from 1 to 65535, for example \"192.0.2.53:53\" or \"[2001:db8::53]:53\"; not a host name, which would need DNS to find DNS";
            Flaw::new(Rule::BadAddress, message, help)
        })
    }
}

impl fmt::Display for IpPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A fully qualified DNS name, in lower case with its final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fqdn(String);

text_form! {
    Fqdn, "lifeboat-dns-name", r"^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+$",
    "A fully qualified DNS name with its final dot, for example \"shop.dr.example.com.\"."
}

impl Fqdn {
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        if !is_dns_name(bare) {
            let message = format!("`{}` is not a DNS name", shown(text));
            let help = "labels of 1 to 63 letters, digits, \"-\" and \"_\" with dots between them, at most 253 characters, and a final dot";
            return Err(Flaw::new(Rule::BadDnsName, message, help));
        }
        if bare.len() == text.len() {
            let message = format!("`{}` is not fully qualified", shown(text));
            return Err(Flaw::new(Rule::NotQualified, message, format!("add the final dot: \"{text}.\"")));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The name as text, with the final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without the final dot, as host names are written.
    pub fn host(&self) -> &str {
        self.0.trim_end_matches('.')
    }

    /// Whether it is `zone` or below it.
    pub fn within(&self, zone: &Self) -> bool {
        self.0 == zone.0 || self.0.strip_suffix(zone.as_str()).is_some_and(|front| front.ends_with('.'))
    }
}

impl fmt::Display for Fqdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where a switched name points to: an IP address, or a host name for a CNAME.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// An A or AAAA record.
    Address(IpAddr),
    /// A CNAME record.
    Host(Fqdn),
}

text_form! {
    Target, "lifeboat-target", r"^([0-9.]+|[0-9A-Fa-f:.]+|([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+)$",
    "An IPv4 or IPv6 address, or a fully qualified host name with its final dot."
}

impl Target {
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Address(ip));
        }
        let last = text.rsplit('.').next().unwrap_or_default();
        if text.contains(':') || (!last.is_empty() && last.bytes().all(|b| b.is_ascii_digit())) {
            let message = format!("`{}` is not an IP address", shown(text));
            let help = "an address alone, without a port, for example \"192.0.2.80\" or \"2001:db8::80\"";
            return Err(Flaw::new(Rule::BadAddress, message, help));
        }
        Fqdn::read(text).map(Self::Host)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => ip.fmt(f),
            Self::Host(name) => name.fmt(f),
        }
    }
}

/// An `http` or `https` URL, taken apart as far as checking it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    text: String,
    /// Whether it is `https`.
    pub secure: bool,
    /// A host name in lower case without a final dot, or an IP address without brackets.
    pub host: String,
    /// The port, that of the scheme when none is written.
    pub port: u16,
}

text_form! {
    HttpUrl, "lifeboat-url", r"^https?://[^\s/?#@]+([/?][^\s#]*)?$",
    "An http or https URL without user, password or fragment."
}

impl HttpUrl {
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        let bad = |why: &str| {
            let message = format!("`{}` is not a URL that can be asked: {why}", shown(text));
            Flaw::new(Rule::BadUrl, message, "for example \"https://shop.east.example.com/health\"")
        };
        without_secret(text)?;
        let (secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(bad("it must begin with http:// or https://")),
        };
        if let Some(c) = rest.chars().find(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
            return Err(bad(&format!("`{}` must be percent-encoded", visible(c).collect::<String>())));
        }
        if rest.contains('#') {
            return Err(bad("a fragment is never sent to a server"));
        }
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let bracketed = authority.ends_with(']');
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !bracketed => {
                (host, port_number(port).ok_or_else(|| bad("the port must be 1 to 65535"))?)
            }
            _ => (authority, if secure { 443 } else { 80 }),
        };
        let host = read_host(host).ok_or_else(|| bad("the host is neither a name nor an address"))?;
        Ok(Self { text: text.to_owned(), secure, host, port })
    }

    /// Whether it can only be this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    /// The URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// An absolute path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePath(PathBuf);

text_form! {
    FilePath, "lifeboat-path", r"^/",
    "An absolute path."
}

impl FilePath {
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        if text.starts_with('/') && !text.contains('\0') {
            return Ok(Self(PathBuf::from(text)));
        }
        // The text is not repeated: where a file is expected, people write the secret itself.
        Err(Flaw::new(
            Rule::RelativePath,
            "not an absolute path",
            "the full path of a file or folder, beginning with \"/\"; never the secret itself",
        ))
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// PostgreSQL's system identifier, as `pg_controldata` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster(pub u64);

text_form! {
    Cluster, "lifeboat-system-identifier", r"^[1-9][0-9]{0,19}$",
    "PostgreSQL's system identifier, in decimal."
}

impl Cluster {
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        let plain = text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|n| plain && *n != 0).map(Self).ok_or_else(|| {
            let message = format!("`{}` is not a system identifier", shown(text));
            let help = "run `SELECT system_identifier FROM pg_control_system()` on the primary";
            Flaw::new(Rule::BadSystemIdentifier, message, help)
        })
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
