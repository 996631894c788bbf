//! The persons of a pretend world: they answer, order, change their minds, and in the end mend what is left.
//!
//! **Invariant:** a person knows what is on record and what a healthy agent would show, nothing else.

use std::time::Duration;

use lifeboat_core::order::Acceptance;
use lifeboat_core::{Event, Order};

use super::setting::NAMES;
use super::world::{Due, World};
use crate::scenario::Wish;

/// Between two looks of a person.
const LOOKS: u64 = 2_500;

impl World {
    /// A person looks at what is going on, and may do something about it.
    pub(crate) fn person(&mut self) {
        let pause = LOOKS + self.chance.below(1_500);
        self.schedule(pause, Due::Person);
        if self.helpful {
            return self.mend();
        }
        if !self.chance.percent(self.persons) {
            return;
        }
        let asked = self.oracle.book.question.is_some();
        let open = self.oracle.book.open.is_some();
        let wishes: &[Wish] = match (asked, open) {
            (true, _) => &[Wish::Approve, Wish::Approve, Wish::Abandon, Wish::Cancel],
            (_, true) => &[Wish::Pause, Wish::Cancel, Wish::Approve, Wish::Failover],
            _ => &[Wish::Switchover, Wish::Switchover, Wish::Failover, Wish::Pause, Wish::Rejoin],
        };
        let wish = self.chance.pick(wishes);
        self.wish(wish);
    }

    /// What is asked is accepted, what is stranded goes on, what was left is made a standby.
    fn mend(&mut self) {
        let book = &self.oracle.book;
        if book.question.is_some() {
            return self.wish(Wish::Approve);
        }
        if book.stranded {
            let tries = self.now < self.patience && self.chance.percent(60);
            let again = if tries { Wish::Failover } else { Wish::Abandon };
            return self.wish(again);
        }
        let there = book.left.is_some_and(|r| self.network.awake(r) && self.network.talk(0, 1));
        if book.open.is_none() && there && self.now < self.patience {
            self.wish(Wish::Rejoin);
        }
    }

    /// A person gives an order to whoever decides.
    pub(crate) fn wish(&mut self, wish: Wish) {
        let Some(held) = self.coordinator.tenure(self.now) else { return };
        let a = held.agent;
        if !self.agents[a].up || self.agents[a].frozen > 0 || self.network.still(a) {
            return;
        }
        let (workload, by) = (NAMES.workload.clone(), "ada".to_owned());
        let book = &self.oracle.book;
        let other = NAMES.regions[1 - book.primary].clone();
        let run = book.open.as_ref().map(|(run, _)| run.clone());
        let reason = "a person said so".to_owned();
        let order = match (wish, run) {
            (Wish::Approve, Some(run)) => {
                let right = book.question.as_ref().map(lifeboat_core::order::Question::acceptance);
                let wrong = Some(Acceptance::Loss("1s".to_owned()));
                let accept = if self.helpful || self.chance.percent(85) { right } else { wrong };
                Order::Approve { run, accept, by }
            }
            (Wish::Abandon, Some(run)) => Order::Abandon { run, reason, accept: None, by },
            (Wish::Cancel, Some(run)) => Order::Cancel { run, reason, by },
            (Wish::Failover, open) => {
                let to = book.open.as_ref().map(|(_, plan)| plan.to.clone()).filter(|_| open.is_some());
                match book.open.as_ref().map(|(_, plan)| plan.kind) {
                    Some(lifeboat_core::plan::Kind::Rejoin) => {
                        let region = book.open.as_ref().map(|(_, plan)| plan.from.clone()).unwrap_or(other);
                        Order::Rejoin { workload, region, by }
                    }
                    Some(lifeboat_core::plan::Kind::Switchover) => {
                        Order::Switchover { workload, to: to.unwrap_or(other), by }
                    }
                    _ => Order::Failover { workload, to: to.unwrap_or(other), by },
                }
            }
            (Wish::Switchover, _) => Order::Switchover { workload, to: other, by },
            (Wish::Rejoin, _) => Order::Rejoin { workload, region: other, by },
            (Wish::Pause, _) => {
                let until = self.moment(a) + Duration::from_secs(12);
                Order::Pause { workload, reason, until, by }
            }
            (Wish::Approve | Wish::Abandon | Wish::Cancel, None) => return,
        };
        self.trace.line(self.now, format_args!("ordered: {order:?}"));
        self.tell(a, Event::Ordered(order));
    }
}
