//! The sentry's side: all agents at once, within one limit.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use lifeboat_core::{AgentName, Epoch, RegionName, WorkloadName};
use lifeboat_engine::ports::Seal;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::frame::{read, read_sealed, word, write_sealed};
use super::{Challenge, Grant, Question, Refusal};
use crate::settings::Agent;
use std::sync::Arc;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub by: AgentName,
    /// Whose lease.
    pub workload: WorkloadName,
    /// In which region.
    pub region: RegionName,
    /// Under which epoch it is held.
    pub epoch: Epoch,
    /// For how long, counted from before it is asked.
    pub length: Duration,
}

/// Asks all agents; granted only if each of them grants it.
///
/// # Errors
/// Who did not, and why, by name.
pub async fn ask(
    agents: &[Agent],
    seal: &Arc<dyn Seal>,
    request: &Request,
    limit: Duration,
) -> Result<(), Vec<(AgentName, String)>> {
    if agents.is_empty() {
        // Nobody to promise anything: that is no consent.
        return Err(Vec::new());
    }
    let all: BTreeSet<AgentName> = agents.iter().map(|agent| agent.name.clone()).collect();
    let mut asking = JoinSet::new();
    for agent in agents.iter().cloned() {
        let (seal, request, all) = (Arc::clone(seal), request.clone(), all.clone());
        asking.spawn(async move {
            let asked = tokio::time::timeout(limit, ask_one(&agent, all, seal.as_ref(), &request)).await;
            let answer = match asked {
                Ok(Ok(None)) => return Ok(()),
                Ok(Ok(Some(refusal))) => refusal.to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} ms", limit.as_millis()),
            };
            Err((agent.name, answer))
        });
    }
    let refused: Vec<_> = asking.join_all().await.into_iter().filter_map(Result::err).collect();
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

async fn ask_one(
    agent: &Agent,
    asked: BTreeSet<AgentName>,
    seal: &dyn Seal,
    request: &Request,
) -> io::Result<Option<Refusal>> {
    let mut stream = TcpStream::connect(&agent.address).await?;
    stream.set_nodelay(true)?;
    let challenge: Challenge = read(&mut stream).await?;
    let question = Question {
        word: challenge.word,
        own_word: word()?,
        agent: agent.name.clone(),
        asked,
        workload: request.workload.clone(),
        region: request.region.clone(),
        epoch: request.epoch,
        length_ms: u64::try_from(request.length.as_millis()).unwrap_or(u64::MAX),
    };
    write_sealed(&mut stream, &question, &request.by, seal).await?;
    let (by, grant): (_, Grant) = read_sealed(&mut stream, seal).await?;
    let ours = by == agent.name
        && grant.own_word == question.own_word
        && grant.workload == question.workload
        && grant.region == question.region
        && (grant.refused.is_some() || grant.length_ms >= question.length_ms);
    if !ours {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is not to this question"));
    }
    Ok(grant.refused)
}
