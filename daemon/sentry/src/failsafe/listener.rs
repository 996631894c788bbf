//! The agent's side: listens to sentries.
//!
//! **Invariant:** whoever connects has a limit of time and of bytes, and there is a limit to how many there are.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::AgentName;
use lifeboat_engine::ports::Seal;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::frame::{read_sealed, word, write, write_sealed};
use super::{Challenge, Grant, Outlook, Promises, Question, Refusal, Sentries, judge};

/// How long one conversation may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Conversations at a time: a sentry for each database has one, a stranger must not keep them out for long.
const MOST: usize = 64;

/// Before the next connection is taken when one could not be, for want of files say.
const PAUSE: Duration = Duration::from_millis(100);

/// What an agent answers with.
pub struct Station {
    /// Its own name.
    pub agent: AgentName,
    /// All agents that it knows, itself included: whoever may decide.
    pub agents: BTreeSet<AgentName>,
    /// Its seal, and the keys of the sentries.
    pub seal: Arc<dyn Seal>,
    /// Who may ask for what.
    pub sentries: Sentries,
    /// What it knows; a grant is judged by the newest.
    pub outlook: watch::Receiver<Outlook>,
    /// Where it keeps its promises.
    pub promises: Arc<dyn Promises>,
    /// The most it promises for a write lease that it has not seen renewed.
    pub most: Duration,
}

/// An agent's ear for sentries.
pub struct Listener {
    listener: TcpListener,
    station: Arc<Station>,
}

impl Listener {
    /// Binds the address; nothing is answered yet.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: SocketAddr, station: Station) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, station: Arc::new(station) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop`.
    pub async fn serve(self, stop: CancellationToken) {
        let seats = Arc::new(Semaphore::new(MOST));
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a sentry's connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // Without a seat it is hung up on, and asks again.
            let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else { continue };
            let (station, stop) = (Arc::clone(&self.station), stop.clone());
            tokio::spawn(async move {
                let _seat = seat;
                let talking = tokio::time::timeout(LIMIT, station.talk(stream));
                let ended =
                    tokio::select! { biased; () = stop.cancelled() => return, ended = talking => ended };
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%from, %error, "a failsafe question was not answered"),
                    Err(_) => tracing::warn!(%from, "a failsafe question did not come in time"),
                }
            });
        }
    }
}

impl Station {
    async fn talk(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let challenge = Challenge { word: word()? };
        write(&mut stream, &challenge).await?;
        let (by, question): (_, Question) = read_sealed(&mut stream, self.seal.as_ref()).await?;
        if question.word != challenge.word || question.agent != self.agent {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "a question of another conversation",
            ));
        }
        let place = (question.workload.clone(), question.region.clone());
        if !self.sentries.get(&by).is_some_and(|own| own.contains(&place)) {
            let why = format!("{by} may not ask for {} in {}", question.workload, question.region);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let refused = self.decide(&question).err();
        let (workload, region) = (&question.workload, &question.region);
        match &refused {
            None => {
                tracing::warn!(%workload, %region, ms = question.length_ms, "a sentry has more time: the coordinator is lost for us both")
            }
            Some(why) => tracing::warn!(%workload, %region, %why, "a sentry was refused more time"),
        }
        let grant = Grant {
            own_word: question.own_word,
            workload: question.workload,
            region: question.region,
            length_ms: if refused.is_none() { question.length_ms } else { 0 },
            refused,
        };
        write_sealed(&mut stream, &grant, &self.agent, self.seal.as_ref()).await
    }

    /// Grants or refuses; a grant is remembered when this returns.
    fn decide(&self, question: &Question) -> Result<(), Refusal> {
        let length = Duration::from_millis(question.length_ms);
        let (workload, region) = (&question.workload, &question.region);
        let most = self.promises.length(workload, region).unwrap_or(self.most).min(self.most);
        if length > most {
            return Err(Refusal::TooLong { most_ms: u64::try_from(most.as_millis()).unwrap_or(u64::MAX) });
        }
        if let Some(agent) = self.agents.difference(&question.asked).next() {
            return Err(Refusal::NotAsked { agent: agent.clone() });
        }
        judge(&self.outlook.borrow(), workload, region, question.epoch)?;
        self.promises.promise(workload, region, length);
        // What came to be known meanwhile may have been judged by without the promise.
        judge(&self.outlook.borrow(), workload, region, question.epoch)
    }
}
