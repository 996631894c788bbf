//! The coordinator is lost: what the agents say decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifeboat_core::head::Head;
use lifeboat_core::{AgentName, Epoch, RegionName, WorkloadName};
use lifeboat_sentry::failsafe::{Listener, Outlook, Promises, Station};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::seal::Named;
use crate::sentry::{LENGTH, Sentry};
use crate::server::{Server, Writers, folder, signal, until};

#[derive(Default)]
struct Given(Mutex<Vec<Duration>>);

impl Promises for Given {
    fn promise(&self, _: &WorkloadName, _: &RegionName, length: Duration) {
        self.0.lock().unwrap().push(length);
    }

    fn length(&self, _: &WorkloadName, _: &RegionName) -> Option<Duration> {
        None
    }
}

struct Agent {
    address: SocketAddr,
    outlook: watch::Sender<Outlook>,
    given: Arc<Given>,
    stop: CancellationToken,
}

async fn agent(name: &str) -> Agent {
    let head = Head {
        epoch: Epoch::new(7),
        holder: RegionName::new("east"),
        closing: false,
        coming: None,
        tended: None,
    };
    let heads = BTreeMap::from([(WorkloadName::new("shop"), head)]);
    let (outlook, seen) = watch::channel(Outlook { reachable: false, heads });
    let given = Arc::new(Given::default());
    let station = Station {
        agent: AgentName::new(name),
        agents: BTreeSet::from([AgentName::new(name)]),
        seal: Arc::new(Named::new(AgentName::new(name))),
        sentries: BTreeMap::from([("sentry-east".into(), BTreeSet::from([("shop".into(), "east".into())]))]),
        outlook: seen,
        promises: Arc::clone(&given) as _,
        most: LENGTH,
    };
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), station).await.unwrap();
    let (address, stop) = (listener.address().unwrap(), CancellationToken::new());
    tokio::spawn(listener.serve(stop.clone()));
    Agent { address, outlook, given, stop }
}

fn listed(agents: &[(&str, &Agent)]) -> String {
    let one = |(name, agent): &(&str, &Agent)| {
        format!("[[agents]]\nname = '{name}'\naddress = '{}'\nkey = ''\n", agent.address)
    };
    agents.iter().map(one).collect()
}

#[tokio::test]
async fn with_the_word_of_all_agents_the_database_goes_on_and_without_one_it_stops() {
    let folder = folder();
    let (east, west, witness) = (agent("east").await, agent("west").await, agent("witness").await);
    let all = listed(&[("east", &east), ("west", &west), ("witness", &witness)]);
    let server = Server::primary(folder.path()).await;
    let sentry = Sentry::start(&server, folder.path(), "held 7", "", &all);
    sentry.holds("lease").await;
    let mut writers = Writers::start(&server, 2).await;
    // Not answered at all, which takes longest to find out.
    sentry.answer("hang");
    sentry.holds("failsafe").await;
    let (ends, begun) = (sentry.lease_ends(), sentry.renewals().len());
    until("they write on past the lease", async || !writers.after(ends).is_empty()).await;
    until("it has gone on for some more turns", async || sentry.renewals().len() > begun + 6).await;
    assert!(server.runs() && sentry.deeds().is_empty(), "{}", sentry.deeds());
    for agent in [&east, &west, &witness] {
        let given = agent.given.0.lock().unwrap();
        assert!(!given.is_empty() && given.iter().all(|length| *length == LENGTH), "{given:?}");
    }
    // The coordinator is back: so is the lease.
    sentry.answer("held 7");
    sentry.holds("lease").await;
    sentry.answer("unreachable");
    sentry.holds("failsafe").await;
    // One of them can reach the coordinator again: somebody may decide.
    witness.outlook.send_modify(|outlook| outlook.reachable = true);
    writers.end().await;
    until("it is stopped", async || !server.runs()).await;
    assert!(sentry.log().contains("witness: it can reach the coordinator"), "{}", sentry.log());
}

#[tokio::test]
async fn one_agent_that_is_not_heard_is_enough_to_stop() {
    let folder = folder();
    let (east, west) = (agent("east").await, agent("west").await);
    let all = listed(&[("east", &east), ("west", &west)]);
    let server = Server::primary(folder.path()).await;
    let sentry = Sentry::start(&server, folder.path(), "held 7", "", &all);
    sentry.holds("lease").await;
    let mut writers = Writers::start(&server, 2).await;
    west.stop.cancel();
    sentry.answer("unreachable");
    let ends = sentry.lease_ends();
    writers.end().await;
    until("it is stopped", async || !server.runs()).await;
    assert!(writers.after(ends.plus(LENGTH)).is_empty());
    assert!(writers.after(sentry.lease_ends()).is_empty());
    assert!(sentry.log().contains("not every agent grants more time: west:"), "{}", sentry.log());
}

/// A deadline that was given because the region comes is no lease: nobody is asked for more of it, by no keeper.
#[tokio::test]
async fn a_keeper_that_takes_over_knows_what_the_deadline_stands_on() {
    let folder = folder();
    let witness = agent("witness").await;
    let server = Server::primary(folder.path()).await;
    let all = listed(&[("witness", &witness)]);
    let mut sentry = Sentry::start(&server, folder.path(), "held 7", "", &all);
    sentry.holds("lease").await;
    sentry.answer("coming 7 east");
    sentry.holds("coming").await;
    signal("-KILL", &[sentry.keeper()]);
    sentry.answer("unreachable");
    sentry.keeper_again();
    let keeper = sentry.keeper();
    until("the new keeper has had a turn", async || sentry.status()["keeper"] == keeper).await;
    assert_eq!(sentry.status()["basis"]["by"], "coming", "{}", sentry.status());
    until("it is stopped", async || !server.runs()).await;
    assert!(witness.given.0.lock().unwrap().is_empty(), "nobody was asked");
}
