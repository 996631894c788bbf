//! Reaching a server for a step: over the witness session if it answers, else over a new one.
//!
//! **Invariant:** what is handed out has answered within this call; an open socket alone is no server.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, select_ok};
use lifeboat_core::AgentName;

use crate::connect::Session;
use crate::member::Member;
use crate::sample::Sample;
use crate::trouble::Trouble;

/// How long the witness session is given before a new one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// A server that answered.
pub(crate) struct Reached {
    /// The session it answered over.
    pub(crate) session: Arc<Session>,
    /// What it said.
    pub(crate) sample: Sample,
    /// Whether the session was open before the step began.
    pub(crate) before: bool,
}

impl Member {
    /// Samples the server, for that agent; the caller bounds the time.
    pub(crate) async fn reach(&self, agent: &AgentName) -> Result<Reached, Trouble> {
        let Some(session) = self.witness.idle() else {
            return self.reach_anew(agent).await;
        };
        let mut over_witness: BoxFuture<'_, Result<Reached, Trouble>> = async move {
            let sample = Sample::read(&session, agent).await?;
            Ok(Reached { session, sample, before: true })
        }
        .boxed();
        match tokio::time::timeout(HEAD_START, &mut over_witness).await {
            Ok(Ok(reached)) => Ok(reached),
            Ok(Err(trouble)) if trouble.sqlstate().is_some() && !trouble.ends_session() => Err(trouble),
            Ok(Err(_)) => self.reach_anew(agent).await,
            Err(_) => {
                select_ok([over_witness, self.reach_anew(agent).boxed()]).await.map(|(reached, _)| reached)
            }
        }
    }

    async fn reach_anew(&self, agent: &AgentName) -> Result<Reached, Trouble> {
        let session = Arc::new(Session::open(&self.options, &self.witness.ended).await?);
        let sample = Sample::read(&session, agent).await?;
        Ok(Reached { session, sample, before: false })
    }
}
