//! The DNS probe: one server, one question, and what the answer should be.
//!
//! **Invariant:** one look is one question (repeated if a datagram was lost), within the limit it is given.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use async_trait::async_trait;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use lifeboat_core::DnsName;
use lifeboat_core::sighting::{Evidence, Failure, FailureKind, Look};
use lifeboat_engine::ports::{Ask, Probe};

use crate::census::code_text;
use crate::exchange::{AskError, Question, ask};
use crate::value::{self, RecordKind, ValueError, listed};

/// A probe that asks `server` for one name.
#[derive(Clone, Debug)]
pub struct DnsProbe {
    server: SocketAddr,
    name: Name,
    kind: RecordKind,
    expect: Option<BTreeSet<String>>,
}

impl DnsProbe {
    /// A probe for records of `kind`. Without `expect`, any answer without error is good, also an empty one.
    /// Otherwise the answer must hold exactly those values; SOA is compared as
    /// `MNAME RNAME SERIAL REFRESH RETRY EXPIRE MINIMUM`.
    pub fn new(
        server: SocketAddr,
        query: &DnsName,
        kind: RecordKind,
        expect: Option<&BTreeSet<String>>,
    ) -> Result<Self, ValueError> {
        let one_text = |text: &String| match kind {
            RecordKind::Soa => Ok(text.clone()),
            _ => value::rdata(kind, text).map(|data| value::text(&data)),
        };
        let expect = expect.map(|values| values.iter().map(one_text).collect()).transpose()?;
        Ok(Self { server, name: value::name(query.as_str())?, kind, expect })
    }
}

#[async_trait]
impl Probe for DnsProbe {
    async fn look(&self, told: &Ask) -> Look {
        // The server may be a resolver; to an authoritative one the RD bit means nothing.
        let question = Question::new(self.name.clone(), self.kind.wire(), true);
        let answer = ask(self.server, &question, told.limit).await.map_err(|error| failure(&error))?;
        if answer.response_code != ResponseCode::NoError {
            let code = code_text(answer.response_code);
            return Err(wrong(format!("{} {}: {code}", self.name, self.kind)));
        }
        let Some(expect) = &self.expect else { return Ok(Evidence::Answered) };
        // Whatever name the answer's chain of aliases ends at, its records are what a client would use.
        let of_kind = answer.answers.iter().filter(|record| record.record_type() == self.kind.wire());
        let said: BTreeSet<String> = of_kind.map(|record| value::text(&record.data)).collect();
        if said == *expect {
            return Ok(Evidence::Answered);
        }
        let (said, expect) = (listed(&said), listed(expect));
        Err(wrong(format!("{} {} says {said}, expected {expect}", self.name, self.kind)))
    }
}

fn wrong(detail: String) -> Failure {
    Failure::new(FailureKind::WrongAnswer, detail)
}

fn failure(error: &AskError) -> Failure {
    let kind = match error {
        AskError::Silent(_) => FailureKind::Silent,
        AskError::Refused => FailureKind::Refused,
        AskError::Unreachable(_) => FailureKind::Unreachable,
        AskError::Malformed => FailureKind::Malformed,
    };
    let cause = std::error::Error::source(error).map(|cause| format!("{error}: {cause}"));
    Failure::new(kind, cause.unwrap_or_else(|| error.to_string()))
}
