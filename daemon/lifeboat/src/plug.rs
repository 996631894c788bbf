//! Who is plugged into whom: adapters made from the wiring.
//!
//! **Invariant:** a place in the wiring becomes exactly one adapter; a database's probe and its hands are
//! the same member, because a fence is proven over the session that the probe has open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lifeboat_config::Wiring;
use lifeboat_config::document::NotifyKind;
use lifeboat_config::document::authority::FixedKind;
use lifeboat_config::document::dns::KeyAlgorithm as WrittenAlgorithm;
use lifeboat_config::document::probe::AskedKind;
use lifeboat_config::document::workload::Tls as WrittenTls;
use lifeboat_config::wiring::{
    AuthorityWiring, CanaryWiring, DatabaseWiring, DnsQueryWiring, HttpWiring, LookWiring, NameWiring,
    Rfc2136Wiring, ViaWiring, WorkloadWiring,
};
use lifeboat_core::guardian::Guardian;
use lifeboat_core::plan::NameChange;
use lifeboat_core::policy::Policy;
use lifeboat_core::{DatabaseName, Epoch, RegionName, WorkloadName};
use lifeboat_dns::{
    Authority, DnsProbe, FixedRecord, KeptName, KeyAlgorithm, RecordKind, Rfc2136, Rfc2136Options,
    ZoneOptions,
};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::{Names, Notify, Probe, Witness};
use lifeboat_engine::{Post, World};
use lifeboat_postgres::host::HostCommand;
use lifeboat_postgres::{FenceCommand, Member, Options, Tls, slot_name};
use lifeboat_probe::{
    CanaryOptions, HttpCanary, HttpMessenger, HttpOptions, HttpProbe, Kit, TcpProbe, TcpWitness,
};

use crate::failure::{Exit, Failure};
use crate::notices::LogNotify;

/// The members of all databases, by workload, region and database.
pub(crate) type Members = BTreeMap<(WorkloadName, RegionName, DatabaseName), Arc<Member>>;

/// The adapters, and the authority that still has to be started.
pub(crate) struct Plugged {
    pub(crate) world: World,
    pub(crate) authority: Option<Authority>,
}

/// Makes every adapter. The authority binds its addresses and does not answer yet.
pub(crate) async fn plug(
    wiring: &Wiring,
    policy: &Policy,
    guardian: &Guardian,
    clock: Clock,
) -> Result<Plugged, Failure> {
    let kit = Kit::new();
    let authority = match &wiring.authority {
        Some(zone) => Some(authority(zone, wiring, policy, guardian).await?),
        None => None,
    };
    let members = members(wiring, clock);
    let mut world = World {
        witnesses: witnesses(wiring, &kit)?,
        witness_interval: wiring.witnesses.interval,
        witness_timeout: wiring.witnesses.timeout,
        notify: wiring.notify.iter().map(notify).collect(),
        reports: wiring.agent.state.join("reports"),
        messenger: Some(Arc::new(HttpMessenger::new(&kit))),
        ..World::default()
    };
    for (name, workload) in &wiring.workloads {
        world.posts.extend(posts(name, workload, &members, &kit)?);
        for (dns, written) in &workload.names {
            world.names.insert((name.clone(), dns.clone()), names(written, authority.as_ref())?);
        }
        if let Some(written) = &workload.canary {
            world.canaries.insert(name.clone(), Arc::new(canary(written, &kit, clock)?));
        }
    }
    world.databases = members.into_iter().map(|(key, member)| (key, member as _)).collect();
    Ok(Plugged { world, authority })
}

fn unusable(what: impl Into<String>, error: &dyn std::error::Error) -> Failure {
    Failure::because(Exit::Config, what, error).hint("lifeboat check --environment")
}

fn notify(kind: &NotifyKind) -> Arc<dyn Notify> {
    match kind {
        NotifyKind::Log => Arc::new(LogNotify),
    }
}

pub(crate) fn witnesses(wiring: &Wiring, kit: &Kit) -> Result<Vec<Arc<dyn Witness>>, Failure> {
    let made = wiring.witnesses.places.iter().map(|place| {
        let witness = TcpWitness::new(&place.to_string(), kit);
        let witness =
            witness.map_err(|error| unusable(format!("the witness {place} cannot be asked"), &error))?;
        Ok(Arc::new(witness) as Arc<dyn Witness>)
    });
    made.collect()
}

/// Every member of every database.
pub(crate) fn members(wiring: &Wiring, clock: Clock) -> Members {
    let mut members = Members::new();
    for (workload, written) in &wiring.workloads {
        for (name, database) in &written.databases {
            for region in database.endpoints.keys() {
                let Some(options) = member(workload, name, database, region, written) else { continue };
                let key = (workload.clone(), region.clone(), name.clone());
                members.insert(key, Arc::new(Member::new(options, clock)));
            }
        }
    }
    members
}

/// How a database's server in a region is reached.
pub(crate) fn options(
    wiring: &Wiring,
    workload: &WorkloadName,
    database: &DatabaseName,
    region: &RegionName,
) -> Option<Options> {
    let written = wiring.workloads.get(workload)?;
    member(workload, database, written.databases.get(database)?, region, written)
}

fn member(
    workload_name: &WorkloadName,
    name: &DatabaseName,
    database: &DatabaseWiring,
    region: &RegionName,
    workload: &WorkloadWiring,
) -> Option<Options> {
    let endpoint = database.endpoints.get(region)?;
    let fence = workload.fences.get(region);
    Some(Options {
        workload: workload_name.clone(),
        database: name.clone(),
        region: region.clone(),
        host: endpoint.host.clone(),
        port: endpoint.port,
        dbname: database.dbname.clone(),
        user: database.user.clone(),
        password_file: database.password_file.clone(),
        tls: match database.tls {
            WrittenTls::Off => Tls::Off,
            WrittenTls::VerifyFull => Tls::VerifyFull { ca_file: database.ca_file.clone() },
        },
        heartbeat: database.heartbeat,
        system: database.system_identifier,
        fence: fence.map(|f| FenceCommand { argv: f.command.clone(), timeout: f.timeout }),
        replication: database.replication.get(region).map(|e| (e.host.clone(), e.port)),
        host_command: database
            .hosts
            .get(region)
            .map(|h| HostCommand { argv: h.command.clone(), timeout: h.timeout }),
        slots: database.endpoints.keys().map(slot_name).collect(),
    })
}

fn posts(
    name: &WorkloadName,
    workload: &WorkloadWiring,
    members: &Members,
    kit: &Kit,
) -> Result<Vec<Post>, Failure> {
    let mut posts = Vec::new();
    for (probe_name, written) in &workload.probes {
        let failed =
            |error: &dyn std::error::Error| unusable(format!("the probe {probe_name} cannot be made"), error);
        let probe: Arc<dyn Probe> = match &written.look {
            LookWiring::Database(database) => {
                let key = (name.clone(), written.region.clone(), database.clone());
                match members.get(&key) {
                    Some(member) => Arc::clone(member) as _,
                    None => continue,
                }
            }
            LookWiring::Http(http) => Arc::new(http_probe(http, kit).map_err(|error| failed(&error))?),
            LookWiring::Tcp(address) => {
                Arc::new(TcpProbe::new(&address.to_string(), kit).map_err(|error| failed(&error))?)
            }
            LookWiring::Dns(query) => Arc::new(dns_probe(query).map_err(|error| failed(&error))?),
        };
        posts.push(Post {
            workload: name.clone(),
            region: written.region.clone(),
            name: probe_name.clone(),
            interval: written.interval,
            timeout: written.timeout,
            probe,
        });
    }
    Ok(posts)
}

fn http_probe(http: &HttpWiring, kit: &Kit) -> Result<HttpProbe, lifeboat_probe::SetupError> {
    let options = HttpOptions {
        status: http.status,
        body: http.body.clone(),
        certificate_days: http.certificate_days.map_or(0, u32::from),
        ca_file: http.ca_file.clone(),
        redirects: http.redirects,
        ..HttpOptions::new(http.url.as_str())
    };
    HttpProbe::new(&options, kit)
}

fn dns_probe(query: &DnsQueryWiring) -> Result<DnsProbe, lifeboat_dns::ValueError> {
    let kind = match query.record {
        AskedKind::A => RecordKind::A,
        AskedKind::Aaaa => RecordKind::Aaaa,
        AskedKind::Cname => RecordKind::Cname,
        AskedKind::Txt => RecordKind::Txt,
        AskedKind::Ns => RecordKind::Ns,
        AskedKind::Soa => RecordKind::Soa,
    };
    let expect: BTreeSet<String> = query.expect.iter().cloned().collect();
    DnsProbe::new(query.server, &query.query, kind, Some(&expect).filter(|e| !e.is_empty()))
}

fn canary(written: &CanaryWiring, kit: &Kit, clock: Clock) -> Result<HttpCanary, Failure> {
    let options = CanaryOptions {
        url: written.url.as_str().to_owned(),
        resolver: Some(written.resolver),
        status: written.status,
        body: written.body.clone(),
        ca_file: written.ca_file.clone(),
    };
    HttpCanary::new(&options, kit, clock).map_err(|error| unusable("the canary cannot be made", &error))
}

fn names(written: &NameWiring, authority: Option<&Authority>) -> Result<Arc<dyn Names>, Failure> {
    match (&written.via, authority) {
        (ViaWiring::Rfc2136(server), _) => Ok(Arc::new(Rfc2136::new(rfc2136(server, written)))),
        (ViaWiring::Authority, Some(authority)) => Ok(Arc::new(authority.names(written.resolvers.clone()))),
        // The configuration's rules exclude it.
        (ViaWiring::Authority, None) => {
            Err(Failure::new(Exit::Config, "a name is kept in an authority that is not there"))
        }
    }
}

/// The options of a name kept behind RFC 2136.
pub(crate) fn rfc2136(server: &Rfc2136Wiring, written: &NameWiring) -> Rfc2136Options {
    Rfc2136Options {
        zone: server.zone.clone(),
        server: server.server,
        secondaries: server.secondaries.clone(),
        resolvers: written.resolvers.clone(),
        key_name: server.key_name.as_str().to_owned(),
        key_algorithm: match server.key_algorithm {
            WrittenAlgorithm::HmacSha256 => KeyAlgorithm::HmacSha256,
            WrittenAlgorithm::HmacSha384 => KeyAlgorithm::HmacSha384,
            WrittenAlgorithm::HmacSha512 => KeyAlgorithm::HmacSha512,
        },
        key_file: server.key_file.clone(),
    }
}

async fn authority(
    zone: &AuthorityWiring,
    wiring: &Wiring,
    policy: &Policy,
    guardian: &Guardian,
) -> Result<Authority, Failure> {
    let bound = Authority::bind(zone_options(zone), kept(wiring, policy, guardian.names_say())?).await;
    bound.map_err(|error| {
        Failure::because(Exit::Failed, format!("the authority for {} cannot be started", zone.zone), &error)
            .hint("is another name server listening there?  `ss -lunp` shows it")
    })
}

/// The authority's zone as it is written.
fn zone_options(zone: &AuthorityWiring) -> ZoneOptions {
    let fixed = zone.records.iter().map(|record| FixedRecord {
        name: record.name.clone(),
        kind: match record.kind {
            FixedKind::A => RecordKind::A,
            FixedKind::Aaaa => RecordKind::Aaaa,
            FixedKind::Cname => RecordKind::Cname,
            FixedKind::Txt => RecordKind::Txt,
        },
        values: record.values.clone(),
        ttl: record.ttl,
    });
    ZoneOptions {
        zone: zone.zone.clone(),
        listen: zone.listen.clone(),
        nameservers: zone.nameservers.clone(),
        hostmaster: Some(zone.hostmaster.clone()),
        negative_ttl: zone.negative_ttl,
        fixed: fixed.collect(),
    }
}

/// The authority's zone as a file, with `says` in the place of what the record knows of these names. None when there is
/// no authority.
pub(crate) fn zone_file(
    wiring: &Wiring,
    policy: &Policy,
    guardian: &Guardian,
    says: &[NameChange],
) -> Result<Option<String>, Failure> {
    let Some(zone) = &wiring.authority else { return Ok(None) };
    let mut kept = kept(wiring, policy, guardian.names_say())?;
    for name in &mut kept {
        if let Some(change) = says.iter().find(|change| change.name == name.name) {
            name.values.clone_from(&change.to);
        }
    }
    let file = lifeboat_dns::by_hand::zone_file(&zone_options(zone), &kept);
    file.map(Some).map_err(|error| unusable(format!("the zone {} cannot be written", zone.zone), &error))
}

/// What each name in the authority says now: what the record of past runs knows. A name without an address
/// there is an error: left out, it would answer that it does not exist.
pub(crate) fn kept(
    wiring: &Wiring,
    policy: &Policy,
    says: BTreeMap<WorkloadName, (RegionName, Epoch)>,
) -> Result<Vec<KeptName>, Failure> {
    let mut kept = Vec::new();
    for (workload, (region, epoch)) in says {
        let written = wiring.workloads.get(&workload).into_iter().flat_map(|w| &w.names);
        for (name, _) in written.filter(|(_, name)| name.via == ViaWiring::Authority) {
            let wanted = policy.workloads.get(&workload).and_then(|w| w.names.get(name));
            let values = wanted.and_then(|name| name.targets.get(&region));
            let (Some(wanted), Some(values)) = (wanted, values) else {
                let text = format!("{workload} lives in {region} on record, and {name} has no address there");
                return Err(Failure::new(Exit::Config, text));
            };
            kept.push(KeptName { name: name.clone(), values: values.clone(), ttl: wanted.ttl, epoch });
        }
    }
    Ok(kept)
}
