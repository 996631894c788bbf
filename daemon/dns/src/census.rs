//! Who says what: every server that may be asked for a name, asked at once.
//!
//! **Invariant:** a server agrees only if it answered, with exactly the new values; an authoritative one
//! must also say so with authority.
//! **Invariant:** one slow or dead server costs the others nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::Name;
use lifeboat_core::outcome::Census;
use lifeboat_core::{Fault, FaultKind};
use lifeboat_engine::ports::NameChange;

use crate::exchange::{AskError, Question, ask};
use crate::value::{self, RecordKind, by_kind, canonical, listed, name_text};

/// How long one server may take: several round trips around the world, and still short for a person.
const PER_SERVER: Duration = Duration::from_millis(1500);

/// Who may be asked for a name.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    authoritative: BTreeSet<SocketAddr>,
    resolvers: BTreeSet<SocketAddr>,
}

impl Servers {
    /// An address in both lists is asked as an authoritative server.
    pub(crate) fn new(
        authoritative: impl IntoIterator<Item = SocketAddr>,
        resolvers: impl IntoIterator<Item = SocketAddr>,
    ) -> Self {
        let authoritative: BTreeSet<_> = authoritative.into_iter().collect();
        let resolvers = resolvers.into_iter().filter(|r| !authoritative.contains(r)).collect();
        Self { authoritative, resolvers }
    }
}

/// Asks every server once. Each has `limit`, or 1.5 s if that is shorter.
pub(crate) async fn take(servers: &Servers, change: &NameChange, limit: Duration) -> Result<Census, Fault> {
    let refused = |error: value::ValueError| Fault::new(FaultKind::Refused, error.to_string());
    let name = value::name(change.name.as_str()).map_err(refused)?;
    let wanted = canonical(&change.to).map_err(refused)?;
    // Old kinds too: an AAAA record that stayed behind sends half of the clients to the old place.
    let mut kinds: BTreeSet<_> = by_kind(&change.from).map_err(refused)?.into_keys().collect();
    kinds.extend(by_kind(&change.to).map_err(refused)?.into_keys());

    let limit = limit.min(PER_SERVER);
    let authoritative = servers.authoritative.iter().map(|server| (*server, false));
    let resolvers = servers.resolvers.iter().map(|server| (*server, true));
    let answers = join_all(authoritative.chain(resolvers).map(|(server, recursion)| {
        let (name, kinds) = (&name, &kinds);
        async move { (server, says(server, name, kinds, recursion, limit).await) }
    }))
    .await;

    let mut census = Census { agree: BTreeSet::new(), disagree: BTreeMap::new(), silent: BTreeMap::new() };
    for (server, said) in answers {
        match said {
            Ok(values) if values == wanted => {
                census.agree.insert(server.to_string());
            }
            Ok(values) => {
                census.disagree.insert(server.to_string(), listed(&values));
            }
            Err(Instead::Said(what)) => {
                census.disagree.insert(server.to_string(), what);
            }
            Err(Instead::Silent(why)) => {
                census.silent.insert(server.to_string(), why);
            }
        }
    }
    Ok(census)
}

/// What a server gave instead of values.
enum Instead {
    /// An answer without the values.
    Said(String),
    /// No answer that can be read.
    Silent(String),
}

/// What one server says a name is, over all `kinds`; or what it gave instead.
async fn says(
    server: SocketAddr,
    name: &Name,
    kinds: &BTreeSet<RecordKind>,
    recursion: bool,
    limit: Duration,
) -> Result<BTreeSet<String>, Instead> {
    let values = try_join_all(kinds.iter().map(|kind| async {
        let question = Question::new(name.clone(), kind.wire(), recursion);
        let answer = ask(server, &question, limit).await.map_err(|error| Instead::Silent(silence(&error)))?;
        if answer.response_code != ResponseCode::NoError {
            return Err(Instead::Said(code_text(answer.response_code)));
        }
        if !recursion && !answer.authoritative {
            let what = "an answer without authority: the server does not hold the zone";
            return Err(Instead::Said(what.to_owned()));
        }
        Ok(values_at(&answer, name))
    }))
    .await?;
    Ok(values.into_iter().flatten().collect())
}

/// The values of a name itself: an alias counts as what it is, not as what it leads to.
pub(crate) fn values_at(answer: &Message, name: &Name) -> BTreeSet<String> {
    let owner = name_text(name);
    let of_name = answer.answers.iter().filter(|record| name_text(&record.name) == owner);
    of_name
        .filter(|record| {
            RecordKind::of_wire(record.record_type()).is_some_and(|k| RecordKind::SWITCHED.contains(&k))
        })
        .map(|record| value::text(&record.data))
        .collect()
}

/// A response code by the name that every tool prints.
pub(crate) fn code_text(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".into(),
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::NXDomain => "NXDOMAIN".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        ResponseCode::Refused => "REFUSED".into(),
        ResponseCode::YXDomain => "YXDOMAIN".into(),
        ResponseCode::YXRRSet => "YXRRSET".into(),
        ResponseCode::NXRRSet => "NXRRSET".into(),
        ResponseCode::NotAuth => "NOTAUTH".into(),
        ResponseCode::NotZone => "NOTZONE".into(),
        other => format!("code {}", u16::from(other)),
    }
}

fn silence(error: &AskError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
