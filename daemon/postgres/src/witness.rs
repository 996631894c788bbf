//! The witness session: the one that is kept open, so that its fate proves something.
//!
//! **Invariant:** at most one request of a look is unanswered at any time, so a server that hangs is sent one,
//! not one per look.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use lifeboat_core::sighting::FailureKind;
use lifeboat_core::{Failure, Look, SystemIdentifier};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::connect::Session;
use crate::options::Options;
use crate::trouble::Trouble;

/// A look that may outlive the patience of whoever asked for it.
pub(crate) type Answer = Shared<BoxFuture<'static, Look>>;

/// The session, and what it was asked last.
#[derive(Default)]
pub(crate) struct Witness {
    kept: Mutex<Kept>,
    /// Notified once for each session that ended by itself.
    pub(crate) ended: Arc<Notify>,
}

#[derive(Default)]
struct Kept {
    session: Option<Arc<Session>>,
    unanswered: Option<Unanswered>,
}

#[derive(Clone)]
struct Unanswered {
    question: Question,
    /// It holds the session: a session whose answer never comes is closed by ending it.
    task: AbortHandle,
}

/// A look that was begun.
#[derive(Clone)]
pub(crate) struct Question {
    /// What will come of it.
    pub(crate) answer: Answer,
    /// Whether a heartbeat is written in it.
    pub(crate) writes: bool,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(unanswered) = self.unanswered.take() {
            unanswered.task.abort();
        }
    }
}

impl Witness {
    /// The session that is open, answering or not.
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        self.kept().session.clone().filter(|session| session.end().is_none())
    }

    /// The session that is open and owes no answer.
    pub(crate) fn idle(&self) -> Option<Arc<Session>> {
        if self.unanswered().is_some() { None } else { self.session() }
    }

    /// The look that is still awaited.
    pub(crate) fn unanswered(&self) -> Option<Question> {
        let kept = self.kept();
        let alive = kept.session.as_ref().is_some_and(|session| session.end().is_none());
        let question = kept.unanswered.as_ref().map(|unanswered| unanswered.question.clone());
        question.filter(|question| alive && question.answer.clone().now_or_never().is_none())
    }

    /// The cluster that was met last, also after its session has ended.
    pub(crate) fn last_system(&self) -> Option<SystemIdentifier> {
        self.kept().session.as_ref().map(|session| session.system)
    }

    /// The session, opened when there is none.
    pub(crate) async fn attend(&self, options: &Options) -> Result<Arc<Session>, Trouble> {
        if let Some(session) = self.session() {
            return Ok(session);
        }
        let session = Session::open(options, &self.ended).await?;
        Ok(self.keep(session))
    }

    /// Makes `session` the witness, in place of the one before.
    pub(crate) fn keep(&self, session: Session) -> Arc<Session> {
        let session = Arc::new(session);
        session.herald_end();
        let mut kept = self.kept();
        if let Some(unanswered) = kept.unanswered.take() {
            unanswered.task.abort();
        }
        kept.session = Some(Arc::clone(&session));
        session
    }

    /// Starts `look` in a task of its own, which goes on when nobody waits any longer.
    pub(crate) fn ask(&self, writes: bool, look: impl Future<Output = Look> + Send + 'static) -> Question {
        let task = tokio::spawn(look);
        let handle = task.abort_handle();
        let answer = async move {
            // It ends without an answer when its session was replaced, or the runtime stops.
            task.await.unwrap_or_else(|error| Err(Failure::new(FailureKind::Silent, error.to_string())))
        };
        let question = Question { answer: answer.boxed().shared(), writes };
        self.kept().unanswered = Some(Unanswered { question: question.clone(), task: handle });
        question
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
