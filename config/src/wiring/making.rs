//! From the document to its wiring.
//!
//! **Invariant:** only called for a document that breaks no rule, so nothing can fail here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use lifeboat_core::names::{
    AgentName, DatabaseName, DnsName, ProbeName, RegionName, SystemIdentifier, WorkloadName,
};

use super::{
    AgentWiring, ArchiveWiring, AuthorityWiring, BackupWiring, CanaryWiring, DatabaseWiring, DnsQueryWiring,
    EtcdWiring, FenceWiring, HostWiring, HttpWiring, KubernetesWiring, LeaseWiring, ListedAgentWiring,
    LookWiring, NameWiring, ProbeWiring, RecordWiring, RetentionWiring, Rfc2136Wiring, ViaWiring, WalWiring,
    Wiring, WitnessWiring, WorkloadWiring,
};
use crate::document::Document;
use crate::document::archive::{Archive, Backup};
use crate::document::authority::Authority;
use crate::document::dns;
use crate::document::lease::{EtcdLease, Lease, ListedAgent};
use crate::document::probe::{Probe, Watch};
use crate::document::upkeep::Host;
use crate::document::workload::{Canary, Database, Fence, Workload};
use crate::form::{FilePath, IpPort};
use crate::schedule::Timetable;

/// The name of the probe of `database` in `region`: `orders@east`. No other probe can have it, as names in the
/// document hold no "@".
pub fn database_probe(database: &str, region: &str) -> ProbeName {
    ProbeName::new(format!("{database}@{region}"))
}

/// The resolver that the canary asks: its own, the first of the workload's names, or an authoritative server.
pub(crate) fn canary_resolver(workload: &Workload, authority: Option<&Authority>) -> Option<IpPort> {
    let own = workload.canary.as_ref().and_then(|c| c.resolver);
    let first = workload.names.first();
    own.or_else(|| first?.common().resolvers.first().copied()).or_else(|| match first? {
        dns::DnsName::Authority(_) => authority?.listen.first().map(|listen| IpPort(reachable(listen.0))),
        dns::DnsName::Rfc2136(name) => Some(name.server),
    })
}

/// The address to ask for a socket that listens on `listen`: every address means this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

impl Wiring {
    /// The wiring of a document that breaks no rule.
    pub(crate) fn of(document: &Document) -> Self {
        let agent = &document.agent;
        Self {
            agent: AgentWiring {
                name: AgentName::new(agent.name.as_str()),
                region: RegionName::new(agent.region.as_str()),
                state: agent.state.as_path().to_owned(),
                socket: agent.socket_path(),
                runbooks: file(agent.runbooks.as_ref()),
                listen: agent.listen.map(|l| l.0),
                key_file: agent.key_path(),
            },
            witnesses: WitnessWiring {
                places: agent.witnesses.clone(),
                interval: agent.witness_interval.0,
                timeout: agent.witness_timeout.0,
            },
            lease: lease(&document.lease),
            agents: document.agents.iter().map(listed).collect(),
            notify: document.notify.iter().map(|n| n.kind).collect(),
            regions: document.regions.iter().map(|r| RegionName::new(r.name.as_str())).collect(),
            archives: document.archives.iter().map(|a| (a.name.as_str().to_owned(), archive(a))).collect(),
            authority: document.authority.as_ref().map(authority),
            workloads: document
                .workloads
                .iter()
                .map(|w| (WorkloadName::new(w.name.as_str()), workload(w, document)))
                .collect(),
        }
    }
}

fn lease(lease: &Lease) -> LeaseWiring {
    match lease {
        Lease::Embedded(_) => LeaseWiring::Embedded,
        Lease::Etcd(lease) => LeaseWiring::Etcd(etcd(lease)),
        Lease::Kubernetes(lease) => LeaseWiring::Kubernetes(KubernetesWiring {
            namespace: lease.namespace.as_str().to_owned(),
            name: lease.name.as_str().to_owned(),
            kubeconfig: file(lease.kubeconfig.as_ref()),
            ttl: lease.ttl.0,
        }),
    }
}

fn etcd(lease: &EtcdLease) -> EtcdWiring {
    EtcdWiring {
        cluster: lease.cluster.as_str().to_owned(),
        endpoints: lease.endpoints.clone(),
        ca_file: file(lease.ca_file.as_ref()),
        identity: file(lease.cert_file.as_ref()).zip(file(lease.key_file.as_ref())),
        login: lease.user.clone().zip(file(lease.password_file.as_ref())),
        ttl: lease.ttl.0,
    }
}

fn listed(agent: &ListedAgent) -> (AgentName, ListedAgentWiring) {
    let wiring = ListedAgentWiring { address: agent.address.clone(), key: agent.public_key };
    (AgentName::new(agent.name.as_str()), wiring)
}

fn authority(authority: &Authority) -> AuthorityWiring {
    AuthorityWiring {
        zone: DnsName::new(authority.zone.as_str()),
        listen: authority.listen.iter().map(|l| l.0).collect(),
        nameservers: authority.nameservers.iter().map(|n| DnsName::new(n.as_str())).collect(),
        hostmaster: DnsName::new(authority.rname()),
        negative_ttl: authority.negative_ttl.0,
        records: authority
            .records
            .iter()
            .map(|r| RecordWiring {
                name: DnsName::new(r.name.as_str()),
                kind: r.kind,
                values: r.values.clone(),
                ttl: r.ttl.0,
            })
            .collect(),
    }
}

fn archive(archive: &Archive) -> ArchiveWiring {
    ArchiveWiring {
        place: archive.place.clone(),
        key_file: archive.key_file.as_path().to_owned(),
        endpoint: archive.endpoint.clone(),
        region: archive.region.clone(),
        path_style: archive.path_style.unwrap_or_default(),
        access_key: file(archive.access_key_file.as_ref()).zip(file(archive.secret_key_file.as_ref())),
        credentials_file: file(archive.credentials_file.as_ref()),
        retention: RetentionWiring::of(&archive.retention),
    }
}

/// What a database that says nothing of backups has: everything to every archive, when there is one.
pub(crate) fn backups_of(database: &Database, archives: &[Archive]) -> Vec<Backup> {
    let mut all = match &database.backup {
        Some(own) => own.clone(),
        None if archives.is_empty() => Vec::new(),
        None => vec![Backup::default()],
    };
    for backup in &mut all {
        backup.archives.get_or_insert_with(|| archives.iter().map(|archive| archive.name.clone()).collect());
    }
    all
}

fn backups(workload: &str, database: &Database, archives: &[Archive]) -> BTreeMap<String, BackupWiring> {
    let mut wired = BTreeMap::new();
    for backup in backups_of(database, archives) {
        for archive in backup.archives.iter().flatten() {
            let names = [workload, database.name.as_str(), archive.as_str()];
            let timetable =
                Timetable::new(backup.schedule.clone(), backup.time_zone, backup.jitter.0, &names);
            let wal = backup.wal.then(|| WalWiring {
                slot: backup.slot.of(archive.as_str()),
                piece_interval: backup.piece_interval.0,
                slot_alert: backup.slot_alert.0,
                slot_limit: backup.slot_limit.0,
            });
            let bandwidth = backup.bandwidth.map(|size| size.0);
            let one = BackupWiring { timetable, from: backup.from, bandwidth, wal };
            wired.insert(archive.as_str().to_owned(), one);
        }
    }
    wired
}

fn workload(workload: &Workload, document: &Document) -> WorkloadWiring {
    let authority = document.authority.as_ref();
    let fence = |fence: &Fence| FenceWiring { command: fence.command.clone(), timeout: fence.timeout.0 };
    WorkloadWiring {
        sentries: workload.sentry.iter().map(|(r, s)| (RegionName::new(r), s.key)).collect(),
        fences: workload.fence.iter().map(|(r, f)| (RegionName::new(r), fence(f))).collect(),
        databases: workload
            .databases
            .iter()
            .map(|d| {
                (DatabaseName::new(d.name.as_str()), database(workload.name.as_str(), d, &document.archives))
            })
            .collect(),
        probes: probes(workload),
        names: workload.names.iter().map(|n| (DnsName::new(n.common().name.as_str()), name(n))).collect(),
        canary: workload.canary.as_ref().zip(canary_resolver(workload, authority)).map(|(c, r)| canary(c, r)),
    }
}

fn file(path: Option<&FilePath>) -> Option<PathBuf> {
    path.map(|p| p.as_path().to_owned())
}

fn database(workload: &str, database: &Database, archives: &[Archive]) -> DatabaseWiring {
    DatabaseWiring {
        kind: database.kind,
        dbname: database.dbname.clone(),
        user: database.user.clone(),
        password_file: file(database.password_file.as_ref()),
        tls: database.tls,
        ca_file: file(database.ca_file.as_ref()),
        system_identifier: database.system_identifier.map(|c| SystemIdentifier::new(c.0)),
        heartbeat: database.heartbeat,
        timeout: database.watch.timeout.0,
        endpoints: database.endpoint.iter().map(|(r, e)| (RegionName::new(r), e.clone())).collect(),
        replication: database.replication.iter().map(|(r, e)| (RegionName::new(r), e.clone())).collect(),
        hosts: database.host.iter().map(|(r, h)| (RegionName::new(r), host(h))).collect(),
        backups: backups(workload, database, archives),
    }
}

fn host(host: &Host) -> HostWiring {
    HostWiring { command: host.command.clone(), timeout: host.timeout.0 }
}

fn probes(workload: &Workload) -> BTreeMap<ProbeName, ProbeWiring> {
    let probe = |region: &str, watch: &Watch, look: LookWiring| ProbeWiring {
        region: RegionName::new(region),
        interval: watch.interval.0,
        timeout: watch.timeout.0,
        look,
    };
    let of_databases = workload.databases.iter().flat_map(|d| workload.regions().map(move |r| (d, r)));
    let of_databases = of_databases.map(|(d, region)| {
        let look = LookWiring::Database(DatabaseName::new(d.name.as_str()));
        (database_probe(d.name.as_str(), region.as_str()), probe(region.as_str(), &d.watch, look))
    });
    let others = workload.probes.iter().map(|p| {
        let common = p.common();
        (ProbeName::new(common.name.as_str()), probe(common.region.as_str(), p.watch(), look(p)))
    });
    of_databases.chain(others).collect()
}

fn look(probe: &Probe) -> LookWiring {
    match probe {
        Probe::Http(http) => LookWiring::Http(HttpWiring {
            url: http.url.clone(),
            status: http.status,
            body: http.body.clone(),
            certificate_days: http.url.secure.then_some(http.certificate_days),
            ca_file: file(http.ca_file.as_ref()),
            redirects: http.redirects,
        }),
        Probe::Tcp(tcp) => LookWiring::Tcp(tcp.address.clone()),
        Probe::Dns(dns) => LookWiring::Dns(DnsQueryWiring {
            server: dns.server.0,
            query: DnsName::new(dns.query.as_str()),
            record: dns.record,
            expect: dns.expect.clone(),
        }),
    }
}

fn name(name: &dns::DnsName) -> NameWiring {
    let resolvers = name.common().resolvers.iter().map(|r| r.0).collect();
    let via = match name {
        dns::DnsName::Authority(_) => ViaWiring::Authority,
        dns::DnsName::Rfc2136(name) => ViaWiring::Rfc2136(Rfc2136Wiring {
            zone: DnsName::new(name.zone.as_str()),
            server: name.server.0,
            secondaries: name.secondaries.iter().map(|s| s.0).collect(),
            key_name: DnsName::new(name.key_name.as_str()),
            key_algorithm: name.key_algorithm,
            key_file: name.key_file.as_path().to_owned(),
        }),
    };
    NameWiring { via, resolvers }
}

fn canary(canary: &Canary, resolver: IpPort) -> CanaryWiring {
    CanaryWiring {
        url: canary.url.clone(),
        resolver: resolver.0,
        status: canary.status,
        body: canary.body.clone(),
        ca_file: file(canary.ca_file.as_ref()),
        timeout: canary.timeout.0,
    }
}
