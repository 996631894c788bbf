//! Which of a database's servers is read: a standby by preference, the primary for its log.

use lifeboat_config::document::archive::From;
use lifeboat_core::RegionName;
use lifeboat_engine::clock::Clock;
use lifeboat_postgres::replication::{Endpoint, Error, Identity, Replication};

use crate::archives::Chosen;
use crate::failure::{Exit, Failure};
use crate::plug;

/// A server that answered.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) region: RegionName,
    pub(crate) endpoint: Endpoint,
    pub(crate) identity: Identity,
    pub(crate) standby: bool,
}

/// Looks at the database's server in each region; or in one.
pub(crate) async fn look(
    chosen: &Chosen,
    region: Option<&RegionName>,
    clock: Clock,
) -> Vec<(RegionName, Result<Server, Error>)> {
    let mut found = Vec::new();
    let regions = chosen.wiring().endpoints.keys().filter(|one| region.is_none_or(|region| region == *one));
    for region in regions {
        let Some(options) = plug::options(&chosen.config.wiring, &chosen.workload, &chosen.database, region)
        else {
            continue;
        };
        let endpoint = Endpoint::of(&options, clock);
        let looked = one(region, endpoint).await;
        found.push((region.clone(), looked));
    }
    found
}

async fn one(region: &RegionName, endpoint: Endpoint) -> Result<Server, Error> {
    let mut server = Replication::connect(endpoint.clone()).await?;
    let identity = server.identify().await?;
    let standby = server.show("in_hot_standby").await? == "on";
    Ok(Server { region: region.clone(), endpoint, identity, standby })
}

/// The server to be read.
pub(crate) async fn choose(
    chosen: &Chosen,
    from: From,
    region: Option<&RegionName>,
    clock: Clock,
) -> Result<Server, Failure> {
    let looked = look(chosen, region, clock).await;
    let (mut there, mut failed) = (Vec::new(), Vec::new());
    for (region, looked) in looked {
        match looked {
            Ok(server) => there.push(server),
            Err(error) => failed.push((region, error)),
        }
    }
    let primaries: Vec<&Server> = there.iter().filter(|server| !server.standby).collect();
    if region.is_none() && primaries.len() > 1 {
        let all: Vec<_> = primaries.iter().map(|server| server.region.to_string()).collect();
        let text = format!("{} has a primary in {}: which one is it?", chosen.shown(), all.join(" and in "));
        return Err(
            Failure::new(Exit::Refused, text).hint("--region REGION; lifeboat status shows where it lives")
        );
    }
    // A standby of another cluster than the primary's is no standby of it.
    let system = primaries.first().map(|primary| primary.identity.system);
    let standby = there
        .iter()
        .find(|server| server.standby && system.is_none_or(|system| system == server.identity.system));
    let wanted = match from {
        From::Standby => standby.or(primaries.first().copied()),
        From::Primary => primaries.first().copied().or(there.first().filter(|_| region.is_some())),
    };
    if let Some(server) = wanted {
        return Ok(server.clone());
    }
    let mut failure = Failure::new(Exit::Failed, format!("no server of {} can be read", chosen.shown()));
    failure.causes = failed.iter().map(|(region, error)| format!("{region}: {error}")).collect();
    match failed.first() {
        Some((_, error)) => Err(failure.hint(error.hint())),
        None => Err(failure.hint("is its primary running?  lifeboat status")),
    }
}
