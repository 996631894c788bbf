//! Who is answered, and what.

use std::sync::{Arc, Mutex};

use lifeboat_engine::ports::Seal;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::frame::{read, read_sealed, write_sealed};
use super::*;
use crate::settings::Agent;

/// Signs with a name, and with a secret that is not everybody's.
struct Named(AgentName, u64);

impl Named {
    fn seal(&self, name: &AgentName, bytes: &[u8]) -> Vec<u8> {
        let sum: u64 =
            bytes.iter().fold(self.1, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        format!("{name} {sum}").into_bytes()
    }
}

impl Seal for Named {
    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.seal(&self.0, bytes)
    }

    fn is_of(&self, agent: &AgentName, bytes: &[u8], seal: &[u8]) -> bool {
        self.seal(agent, bytes) == seal
    }
}

#[derive(Default)]
struct Given(Mutex<Vec<Duration>>);

impl Promises for Given {
    fn promise(&self, _: &WorkloadName, _: &RegionName, length: Duration) {
        self.0.lock().unwrap().push(length);
    }

    fn length(&self, _: &WorkloadName, region: &RegionName) -> Option<Duration> {
        // The lease of this one was seen.
        (region.as_str() == "near").then_some(Duration::from_secs(4))
    }
}

fn head(epoch: u64, holder: &str, closing: bool, coming: Option<&str>) -> Head {
    Head {
        epoch: Epoch::new(epoch),
        holder: holder.into(),
        closing,
        coming: coming.map(Into::into),
        tended: None,
    }
}

fn outlook(reachable: bool, head: Option<Head>) -> Outlook {
    Outlook { reachable, heads: head.into_iter().map(|head| ("shop".into(), head)).collect() }
}

#[test]
fn more_time_is_granted_only_where_nothing_speaks_against_it() {
    let lease = Epoch::new(7);
    let judged = |outlook: Outlook| judge(&outlook, &"shop".into(), &"east".into(), lease);
    assert_eq!(judged(outlook(false, Some(head(7, "east", false, None)))), Ok(()));
    assert_eq!(judged(outlook(false, Some(head(6, "east", false, None)))), Ok(()));
    assert_eq!(judged(outlook(true, Some(head(7, "east", false, None)))), Err(Refusal::Reachable));
    assert_eq!(judged(outlook(false, None)), Err(Refusal::Unknown));
    let closing = Refusal::Closing { region: "east".into(), epoch: lease };
    assert_eq!(judged(outlook(false, Some(head(7, "east", true, None)))), Err(closing));
    let elsewhere = || Err(Refusal::Elsewhere { holder: "west".into(), epoch: lease });
    assert_eq!(judged(outlook(false, Some(head(7, "west", false, None)))), elsewhere());
    assert_eq!(judged(outlook(false, Some(head(7, "east", false, Some("west"))))), elsewhere());
    let newer = Refusal::Newer { known: Epoch::new(8), lease };
    assert_eq!(judged(outlook(false, Some(head(8, "east", false, None)))), Err(newer));
}

struct Post {
    agent: Agent,
    given: Arc<Given>,
    _outlook: watch::Sender<Outlook>,
    _stop: tokio_util::sync::DropGuard,
}

async fn post(known: Outlook) -> Post {
    post_among(known, &["west"]).await
}

async fn post_among(known: Outlook, agents: &[&str]) -> Post {
    let (outlook, seen) = watch::channel(known);
    let given = Arc::new(Given::default());
    let station = Station {
        agent: "west".into(),
        agents: agents.iter().copied().map(Into::into).collect(),
        seal: Arc::new(Named("west".into(), 1)),
        sentries: BTreeMap::from([
            ("sentry-east".into(), BTreeSet::from([("shop".into(), "east".into())])),
            ("sentry-near".into(), BTreeSet::from([("shop".into(), "near".into())])),
        ]),
        outlook: seen,
        promises: Arc::clone(&given) as _,
        most: Duration::from_secs(10),
    };
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), station).await.unwrap();
    let address = listener.address().unwrap().to_string();
    let stop = CancellationToken::new();
    tokio::spawn(listener.serve(stop.clone()));
    let agent = Agent { name: "west".into(), address, key: String::new() };
    Post { agent, given, _outlook: outlook, _stop: stop.drop_guard() }
}

fn request(by: &str, region: &str, length: Duration) -> Request {
    let (workload, region) = ("shop".into(), region.into());
    Request { by: by.into(), workload, region, epoch: Epoch::new(7), length }
}

async fn asked(post: &Post, by: Named, request: &Request) -> Result<(), String> {
    let seal: Arc<dyn Seal> = Arc::new(by);
    let answer = ask(std::slice::from_ref(&post.agent), &seal, request, Duration::from_secs(10)).await;
    answer.map_err(|refused| refused.into_iter().map(|(_, why)| why).collect())
}

#[tokio::test]
async fn only_a_sentrys_own_seal_for_its_own_database_is_answered() {
    let post = post(outlook(false, Some(head(7, "east", false, None)))).await;
    let sentry = || Named("sentry-east".into(), 1);
    let length = Duration::from_secs(10);
    asked(&post, sentry(), &request("sentry-east", "east", length)).await.unwrap();
    assert_eq!(*post.given.0.lock().unwrap(), [length], "remembered when it is answered");
    // A forger, a sentry of another region, one who asks for another's database, one who asks for too much.
    asked(&post, Named("sentry-east".into(), 2), &request("sentry-east", "east", length)).await.unwrap_err();
    asked(&post, Named("sentry-west".into(), 1), &request("sentry-west", "east", length)).await.unwrap_err();
    asked(&post, sentry(), &request("sentry-east", "west", length)).await.unwrap_err();
    let much = asked(&post, sentry(), &request("sentry-east", "east", length * 2)).await.unwrap_err();
    assert_eq!(much, "it promises 10000 ms at most");
    assert_eq!(post.given.0.lock().unwrap().len(), 1, "nothing was promised to them");
    let nobody = ask(&[], &(Arc::new(sentry()) as _), &request("sentry-east", "east", length), length).await;
    assert!(nobody.is_err(), "nobody to promise is no promise");
}

#[tokio::test]
async fn a_refusal_says_why_and_promises_nothing() {
    let post = post(outlook(false, Some(head(8, "west", false, None)))).await;
    let sentry = Named("sentry-east".into(), 1);
    let why =
        asked(&post, sentry, &request("sentry-east", "east", Duration::from_secs(10))).await.unwrap_err();
    assert_eq!(why, "it has west on record as the one that may take writes, under epoch 8");
    assert!(post.given.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_was_said_in_another_conversation_is_not_answered() {
    let post = post(outlook(false, Some(head(7, "east", false, None)))).await;
    let sentry = Named("sentry-east".into(), 1);
    let mut first = TcpStream::connect(&post.agent.address).await.unwrap();
    let challenge: Challenge = read(&mut first).await.unwrap();
    let question = Question {
        word: challenge.word,
        own_word: "mine".to_owned(),
        agent: "west".into(),
        asked: BTreeSet::from(["west".into()]),
        workload: "shop".into(),
        region: "east".into(),
        epoch: Epoch::new(7),
        length_ms: 1_000,
    };
    write_sealed(&mut first, &question, &sentry.0, &sentry).await.unwrap();
    let (by, grant): (_, Grant) = read_sealed(&mut first, &sentry).await.unwrap();
    assert_eq!((by.as_str(), grant.own_word.as_str(), grant.refused), ("west", "mine", None));
    let mut second = TcpStream::connect(&post.agent.address).await.unwrap();
    let fresh: Challenge = read(&mut second).await.unwrap();
    assert_ne!(fresh.word, question.word);
    write_sealed(&mut second, &question, &sentry.0, &sentry).await.unwrap();
    assert!(read_sealed::<Grant>(&mut second, &sentry).await.is_err(), "said again, it is not answered");
    assert_eq!(post.given.0.lock().unwrap().len(), 1);
    // Nor is a length of four gigabytes believed.
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut third = TcpStream::connect(&post.agent.address).await.unwrap();
    let _: Challenge = read(&mut third).await.unwrap();
    third.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    assert_eq!(third.read(&mut [0; 16]).await.unwrap_or(0), 0, "hung up on");
}

#[tokio::test]
async fn more_than_the_lease_that_was_seen_is_not_promised() {
    let post = post(outlook(false, Some(head(7, "near", false, None)))).await;
    let sentry = || Named("sentry-near".into(), 1);
    let length = Duration::from_secs(4);
    asked(&post, sentry(), &request("sentry-near", "near", length)).await.unwrap();
    let more = request("sentry-near", "near", length + Duration::from_millis(1));
    let why = asked(&post, sentry(), &more).await.unwrap_err();
    assert_eq!(why, "it promises 4000 ms at most");
    assert_eq!(*post.given.0.lock().unwrap(), [length]);
}

/// One that is added to the agents and not to sentry.toml promises nothing, and may decide.
#[tokio::test]
async fn an_agent_that_is_not_asked_is_enough_for_no() {
    let post = post_among(outlook(false, Some(head(7, "east", false, None))), &["north", "west"]).await;
    let sentry = Named("sentry-east".into(), 1);
    let why =
        asked(&post, sentry, &request("sentry-east", "east", Duration::from_secs(10))).await.unwrap_err();
    assert_eq!(why, "north is an agent too, and is not asked: list it in sentry.toml");
    assert!(post.given.0.lock().unwrap().is_empty());
}
