//! The steps about names: moving them, and seeing that they moved.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use lifeboat_config::document::dns::KeyAlgorithm;
use lifeboat_config::wiring::{NameWiring, Rfc2136Wiring, ViaWiring};
use lifeboat_core::plan::NameChange;
use lifeboat_dns::by_hand;

use super::page::Sheet;
use super::shell::{block, word};

impl Sheet<'_> {
    /// Moves each name.
    pub(crate) fn switch(&self, changes: &[NameChange]) -> String {
        let mut text = String::new();
        let mut own_zone = false;
        for change in changes {
            match self.workload.names.get(&change.name).map(|written| &written.via) {
                Some(ViaWiring::Rfc2136(server)) => text += &update(change, server),
                Some(ViaWiring::Authority) => own_zone = true,
                None => {}
            }
        }
        if own_zone { text + &self.own_zone(changes) } else { text }
    }

    /// What to do about a zone that nobody answers for any more.
    fn own_zone(&self, changes: &[NameChange]) -> String {
        let (Some(zone), Some(authority)) = (&self.zone, &self.wiring.authority) else {
            return String::new();
        };
        let own = |change: &&NameChange| {
            self.workload.names.get(&change.name).is_some_and(|written| written.via == ViaWiring::Authority)
        };
        let names: Vec<&str> = changes.iter().filter(own).map(|change| change.name.as_str()).collect();
        let (apex, servers) = (&authority.zone, authority.nameservers.iter().map(|name| format!("`{name}`")));
        let servers: Vec<String> = servers.collect();
        let file = format!("{}zone", apex);
        format!(
            "{} {} in `{apex}`, which lifeboat answers itself ({}). With all agents gone nobody does, and what resolvers remember \
             ends with its TTL. Any name server can answer the zone as it must be now:\n\n{}\
             It must show `OK`. Serve the file as the primary of `{apex}` at the addresses of those name servers; in BIND: \
             `zone \"{apex}\" {{ type primary; file \"/etc/bind/{file}\"; }};`. If you cannot have these addresses, have the parent \
             zone delegate `{apex}` to the server that you do have, or take the delegation out there and put the names into \
             the parent itself; the parent's own TTL then passes before clients see it. The names of other workloads are in \
             the file as they are known here: look them over.\n\n",
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
            if names.len() == 1 { "is" } else { "are" },
            servers.join(", "),
            block(&format!(
                "cat > {file} <<'ZONE'\n{}\nZONE\nnamed-checkzone {apex} {file}",
                zone.trim_end()
            )),
        )
    }

    /// What each authoritative server says before a move.
    pub(crate) fn names_say(&self, changes: &[NameChange]) -> String {
        self.questions(changes, |change| &change.from, false)
    }

    /// What each server and a real client see after it.
    pub(crate) fn verify(&self, changes: &[NameChange], canary: bool) -> String {
        let mut text = self.questions(changes, |change| &change.to, true);
        text += "A resolver may say the old values until the TTL has passed. If an authoritative server still does: its copy is not \
                 renewed; have it fetch the zone.\n\n";
        let Some(visit) = self.workload.canary.as_ref().filter(|_| canary) else { return text };
        let address = format!(
            "\"$(dig +short @{} -p {} {}. A | tail -n 1)\"",
            visit.resolver.ip(),
            visit.resolver.port(),
            visit.url.host
        );
        text += "A real client:\n\n";
        let resolve = visit.url.host.parse::<std::net::IpAddr>().is_err();
        let resolve = resolve.then(|| format!("{}:{}:{address}", visit.url.host, visit.url.port));
        text += &self.request(
            visit.url.as_str(),
            visit.ca_file.as_deref(),
            resolve,
            (visit.status, visit.body.as_deref()),
        );
        text + "If it does not: clients are not served, whatever the names say. Look at what answers in the new region.\n\n"
    }

    /// A request, and what it must show.
    pub(crate) fn request(
        &self,
        url: &str,
        ca_file: Option<&Path>,
        resolve: Option<String>,
        (status, body): (u16, Option<&str>),
    ) -> String {
        let ca = ca_file
            .map_or_else(String::new, |file| format!(" --cacert {}", word(&file.display().to_string())));
        let resolve = resolve.map_or_else(String::new, |resolve| format!(" --resolve {resolve}"));
        let line = format!("curl -sS --max-time 10{ca}{resolve} -w '\\n%{{http_code}}\\n' {}", word(url));
        let body = body.map_or_else(String::new, |body| format!(", and `{body}` before it"));
        block(&line) + &format!("It must show `{status}` at the end{body}.\n\n")
    }

    fn questions(
        &self,
        changes: &[NameChange],
        says: impl Fn(&NameChange) -> &BTreeSet<String>,
        resolvers: bool,
    ) -> String {
        let mut text = String::new();
        for change in changes {
            let Some(written) = self.workload.names.get(&change.name) else { continue };
            let mut lines = Vec::new();
            for (server, authoritative) in self.servers(written, resolvers) {
                lines.extend(
                    by_hand::questions(server, authoritative, &change.name, says(change)).unwrap_or_default(),
                );
            }
            if lines.is_empty() {
                continue;
            }
            let wanted: Vec<String> = says(change).iter().map(|value| format!("`{value}`")).collect();
            text += &block(&lines.join("\n"));
            text += &format!("Each must show {}.\n\n", wanted.join(", "));
        }
        text
    }

    /// Who is asked for a name, and whether it is authoritative.
    fn servers(&self, written: &NameWiring, resolvers: bool) -> Vec<(SocketAddr, bool)> {
        let mut servers: Vec<(SocketAddr, bool)> = match (&written.via, &self.wiring.authority) {
            (ViaWiring::Rfc2136(server), _) => std::iter::once(&server.server)
                .chain(&server.secondaries)
                .map(|server| (*server, true))
                .collect(),
            // The agents are gone; an address that means every address of a machine is no place to ask, either.
            (ViaWiring::Authority, _) => Vec::new(),
        };
        if resolvers {
            servers.extend(written.resolvers.iter().map(|resolver| (*resolver, false)));
        }
        servers
    }
}

fn update(change: &NameChange, server: &Rfc2136Wiring) -> String {
    let script = by_hand::update_script(
        server.server,
        &server.zone,
        &change.name,
        (&change.from, &change.to),
        change.ttl,
    );
    let Ok(script) = script else { return String::new() };
    let algorithm = match server.key_algorithm {
        KeyAlgorithm::HmacSha256 => "hmac-sha256",
        KeyAlgorithm::HmacSha384 => "hmac-sha384",
        KeyAlgorithm::HmacSha512 => "hmac-sha512",
    };
    let key = word(&server.key_file.display().to_string());
    // printf is the shell's own: the key is in no list of processes.
    let commands = format!(
        "{{ printf 'key {algorithm}:{} %s\\n' \"$(cat {key})\"; cat <<NAMES\n{script}NAMES\n}} | nsupdate -v && echo done",
        server.key_name
    );
    format!(
        "{}It must show `done`. `NXRRSET` means that the name does not say {} any more: look with `dig`. If it says the new value, \
         it is done; if somebody else changed it, ask them, then leave the `prereq` lines out.\n\n",
        block(&commands),
        change.from.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", "),
    )
}
