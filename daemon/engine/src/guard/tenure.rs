//! The tenure as its holder sees it: when it is over by this agent's own clock, and the task that renews it.
//!
//! **Invariant:** a tenure is over by this clock one ttl after the moment before the last renewal was sent that
//! succeeded; so it is over here before it is over for anybody else.
//! **Invariant:** a loop that hangs is not kept in office: the renewals stop when it has not turned for one ttl.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::Moment;
use lifeboat_core::testimony::Beat;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::inbox::Inbox;
use crate::news::News;
use crate::ports::{Coordination, CoordinationError, Tenure};

/// How long to wait before records that could not be read are read again.
const READ_AGAIN: Duration = Duration::from_millis(200);

/// A tenure that is held, and the tasks that belong to it: they end with it.
pub(crate) struct Held {
    pub(crate) tenure: Tenure,
    until: watch::Receiver<Moment>,
    tasks: JoinSet<()>,
}

/// What the tasks of a tenure need.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) coordination: Arc<dyn Coordination>,
    pub(crate) clock: Clock,
    pub(crate) inbox: Inbox,
    /// When the loop last turned.
    pub(crate) turned: watch::Receiver<Moment>,
}

impl Held {
    /// Begins to renew a tenure that was won by a campaign sent at that moment.
    pub(crate) fn new(keeper: Keeper, tenure: Tenure, sent: Moment) -> Self {
        let (extend, until) = watch::channel(sent + keeper.coordination.tenure_ttl());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { keeper.renew_for_ever(tenure, &extend).await });
        Self { tenure, until, tasks }
    }

    /// When it is over, unless it is renewed before.
    pub(crate) fn until(&self) -> Moment {
        *self.until.borrow()
    }

    /// What is known of the panic of a task that belongs to it.
    pub(super) fn panicked(&mut self) -> Option<String> {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended {
                return Some(error.to_string());
            }
        }
        None
    }

    /// Reads the records after that place, and tells the loop; again and again while they cannot be read.
    pub(crate) fn read(&mut self, keeper: Keeper, after: u64) {
        let tenure = self.tenure;
        self.tasks.spawn(async move { keeper.read_until_answered(tenure, after).await });
    }
}

impl Keeper {
    async fn renew_for_ever(&self, tenure: Tenure, extend: &watch::Sender<Moment>) {
        let ttl = self.coordination.tenure_ttl();
        let mut beat = Beat { term: tenure.term, count: 0 };
        loop {
            let sent = self.clock.now();
            if sent.since(*self.turned.borrow()) > ttl {
                return;
            }
            beat.count += 1;
            let renewed = tokio::time::timeout(ttl / 3, self.coordination.renew(tenure, beat)).await;
            let next = match renewed {
                Ok(Ok(())) => {
                    extend.send_replace(sent + ttl);
                    if self.inbox.tell(News::Kept { tenure, beat, sent }).await.is_err() {
                        return;
                    }
                    sent + ttl / 3
                }
                Ok(Err(error)) if over(&error) => {
                    // When the loop has ended there is nobody to tell.
                    let _ = self.inbox.tell(News::Lost { tenure, error }).await;
                    return;
                }
                // It may work in a moment; when it does not, the tenure is over by the clock.
                Ok(Err(_)) | Err(_) => self.clock.now() + ttl / 12,
            };
            self.clock.sleep_until(next).await;
        }
    }

    async fn read_until_answered(&self, tenure: Tenure, after: u64) {
        let limit = self.coordination.tenure_ttl() / 3;
        loop {
            match tokio::time::timeout(limit, self.coordination.records(after)).await {
                Ok(Ok(records)) => {
                    let _ = self.inbox.tell(News::Missing { tenure, records }).await;
                    return;
                }
                Ok(Err(error)) if over(&error) => {
                    let _ = self.inbox.tell(News::Lost { tenure, error }).await;
                    return;
                }
                Ok(Err(_)) | Err(_) => self.clock.sleep_until(self.clock.now() + READ_AGAIN).await,
            }
        }
    }
}

/// Whether nothing but a new campaign, or a person, helps.
fn over(error: &CoordinationError) -> bool {
    match error {
        CoordinationError::Deposed(_) | CoordinationError::Rewound { .. } | CoordinationError::Damaged(_) => {
            true
        }
        CoordinationError::Unreachable(_)
        | CoordinationError::Unclear(_)
        | CoordinationError::Denied(_)
        | CoordinationError::Full(_) => false,
    }
}
