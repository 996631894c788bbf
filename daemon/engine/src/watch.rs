//! The tasks that look: one for each probe, one for the witnesses.
//!
//! **Invariant:** a task looks, says what it saw and looks again; it never judges.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use lifeboat_core::event::Witnessing;
use lifeboat_core::sighting::{Failure, FailureKind, Look};
use lifeboat_core::{AgentName, Epoch, Event, Moment, RegionName, Sighting, WorkloadName};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::hands::words_of;
use crate::inbox::Inbox;
use crate::ports::{Ask, Role};
use crate::tasks::Tasks;
use crate::world::{Post, World};

/// Where each workload lives, and under which epoch.
pub(crate) type Beliefs = BTreeMap<WorkloadName, (RegionName, Epoch)>;

/// A probe that does not keep to its own limit is cut off this much later.
const GRACE: Duration = Duration::from_millis(250);

/// What every task that looks needs.
#[derive(Clone)]
pub(crate) struct Watch {
    pub(crate) agent: AgentName,
    pub(crate) clock: Clock,
    pub(crate) inbox: Inbox,
    pub(crate) beliefs: watch::Receiver<Beliefs>,
    pub(crate) stop: CancellationToken,
}

impl Watch {
    /// Starts a task for each probe and one for the witnesses; each gives back its name when it ends.
    pub(crate) fn start(&self, world: &World, tasks: &mut Tasks) {
        let mut random = ChaCha8Rng::seed_from_u64(self.clock.now().millis());
        for post in &world.posts {
            // Looks are spread over the interval, so that a thousand probes are not a thousand at once.
            let delay =
                self.spread(post.interval.min(Duration::from_secs(10)), &mut random, world.posts.len());
            let (watch, post, seed) = (self.clone(), post.clone(), random.next_u64());
            let name = format!("probe {} of {}", post.name, post.workload);
            tasks.start(name, async move {
                watch.look_for_ever(post, delay, ChaCha8Rng::seed_from_u64(seed)).await;
            });
        }
        if !world.witnesses.is_empty() {
            let (watch, world) = (self.clone(), world.clone());
            tasks.start("the witnesses".to_owned(), async move { watch.witness_for_ever(&world).await });
        }
    }

    fn spread(&self, over: Duration, random: &mut ChaCha8Rng, posts: usize) -> Duration {
        if posts < 16 { Duration::ZERO } else { over.mul_f64(fraction(random)) }
    }

    async fn look_for_ever(&self, post: Post, delay: Duration, mut random: ChaCha8Rng) {
        let mut next = self.clock.now() + delay;
        let mut answered = false;
        loop {
            let soonest = self.clock.now() + post.interval / 10;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.clock.sleep_until(next) => {}
                // Listened to only after an answer, and not at once: a door that slams for ever must not
                // make the probe spin.
                () = async { disturbed(&post).await; self.clock.sleep_until(soonest).await }, if answered => {}
            }
            let started = self.clock.now();
            let Some(sighting) = self.look(&post, started).await else { return };
            answered = sighting.look.is_ok();
            // Counted from the start of this look, with a tenth of jitter.
            next = started + post.interval.mul_f64(0.95 + 0.1 * fraction(&mut random));
            if self.inbox.put(Event::Sighted(sighting)).await.is_err() {
                return;
            }
        }
    }

    /// One look, or nothing when the agent stops.
    async fn look(&self, post: &Post, started: Moment) -> Option<Sighting> {
        let ask = self.ask(post, started);
        let look = tokio::select! {
            biased;
            () = self.stop.cancelled() => return None,
            look = tokio::time::timeout(post.timeout + GRACE, caught(post, &ask)) => look,
        };
        let look = look.unwrap_or_else(|_| {
            Err(Failure::new(
                FailureKind::Silent,
                format!("no answer within {}", lifeboat_core::time::length(post.timeout)),
            ))
        });
        let at = self.clock.now();
        Some(Sighting {
            workload: post.workload.clone(),
            region: post.region.clone(),
            probe: post.name.clone(),
            vantage: self.agent.clone(),
            at,
            took: at.since(started),
            look,
        })
    }

    fn ask(&self, post: &Post, at: Moment) -> Ask {
        let beliefs = self.beliefs.borrow();
        let known = beliefs.get(&post.workload);
        let primary = known.is_some_and(|(region, _)| *region == post.region);
        Ask {
            agent: self.agent.clone(),
            at,
            epoch: known.map(|(_, epoch)| *epoch).unwrap_or_default(),
            expect: if primary { Role::Primary } else { Role::Standby },
            limit: post.timeout,
        }
    }

    async fn witness_for_ever(&self, world: &World) {
        let mut next = self.clock.now();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.clock.sleep_until(next) => {}
            }
            let at = self.clock.now();
            let limit = world.witness_timeout;
            let asked = join_all(world.witnesses.iter().map(|w| {
                tokio::time::timeout(limit + GRACE, AssertUnwindSafe(w.answers(limit)).catch_unwind())
            }));
            let answers = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                answers = asked => answers,
            };
            let answered = answers.into_iter().filter(|answer| matches!(answer, Ok(Ok(true)))).count();
            let witnessing = Witnessing { vantage: self.agent.clone(), at, answered };
            if self.inbox.put(Event::Witnessed(witnessing)).await.is_err() {
                return;
            }
            next = at + world.witness_interval;
        }
    }
}

/// A look that panics is a failed look: one bad adapter must not blind the others.
async fn caught(post: &Post, ask: &Ask) -> Look {
    let look = AssertUnwindSafe(post.probe.look(ask)).catch_unwind().await;
    look.unwrap_or_else(|panic| Err(Failure::new(FailureKind::Malformed, words_of(panic.as_ref()))))
}

/// Resolves when the probe says that it should look again; one that panics says nothing any more until then.
async fn disturbed(post: &Post) {
    if AssertUnwindSafe(post.probe.disturbed()).catch_unwind().await.is_err() {
        std::future::pending().await
    }
}

/// A number from 0 to 1.
fn fraction(random: &mut ChaCha8Rng) -> f64 {
    f64::from(random.next_u32()) / f64::from(u32::MAX)
}
