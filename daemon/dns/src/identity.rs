//! What software a name server is, as far as it tells.
//!
//! **Invariant:** the answer is for people and for warnings; nothing that moves traffic depends on it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, RData, RecordType};

use crate::exchange::{Question, ask};
use crate::value;

/// What a server said it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The text of `version.bind`, for example `9.18.33-1~deb12u2-Debian` or `Knot DNS 3.2.6`.
    pub version: String,
    /// Whether it is BIND: only BIND answers `authors.bind`. BIND waits `notify-delay` (5 s by default,
    /// per its reference manual) before it tells secondaries of a change.
    pub bind: bool,
}

/// Asks a server what it is (`version.bind` and `authors.bind`, class CHAOS), within `limit`. None when it
/// does not say: many operators hide it.
pub async fn identify(server: SocketAddr, limit: Duration) -> Option<Identity> {
    let (version, authors) =
        tokio::join!(chaos(server, "version.bind.", limit), chaos(server, "authors.bind.", limit));
    let bind = authors.is_some();
    version.or_else(|| bind.then(|| "BIND".to_owned())).map(|version| Identity { version, bind })
}

async fn chaos(server: SocketAddr, name: &str, limit: Duration) -> Option<String> {
    let question = Question {
        name: value::name(name).ok()?,
        kind: RecordType::TXT,
        class: DNSClass::CH,
        recursion: false,
    };
    let answer = ask(server, &question, limit).await.ok()?;
    if answer.response_code != ResponseCode::NoError {
        return None;
    }
    answer.answers.iter().find(|r| matches!(r.data, RData::TXT(_))).map(|record| value::text(&record.data))
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bind { write!(f, "BIND {}", self.version) } else { f.write_str(&self.version) }
    }
}
