//! Tasks with names: when one ends, or panics, it can be said which.

use std::collections::HashMap;
use std::future::Future;

use tokio::task::{Id, JoinSet};

/// Tasks that are under way, each with its name.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, String>,
}

/// A task that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its name.
    pub(crate) name: String,
    /// What is known of its panic, when it did not end by itself.
    pub(crate) panic: Option<String>,
}

impl Tasks {
    /// Starts a task.
    pub(crate) fn start(&mut self, name: String, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// The next task that ends; none when there are none. Nothing is lost when this is dropped.
    pub(crate) async fn next(&mut self) -> Option<Ended> {
        let (id, panic) = match self.set.join_next_with_id().await? {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error.to_string())),
        };
        let name = self.names.remove(&id).unwrap_or_default();
        Some(Ended { name, panic })
    }
}
