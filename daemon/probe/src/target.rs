//! Where a request goes: a URL taken apart once, so that a look has nothing to parse.
//!
//! **Invariant:** a target is http or https, has a host, and carries no user or password.

use hyper::Uri;
use hyper::header::HeaderValue;
use lifeboat_core::sighting::{Failure, FailureKind};
use rustls_pki_types::ServerName;
use url::{Host, Url};

use crate::setup::SetupError;

/// One page of one server.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The URL, for people and for finding the next one.
    pub(crate) url: Url,
    /// Where to connect.
    pub(crate) host: Host<String>,
    /// Where to connect.
    pub(crate) port: u16,
    /// Whom the certificate must be for; none without TLS.
    pub(crate) secure: Option<ServerName<'static>>,
    /// The `Host` header.
    pub(crate) authority: HeaderValue,
    /// The request target, in origin form.
    pub(crate) path: Uri,
}

impl Target {
    /// Reads a URL as it was configured. `host` replaces the URL's host in the `Host` header and in what
    /// the certificate must be for, so that one server of many can be asked by its address.
    pub(crate) fn parse(url: &str, host: Option<&str>) -> Result<Self, SetupError> {
        let parsed = Url::parse(url).map_err(|source| SetupError::Url { url: url.to_owned(), source })?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(SetupError::Credentials { host: parsed.host_str().unwrap_or_default().to_owned() });
        }
        Self::new(parsed, host)
    }

    /// Where a redirect from here leads, relative to this URL (RFC 9110, section 10.2.2).
    pub(crate) fn follow(&self, location: &HeaderValue) -> Result<Self, Failure> {
        let malformed = |why: &str| {
            Failure::new(
                FailureKind::Malformed,
                format!("{} redirects to something unusable: {why}", self.url),
            )
        };
        let text = location.to_str().map_err(|_| malformed("it is not text"))?;
        let mut url = self.url.join(text).map_err(|error| malformed(&error.to_string()))?;
        url.set_fragment(None);
        if !url.username().is_empty() || url.password().is_some() {
            return Err(malformed("it carries a user or a password"));
        }
        Self::new(url, None).map_err(|error| malformed(&error.to_string()))
    }

    fn new(url: Url, named: Option<&str>) -> Result<Self, SetupError> {
        let secure = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(SetupError::Scheme { url: url.into() }),
        };
        let (Some(host), Some(port)) = (url.host().map(|host| host.to_owned()), url.port_or_known_default())
        else {
            return Err(SetupError::Scheme { url: url.into() });
        };
        let authority = match (named, url.port()) {
            (Some(named), _) => named.to_owned(),
            (None, Some(port)) => format!("{host}:{port}"),
            (None, None) => host.to_string(),
        };
        let cannot_send = |part: &str| SetupError::Request { part: part.to_owned() };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let certified = if secure { Some(certified_name(&host, named)?) } else { None };
        Ok(Self {
            secure: certified,
            authority: HeaderValue::from_str(&authority).map_err(|_| cannot_send(&authority))?,
            path: path.parse().map_err(|_| cannot_send(&path))?,
            host,
            port,
            url,
        })
    }
}

/// Whom the certificate must be for: the host header's host when one is given, else the URL's.
fn certified_name(host: &Host<String>, named: Option<&str>) -> Result<ServerName<'static>, SetupError> {
    let unusable = |name: &str| SetupError::Request { part: name.to_owned() };
    let name = match (named, host) {
        (None, Host::Ipv4(address)) => return Ok(ServerName::from(std::net::IpAddr::from(*address))),
        (None, Host::Ipv6(address)) => return Ok(ServerName::from(std::net::IpAddr::from(*address))),
        (None, Host::Domain(name)) => name.clone(),
        (Some(named), _) => parse_place(named).map_or_else(|| named.to_owned(), |(host, _)| host.to_string()),
    };
    let name = name.trim_end_matches('.').trim_matches(['[', ']']).to_owned();
    ServerName::try_from(name.clone()).map_err(|_| unusable(&name))
}

/// Reads `HOST:PORT`, where the host is a name, an IPv4 address, or an IPv6 address in brackets.
pub(crate) fn parse_place(text: &str) -> Option<(Host<String>, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bare_ipv6 = host.contains(':') && !host.starts_with('[');
    if bare_ipv6 { None } else { Some((Host::parse(host).ok()?, port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let text = |place: &str| parse_place(place).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(text("192.0.2.1:53").as_deref(), Some("192.0.2.1 53"));
        assert_eq!(text("db.example.com:5432").as_deref(), Some("db.example.com 5432"));
        assert_eq!(text("[2001:db8::1]:443").as_deref(), Some("[2001:db8::1] 443"));
        for bad in ["2001:db8::1:443", "host", "host:", "host:0", "host:65536", ":80", "[::1:80", ""] {
            assert_eq!(text(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_request_is_made_of_the_url() {
        let target = Target::parse("http://[2001:db8::1]:8080/a%20b?c=d#e", None).unwrap();
        assert_eq!(target.authority, "[2001:db8::1]:8080");
        assert_eq!(target.path.to_string(), "/a%20b?c=d");
        assert_eq!((target.port, target.secure.is_some()), (8080, false));
        let target = Target::parse("https://192.0.2.7", Some("shop.example.com:8443")).unwrap();
        assert_eq!(target.authority, "shop.example.com:8443");
        assert_eq!(target.secure, Some(ServerName::try_from("shop.example.com").unwrap()));
        assert_eq!((target.port, target.path.to_string().as_str()), (443, "/"));
    }

    #[test]
    fn a_redirect_is_relative_to_where_it_was_found() {
        let target = Target::parse("http://a.example/x/y?z", Some("b.example")).unwrap();
        let to = |location: &'static str| target.follow(&HeaderValue::from_static(location));
        assert_eq!(to("w").unwrap().url.as_str(), "http://a.example/x/w");
        assert_eq!(to("//c.example/").unwrap().authority, "c.example");
        assert_eq!(to("https://c.example:444/").unwrap().port, 444);
        for bad in ["ftp://a.example/", "http://user:secret@a.example/", "http://[::1", "mailto:a@b.example"]
        {
            assert_eq!(to(bad).unwrap_err().kind, FailureKind::Malformed, "{bad}");
        }
    }

    #[test]
    fn urls_that_cannot_be_probed_are_refused() {
        assert!(matches!(Target::parse("nonsense", None), Err(SetupError::Url { .. })));
        assert!(matches!(Target::parse("ftp://a.example/", None), Err(SetupError::Scheme { .. })));
        assert!(matches!(Target::parse("http://u:p@a.example/", None), Err(SetupError::Credentials { .. })));
        assert!(matches!(Target::parse("http://a.example/", Some("a\nb")), Err(SetupError::Request { .. })));
    }
}
