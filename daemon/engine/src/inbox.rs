//! The one inbox: events, orders and questions, in the order in which they came.

use lifeboat_core::forecast::Forecast;
use lifeboat_core::plan::Kind;
use lifeboat_core::status::Status;
use lifeboat_core::{Answer, Event, Order, Plan, Reason, RegionName, WorkloadName};
use tokio::sync::{mpsc, oneshot};

use crate::news::News;

/// How many messages may wait. 1,000 probes that all look in the same second fit; when it is full, probes
/// wait their turn, which delays looks and loses none.
const CAPACITY: usize = 1024;

/// What can arrive.
#[derive(Debug)]
pub(crate) enum Message {
    /// Something happened.
    Event(Event),
    /// A person gave an order.
    Order(Order, oneshot::Sender<Answer>),
    /// Something changed in what several agents share.
    News(News),
    /// Someone wants to see everything.
    Status(oneshot::Sender<Status>),
    /// Someone wants to see the plan of a procedure.
    Plan {
        /// Which procedure.
        kind: Kind,
        /// Of which workload.
        workload: WorkloadName,
        /// Where to; the guardian's choice when empty.
        to: Option<RegionName>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<(Plan, Forecast), Reason>>,
    },
}

/// Where messages are put; cheap to clone.
#[derive(Clone, Debug)]
pub struct Inbox {
    sender: mpsc::Sender<Message>,
}

/// The loop is not running (any more).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent is stopping")]
pub struct Stopping;

impl Inbox {
    /// An inbox and its reading end.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (Self { sender }, receiver)
    }

    /// Puts an event in; when the loop has ended there is nobody to tell.
    pub async fn put(&self, event: Event) -> Result<(), Stopping> {
        self.sender.send(Message::Event(event)).await.map_err(|_| Stopping)
    }

    /// Puts news of what several agents share in.
    pub(crate) async fn tell(&self, news: News) -> Result<(), Stopping> {
        self.sender.send(Message::News(news)).await.map_err(|_| Stopping)
    }

    /// Gives an order and waits for the answer.
    ///
    /// # Errors
    /// [`Stopping`] when the loop is not running.
    pub async fn order(&self, order: Order) -> Result<Answer, Stopping> {
        self.ask(|reply| Message::Order(order, reply)).await
    }

    /// Everything that is known now.
    ///
    /// # Errors
    /// [`Stopping`] when the loop is not running.
    pub async fn status(&self) -> Result<Status, Stopping> {
        self.ask(Message::Status).await
    }

    /// The plan of a procedure, and how long it would take.
    ///
    /// # Errors
    /// [`Stopping`] when the loop is not running; inside, why there is no plan.
    pub async fn plan(
        &self,
        kind: Kind,
        workload: WorkloadName,
        to: Option<RegionName>,
    ) -> Result<Result<(Plan, Forecast), Reason>, Stopping> {
        self.ask(|reply| Message::Plan { kind, workload, to, reply }).await
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.sender.send(message(reply)).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }
}
