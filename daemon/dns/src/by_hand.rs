//! What a person does to a name when lifeboat is gone: scripts for `nsupdate`, questions for `dig`, a zone file.
//!
//! **Invariant:** everything here is text, made from names; no key is read, only its file is named.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use lifeboat_core::DnsName;

use crate::authority::{KeptName, ZoneOptions};
use crate::value::{RecordKind, ValueError, by_kind, ttl_seconds};

/// The values of a name, by kind, as records write them.
fn sets(values: &BTreeSet<String>) -> Result<BTreeMap<RecordKind, Vec<String>>, ValueError> {
    let sets = by_kind(values)?;
    Ok(sets.into_iter().map(|(kind, data)| (kind, data.into_keys().collect())).collect())
}

/// The script for `nsupdate` that moves a name from what it says to what it must say, under the epoch that the shell
/// holds in `EPOCH`; the server applies all of it or nothing. The line with the key comes before it.
///
/// # Errors
/// When a value is neither an address nor a host name; the configuration's rules exclude it.
pub fn update_script(
    server: SocketAddr,
    zone: &DnsName,
    name: &DnsName,
    (from, to): (&BTreeSet<String>, &BTreeSet<String>),
    ttl: Duration,
) -> Result<String, ValueError> {
    let ttl = ttl_seconds(ttl);
    let mut script = format!("server {} {}\nzone {zone}\n", server.ip(), server.port());
    for (kind, values) in sets(from)? {
        let kind = kind.as_str();
        for value in values {
            script.push_str(&format!("prereq yxrrset {name} {kind} {value}\n"));
        }
    }
    for kind in RecordKind::SWITCHED {
        script.push_str(&format!("update delete {name} {}\n", kind.as_str()));
    }
    for (kind, values) in sets(to)? {
        for value in values {
            script.push_str(&format!("update add {name} {ttl} {} {value}\n", kind.as_str()));
        }
    }
    let epoch = format!("_lifeboat-epoch.{name}");
    script.push_str(&format!(
        "update delete {epoch} TXT\nupdate add {epoch} {ttl} TXT \"epoch=$EPOCH\"\nsend\n"
    ));
    Ok(script)
}

/// One question for `dig` per kind of value: to an authoritative server without recursion, to a resolver with.
///
/// # Errors
/// As [`update_script`].
pub fn questions(
    server: SocketAddr,
    authoritative: bool,
    name: &DnsName,
    values: &BTreeSet<String>,
) -> Result<Vec<String>, ValueError> {
    let recursion = if authoritative { " +norecurse" } else { "" };
    let (ip, port) = (server.ip(), server.port());
    let kinds = sets(values)?.into_keys();
    Ok(kinds.map(|kind| format!("dig +short{recursion} @{ip} -p {port} {name} {}", kind.as_str())).collect())
}

/// The zone that the authority answers, as a file that any name server reads (RFC 1035, section 5). `kept` is what the
/// switched names must say.
///
/// # Errors
/// As [`update_script`].
pub fn zone_file(options: &ZoneOptions, kept: &[KeptName]) -> Result<String, ValueError> {
    let zone = &options.zone;
    let first = options.nameservers.first().unwrap_or(zone);
    let hostmaster =
        options.hostmaster.as_ref().map_or_else(|| format!("hostmaster.{zone}"), ToString::to_string);
    let negative = ttl_seconds(options.negative_ttl);
    let mut file = format!(
        "$ORIGIN {zone}\n$TTL {negative}\n{zone} {negative} IN SOA {first} {hostmaster} (1 3600 600 604800 {negative})\n"
    );
    for server in &options.nameservers {
        file.push_str(&format!("{zone} 300 IN NS {server}\n"));
    }
    for record in &options.fixed {
        let (name, ttl, kind) = (&record.name, ttl_seconds(record.ttl), record.kind.as_str());
        for value in &record.values {
            let value = if record.kind == RecordKind::Txt { quoted(value) } else { value.clone() };
            file.push_str(&format!("{name} {ttl} IN {kind} {value}\n"));
        }
    }
    for name in kept {
        for (kind, values) in sets(&name.values)? {
            for value in values {
                let (owner, ttl) = (&name.name, ttl_seconds(name.ttl));
                file.push_str(&format!("{owner} {ttl} IN {} {value}\n", kind.as_str()));
            }
        }
    }
    Ok(file)
}

/// A text in strings of at most 255 bytes (RFC 1035, section 3.3), with what a zone file takes for itself escaped.
fn quoted(text: &str) -> String {
    let escaped = |byte: &u8| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(*byte)),
        0x20..0x7F => char::from(*byte).to_string(),
        _ => format!("\\{byte:03}"),
    };
    let strings = text
        .as_bytes()
        .chunks(255)
        .map(|part| format!("\"{}\"", part.iter().map(escaped).collect::<String>()));
    let strings: Vec<String> = strings.collect();
    if strings.is_empty() { "\"\"".to_owned() } else { strings.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(|v| (*v).to_owned()).collect()
    }

    #[test]
    fn an_update_says_what_it_expects_and_replaces_every_kind() {
        let script = update_script(
            "[2001:db8::53]:53".parse().unwrap(),
            &"example.com.".into(),
            &"shop.example.com.".into(),
            (&set(&["192.0.2.80", "2001:db8::80"]), &set(&["Lb.West.example.net"])),
            Duration::from_secs(10),
        );
        let wanted = "server 2001:db8::53 53\nzone example.com.\n\
            prereq yxrrset shop.example.com. A 192.0.2.80\nprereq yxrrset shop.example.com. AAAA 2001:db8::80\n\
            update delete shop.example.com. A\nupdate delete shop.example.com. AAAA\nupdate delete shop.example.com. CNAME\n\
            update add shop.example.com. 10 CNAME lb.west.example.net.\n\
            update delete _lifeboat-epoch.shop.example.com. TXT\n\
            update add _lifeboat-epoch.shop.example.com. 10 TXT \"epoch=$EPOCH\"\nsend\n";
        assert_eq!(script.unwrap(), wanted);
    }

    #[test]
    fn a_text_of_a_zone_file_is_quoted_in_parts() {
        assert_eq!(quoted("v=1; \"a\\b\" \u{e9}"), r#""v=1; \"a\\b\" \195\169""#);
        assert_eq!(quoted(&"x".repeat(256)).matches('"').count(), 4);
        assert_eq!(quoted(""), "\"\"");
    }
}
