//! A statement of the operator's own.
//!
//! **Invariant:** it is stopped at the server when the call's limit has passed, and its answer is cut.

use lifeboat_core::Fault;
use lifeboat_engine::ports::Call;

use super::{Asked, in_time};
use crate::connect::Session;
use crate::member::Member;
use crate::position::not_outranked;
use crate::sample::Sample;

/// Characters of the answer that are kept: it goes on record.
const LONGEST_ANSWER: usize = 1000;

impl Member {
    /// Runs `statement` over a session of its own.
    pub(crate) async fn query_within_limit(
        &self,
        call: &Call,
        statement: &str,
    ) -> Result<Option<String>, Fault> {
        let done = "the statement was sent and is not answered";
        in_time(call.limit, done, &mut Asked::default(), async |asked| {
            let opened = Session::open(&self.options, &self.witness.ended).await;
            let session = opened.map_err(|trouble| trouble.fault())?;
            let sample = Sample::read(&session, &call.agent).await.map_err(|trouble| trouble.fault())?;
            not_outranked(&sample, call.epoch)?;
            let limit = call.limit.as_millis().max(1);
            let bounded = session.batch(&format!("SET statement_timeout = {limit}")).await;
            bounded.map_err(|trouble| trouble.fault())?;
            asked.0 = true;
            let answer = session.first_text(statement).await.map_err(|trouble| asked.fault(&trouble))?;
            Ok(answer.map(|text| text.chars().take(LONGEST_ANSWER).collect()))
        })
        .await
    }
}
