//! Opening a primary again: the fence is taken back, and a new session commits.
//!
//! What is reset is what [`crate::fence`] sets; closing has refused to overwrite anything else. The lock goes last: a
//! read only default without it is somebody else's, and stays. The epoch beside the fence stays as well.
//!
//! **Invariant:** a fence of a newer epoch is not lifted, and no fence is lifted on a server in recovery.
//! **Invariant:** "open" means that a session which was opened after it, as any client's, has committed.

use lifeboat_core::Fault;
use lifeboat_engine::ports::Call;

use super::{Asked, in_time};
use crate::connect::Session;
use crate::fence;
use crate::member::Member;
use crate::trouble::Trouble;

/// Each by itself: ALTER SYSTEM takes no part in a transaction.
pub(crate) const RESETS: [&str; 2] =
    ["ALTER SYSTEM RESET default_transaction_read_only", "ALTER SYSTEM RESET session_preload_libraries"];

impl Member {
    /// Takes the fence back, if there is one, and proves that clients can write.
    pub(crate) async fn open(&self, call: &Call) -> Result<(), Fault> {
        let done = "opening was begun and is not proven";
        in_time(call.limit, done, &mut Asked::default(), async |asked| {
            let reached = self.reach_primary(call).await?;
            fence::not_fenced_by_a_newer(&reached.session, call.epoch).await?;
            asked.0 = true;
            lift(&reached.session).await.map_err(|trouble| asked.fault(&trouble))?;
            let opened = Session::open_as_client(&self.options, &self.witness.ended).await;
            let session = opened.map_err(|trouble| asked.fault(&trouble))?;
            self.commit(call, &session, asked).await?;
            // One that was let past the fence would remember a fence.
            self.witness.keep(session);
            Ok(())
        })
        .await
    }
}

async fn lift(session: &Session) -> Result<(), Trouble> {
    // A fence that was begun and not read yet lies in wait for the next reload: now it shows.
    fence::reload(session).await?;
    if !session.past_the_fence && !fence::is_locked(session).await? {
        return Ok(());
    }
    for reset in RESETS {
        session.batch(reset).await?;
    }
    fence::reload(session).await
}
