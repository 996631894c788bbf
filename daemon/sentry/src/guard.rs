//! One who stands by the server, every 10 ms: looks at the clock, and stops the server when its time is over.
//!
//! The switch is one. The keeper has another one, a little later, for the day the switch does not act.
//!
//! **Invariant:** a turn that finds the time over stops the server before anything else is done.

use std::time::Duration;

use lifeboat_core::head::Guarded;
use serde::{Deserialize, Serialize};

use crate::boottime::{self, Boottime};
use crate::post::Post;
use crate::server::{Lookout, Seen, Server};
use crate::stop::{Order, Pass, Stop};

/// Between two turns.
pub(crate) const TURN: Duration = Duration::from_millis(10);

/// What a guard needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    /// The server.
    pub(crate) server: Server,
    /// How long a primary that has never had a lease may go on.
    pub(crate) allowance: Duration,
    /// How it is stopped, when not by signals.
    pub(crate) stop: Option<Order>,
}

/// What a guard has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Deed {
    /// It has begun to stop the server.
    Begun {
        /// Why.
        cause: String,
    },
    /// No process of the server is left.
    Stopped {
        /// Why it was stopped.
        cause: String,
        /// How long that took, in milliseconds.
        took_ms: u64,
        /// What went wrong with the operator's command.
        trouble: Option<String>,
    },
    /// The machine has slept, in milliseconds.
    Slept {
        /// For so long.
        ms: u64,
    },
    /// Everything stood still; a renewal sent from now on is wanted.
    Froze,
}

/// One guard.
#[derive(Debug)]
pub(crate) struct Guard {
    post: Post,
    lookout: Lookout,
    stop: Option<Order>,
    stopping: Option<(Stop, String)>,
    /// Until the lookout has looked again, the server is what the stop has left.
    stopped_at: Option<Boottime>,
    slept: Duration,
    doubted: bool,
}

impl Guard {
    /// Takes up the post.
    ///
    /// # Errors
    /// The thread that looks cannot be started.
    pub(crate) fn start(orders: &Orders) -> std::io::Result<Self> {
        Ok(Self {
            post: Post::new(orders.allowance),
            lookout: Lookout::start(orders.server.clone())?,
            stop: orders.stop.clone(),
            stopping: None,
            stopped_at: None,
            slept: boottime::slept(),
            doubted: false,
        })
    }

    /// What is known of the lease.
    pub(crate) fn post(&mut self) -> &mut Post {
        &mut self.post
    }

    /// What the server does.
    pub(crate) fn seen(&self) -> Seen {
        let seen = self.lookout.seen();
        match self.stopped_at {
            Some(at) if seen.at <= at => Seen { role: Guarded::Stopped, ..seen },
            _ => seen,
        }
    }

    /// One turn.
    pub(crate) fn turn(&mut self) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let seen = self.seen();
        let cause = self.post.turn(Boottime::now(), seen.role);
        if let Some(cause) = cause
            && self.stopping.is_none()
        {
            let stop = Stop::begin(self.stop.as_ref(), Boottime::now());
            self.stopping = Some((stop, cause.to_string()));
            deeds.push(Deed::Begun { cause: cause.to_string() });
        }
        if seen.role == Guarded::Following {
            // What was to be stopped is gone, and another one stands in its place.
            self.stopping = None;
        }
        if let Some((stop, _)) = &mut self.stopping
            && let Pass::Gone(took) = stop.pass(&seen, Boottime::now())
        {
            self.stopped_at = Some(Boottime::now());
            if let Some((mut stop, cause)) = self.stopping.take() {
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                deeds.push(Deed::Stopped { cause, took_ms, trouble: stop.trouble.take() });
            }
        }
        deeds.extend(self.stood_still());
        deeds
    }

    fn stood_still(&mut self) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let slept = boottime::slept();
        let more = slept.saturating_sub(self.slept);
        if more > TURN {
            deeds.push(Deed::Slept { ms: u64::try_from(more.as_millis()).unwrap_or(u64::MAX) });
        }
        self.slept = slept;
        if self.post.doubts() && !self.doubted {
            deeds.push(Deed::Froze);
        }
        self.doubted = self.post.doubts();
        deeds
    }
}
