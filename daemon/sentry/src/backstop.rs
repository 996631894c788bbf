//! The keeper's own guard: acts a moment after the switch should have, for the day the switch does not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;

use crate::boottime::Boottime;
use crate::guard::{Deed, Guard, Orders, TURN};
use crate::server::Seen;

/// How much later it acts. The margin of the lease has room for it.
const LATER: Duration = Duration::from_millis(100);

/// Deeds that are kept until they are told.
const MOST_DEEDS: usize = 32;

/// A guard in a thread of its own, which no renewal that hangs can hold up.
pub(crate) struct Backstop {
    shared: Arc<Shared>,
}

struct Shared {
    guard: Mutex<Guard>,
    deeds: Mutex<Vec<Deed>>,
    changed: Notify,
    left: AtomicBool,
}

impl Backstop {
    pub(crate) fn start(orders: &Orders) -> std::io::Result<Self> {
        let orders = Orders { allowance: orders.allowance + LATER, ..orders.clone() };
        let shared = Arc::new(Shared {
            guard: Mutex::new(Guard::start(&orders)?),
            deeds: Mutex::default(),
            changed: Notify::new(),
            left: AtomicBool::new(false),
        });
        let standing = Arc::clone(&shared);
        thread::Builder::new().name("backstop".to_owned()).spawn(move || standing.stand())?;
        Ok(Self { shared })
    }

    /// The lease is good until `deadline`.
    pub(crate) fn until(&self, deadline: Boottime, sent: Boottime) {
        self.shared.guard().post().until(deadline.plus(LATER), sent, Boottime::now());
    }

    /// The database must not go on.
    pub(crate) fn order(&self, why: String) {
        self.shared.guard().post().order(why);
    }

    /// What the server does.
    pub(crate) fn seen(&self) -> Seen {
        self.shared.guard().seen()
    }

    /// What it has done since it was asked last.
    pub(crate) fn deeds(&self) -> Vec<Deed> {
        std::mem::take(&mut *self.shared.deeds.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Resolves when the server does something else, or everything stood still.
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}

impl Drop for Backstop {
    fn drop(&mut self) {
        // A keeper that goes leaves the post to the switch.
        self.shared.left.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn guard(&self) -> std::sync::MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stand(&self) {
        let mut role = self.guard().seen().role;
        while !self.left.load(Ordering::SeqCst) {
            let (new, now) = {
                let mut guard = self.guard();
                (guard.turn(), guard.seen().role)
            };
            if now != role || !new.is_empty() {
                role = now;
                let mut deeds = self.deeds.lock().unwrap_or_else(PoisonError::into_inner);
                deeds.extend(new);
                let over = deeds.len().saturating_sub(MOST_DEEDS);
                deeds.drain(..over);
                drop(deeds);
                self.changed.notify_one();
            }
            thread::sleep(TURN);
        }
    }
}
