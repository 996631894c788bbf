//! The persons of the whole world: they answer, order, and in the end mend what is left, through the agents' own inboxes.
//!
//! **Invariant:** a person knows what is on record, nothing else.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::Order;
use lifeboat_core::order::{Acceptance, Question};
use lifeboat_core::plan::Kind;
use tokio::time::{sleep, timeout};

use super::scene::{Scene, State};
use crate::simulate::setting::NAMES;

/// Between two looks of a person.
const LOOKS: u64 = 2_500;

/// How long a person waits for an answer.
const PATIENCE: Duration = Duration::from_secs(25);

/// What persons are like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// In so many of a hundred looks they do something, while faults last.
    pub(super) busy: u64,
    /// When faults are over: then they do what is asked.
    pub(super) helpful_from: u64,
    /// Until when they begin anything new.
    pub(super) until: u64,
}

/// Persons are there as long as the world lives.
pub(super) async fn look_for_ever(scene: Arc<Scene>, manner: Manner) {
    loop {
        let pause = LOOKS + scene.change(|state, _| state.chance.below(1_500));
        sleep(Duration::from_millis(pause)).await;
        let asked = scene.change(|state, now| {
            let order = if now >= manner.helpful_from {
                state.start_what_stands(now);
                state.mend(now < manner.until)
            } else {
                state.chance.percent(manner.busy).then(|| state.whim()).flatten()
            }?;
            let there: Vec<usize> = (0..3).filter(|a| state.inboxes[*a].is_some()).collect();
            let a = *there
                .get(usize::try_from(state.chance.below(3)).unwrap_or_default() % there.len().max(1))?;
            state.trace.line(now, format_args!("ordered of agent {a}: {order:?}"));
            Some((state.inboxes[a].clone()?, order))
        });
        if let Some((inbox, order)) = asked {
            let answer = timeout(PATIENCE, inbox.order(order)).await;
            scene.change(|state, now| state.trace.line(now, format_args!("answered: {answer:?}")));
        }
    }
}

impl State {
    /// A server that its sentry has stopped is started again by a person; beside a sentry it waits for its lease.
    fn start_what_stands(&mut self, now: u64) {
        for r in 0..2 {
            if self.network.awake(r) && !self.databases[r].running && !self.databases[r].wants_start {
                self.boot(now, r);
            }
        }
    }

    /// What is asked is accepted, what is stranded goes on, what was left is made a standby.
    fn mend(&mut self, begins: bool) -> Option<Order> {
        let book = &self.oracle.book;
        if book.question.is_some() {
            return self.approval(true);
        }
        if book.stranded {
            let goes_on = begins && self.chance.percent(60);
            return if goes_on { self.again() } else { self.given_up() };
        }
        let left = book.left.filter(|r| self.network.awake(*r) && self.network.talk(0, 1))?;
        let (workload, by) = (NAMES.workload.clone(), "ada".to_owned());
        let free = book.open.is_none() && begins;
        free.then(|| Order::Rejoin { workload, region: NAMES.regions[left].clone(), by })
    }

    /// What a person may want while things break.
    fn whim(&mut self) -> Option<Order> {
        let (asked, open) = (self.oracle.book.question.is_some(), self.oracle.book.open.is_some());
        let (workload, by) = (NAMES.workload.clone(), "ada".to_owned());
        let to = NAMES.regions[1 - self.oracle.book.primary].clone();
        match (asked, open, self.chance.below(4)) {
            (true, _, 0..3) => self.approval(false),
            (true, _, _) => self.given_up(),
            (false, true, 0..2) => self.canceled(),
            (false, true, _) => self.again(),
            (false, false, 0..2) => Some(Order::Switchover { workload, to, by }),
            (false, false, 2) => Some(Order::Failover { workload, to, by }),
            (false, false, _) => Some(Order::Rejoin { workload, region: to, by }),
        }
    }

    fn approval(&mut self, helpful: bool) -> Option<Order> {
        let right = helpful || self.chance.percent(85);
        let (run, _) = self.oracle.book.open.as_ref()?;
        let accept = self.oracle.book.question.as_ref().map(Question::acceptance);
        let accept = if right { accept } else { Some(Acceptance::Loss("1s".to_owned())) };
        Some(Order::Approve { run: run.clone(), accept, by: "ada".to_owned() })
    }

    fn given_up(&self) -> Option<Order> {
        let (run, _) = self.oracle.book.open.as_ref()?;
        let (run, reason) = (run.clone(), "a person said so".to_owned());
        Some(Order::Abandon { run, reason, accept: None, by: "ada".to_owned() })
    }

    fn canceled(&self) -> Option<Order> {
        let (run, _) = self.oracle.book.open.as_ref()?;
        Some(Order::Cancel { run: run.clone(), reason: "a person said so".to_owned(), by: "ada".to_owned() })
    }

    fn again(&self) -> Option<Order> {
        let (_, plan) = self.oracle.book.open.as_ref()?;
        let (workload, by) = (NAMES.workload.clone(), "ada".to_owned());
        Some(match plan.kind {
            Kind::Rejoin => Order::Rejoin { workload, region: plan.from.clone(), by },
            Kind::Failover => Order::Failover { workload, to: plan.to.clone(), by },
            _ => Order::Switchover { workload, to: plan.to.clone(), by },
        })
    }
}
