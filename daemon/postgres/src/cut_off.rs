//! Cutting an old primary off: the only standby whose word it waits for stops receiving from it.
//!
//! A primary that waits for one synchronous standby acknowledges no commit once that standby is silent for good: so a
//! standby that can be reached fences a primary that cannot. `primary_conninfo` is emptied with ALTER SYSTEM and a reload
//! (PostgreSQL 13 and later take it in without a restart): the startup process ends the receiver and starts no other, now and
//! after a restart. What the receiver flushed last is the end of all that can ever have been acknowledged.
//!
//! That each commit waits for this standby is not asked here: it was seen before, in the last look at the primary, no
//! longer before the trouble than a testimony is fresh. What that look cannot see: a session that sets a lower
//! `synchronous_commit` itself, settings changed at the primary since, and a wait that is cancelled there.
//!
//! Whom it followed is kept in the setting `lifeboat.former_conninfo`, without a password, for any session can show it. A
//! standby whose promotion never comes is put back by hand:
//!
//! ```sql
//! SHOW lifeboat.former_conninfo;
//! ALTER SYSTEM RESET primary_conninfo;                    -- where it was in postgresql.conf, or else
//! ALTER SYSTEM SET primary_conninfo = '...';              -- as shown, with the password if there was one
//! SELECT pg_reload_conf();
//! ```
//!
//! **Invariant:** only a standby is touched, and none that has seen a newer epoch.
//! **Invariant:** "cut off" is said only of a server that has read the setting, and had no receiver at any of many looks since.

use std::time::Duration;

use lifeboat_core::outcome::{FenceProof, LogPosition};
use lifeboat_core::{Fault, Lsn};
use lifeboat_engine::ports::Call;
use tokio_postgres::error::SqlState;

use crate::connect::Session;
use crate::fence::reload;
use crate::member::Member;
use crate::planned::{Asked, in_time, refused, replays_on};
use crate::sample::Sample;
use crate::trouble::Trouble;

/// Between two looks at the receiver.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks in a row without a receiver, all with the same end of the log. The startup process is signalled in the same
/// instant as the session that has read the setting; one that was about to start a receiver ends it when it comes to
/// the signal. 100 ms, for a busy machine wakes it late.
const QUIET_LOOKS: u32 = 20;

/// The first version that changes its upstream without a restart.
const OLDEST: i32 = 130_000;

/// Whom it follows. Seen with `pg_read_all_settings`.
const UPSTREAM: &str = "SELECT current_setting('server_version_num')::int AS version,
 current_setting('primary_conninfo') AS conninfo";

/// The receiver, also one that is only connecting, and where what it received ends.
const RECEIVER: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver')
   OR EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL) AS receives,
 pg_is_in_recovery() AS standby, coalesce(pg_last_wal_receive_lsn(), '0/0')::text AS received,
 current_setting('primary_conninfo') = '' AS emptied";

const EMPTY: &str = "ALTER SYSTEM SET primary_conninfo = ''";

impl Member {
    /// Stops receiving for good, and says where what was received ends.
    pub(crate) async fn cut_off(&self, call: &Call) -> Result<FenceProof, Fault> {
        let done = "it was told to stop receiving, and has not been seen to";
        in_time(call.limit, done, &mut Asked::default(), async |asked| {
            let reached = self.reach_for(call).await?;
            let (session, before) = (reached.session, reached.sample);
            if !before.standby {
                return Err(refused("it is a primary: there is nobody it could be cut off from"));
            }
            let upstream = self.upstream(&session).await?;
            if !upstream.is_empty() {
                asked.0 = true;
                self.let_go(&session, &upstream).await.map_err(|trouble| asked.fault(&trouble))?;
            }
            // Also when it was emptied before: whoever did may not have come to the reload.
            reload(&session).await.map_err(|trouble| asked.fault(&trouble))?;
            quiet(&session, asked).await?;
            let sample =
                Sample::read(&session, &call.agent).await.map_err(|trouble| asked.fault(&trouble))?;
            if !sample.standby {
                return Err(refused("it has been promoted meanwhile"));
            }
            let timeline = replays_on(&session, &sample).await.map_err(|trouble| asked.fault(&trouble))?;
            let standby = if upstream.is_empty() { former_name(&session).await } else { Ok(None) };
            let standby = standby.map_err(|trouble| asked.fault(&trouble))?;
            let standby = standby.unwrap_or_else(|| before.name().to_owned());
            let end = LogPosition { system: sample.system, timeline, lsn: sample.received() };
            Ok(FenceProof::CutOff { standby, end })
        })
        .await
    }

    async fn upstream(&self, session: &Session) -> Result<String, Fault> {
        let row = match session.row(UPSTREAM, &[]).await {
            Err(trouble) if trouble.sqlstate() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                let user = &self.options.user;
                return Err(refused(format!(
                    "this role may not see whom it follows: GRANT pg_monitor TO {user}"
                )));
            }
            row => row.map_err(|trouble| trouble.fault())?,
        };
        let column = |error: tokio_postgres::Error| Trouble::from(error).fault();
        let version: i32 = row.try_get("version").map_err(column)?;
        if version < OLDEST {
            return Err(refused("before PostgreSQL 13 a standby cannot stop receiving without a restart"));
        }
        self.may_be_let_go(session).await?;
        row.try_get("conninfo").map_err(column)
    }

    /// Refuses, while nothing is touched, a role that could not do the whole.
    async fn may_be_let_go(&self, session: &Session) -> Result<(), Fault> {
        let row = session.row(LACKS, &[]).await.map_err(|trouble| trouble.fault())?;
        let held: bool = row.try_get(0).map_err(|error| Trouble::from(error).fault())?;
        if held {
            return Ok(());
        }
        let user = &self.options.user;
        Err(refused(format!(
            "this role may not stop it from receiving: GRANT ALTER SYSTEM ON PARAMETER primary_conninfo TO {user}; \
             GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {user}; GRANT pg_monitor TO {user}"
        )))
    }

    async fn let_go(&self, session: &Session, upstream: &str) -> Result<(), Trouble> {
        let kept = quoted(&without_password(upstream));
        // A setting of our own must be known to the session before it can be made.
        let remembered = async {
            session.batch(&format!("SET lifeboat.former_conninfo = {kept}")).await?;
            session.batch(&format!("ALTER SYSTEM SET lifeboat.former_conninfo = {kept}")).await?;
            session.batch("RESET lifeboat.former_conninfo").await
        };
        match remembered.await {
            // It helps a person afterwards; the fence does not depend on it.
            Err(trouble) if trouble.sqlstate() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                let user = &self.options.user;
                tracing::warn!(region = %self.options.region,
                    "whom it followed is not kept: GRANT ALTER SYSTEM ON PARAMETER \"lifeboat.former_conninfo\" TO {user}");
            }
            result => result?,
        }
        session.batch(EMPTY).await
    }
}

/// Whether the role may do all of it; before PostgreSQL 15 only a superuser may.
const LACKS: &str = "SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
 OR (pg_has_role('pg_read_all_stats', 'USAGE') AND has_function_privilege('pg_reload_conf()', 'EXECUTE')
   AND CASE WHEN current_setting('server_version_num')::int >= 150000
     THEN has_parameter_privilege('primary_conninfo', 'ALTER SYSTEM') ELSE false END)";

/// What it called itself there, when it followed.
const FORMER_NAME: &str = r"SELECT substring(current_setting('lifeboat.former_conninfo', true)
 from '(?:^|\s)application_name=''?([^''\s]+)')";

async fn former_name(session: &Session) -> Result<Option<String>, Trouble> {
    Ok(session.row(FORMER_NAME, &[]).await?.try_get(0)?)
}

/// Waits until there has been no receiver for many looks in a row, with one end of the log.
async fn quiet(session: &Session, asked: &Asked) -> Result<(), Fault> {
    let (mut looks, mut end) = (0, Lsn::default());
    while looks < QUIET_LOOKS {
        let (quiet, received) = look(session).await.map_err(|trouble| asked.fault(&trouble))?;
        looks = if quiet && received == end { looks + 1 } else { 0 };
        end = received;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn look(session: &Session) -> Result<(bool, Lsn), Trouble> {
    let row = session.row(RECEIVER, &[]).await?;
    let flag = |name: &str| row.try_get::<_, bool>(name);
    let quiet = !flag("receives")? && flag("standby")? && flag("emptied")?;
    let received = Lsn::parse(row.try_get("received")?).ok_or(Trouble::Malformed("not a log position"))?;
    Ok((quiet, received))
}

/// A string constant of SQL, whatever `standard_conforming_strings` says.
fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A connection string without its passwords, as libpq reads it: words with `=`, values quoted with `'`, or a URI.
fn without_password(conninfo: &str) -> String {
    if conninfo.contains("://") {
        // A URI may hold it in two places; which host it was is in what remains.
        let (scheme, rest) = conninfo.split_once("://").unwrap_or_default();
        let (place, options) = rest.split_once('?').map_or((rest, None), |(place, all)| (place, Some(all)));
        let place = match place.rsplit_once('@') {
            Some((login, host)) => format!("{}@{host}", login.split(':').next().unwrap_or_default()),
            None => place.to_owned(),
        };
        let kept: Vec<&str> =
            options.into_iter().flat_map(|all| all.split('&')).filter(|o| !secret(o)).collect();
        let mark = if kept.is_empty() { "" } else { "?" };
        return format!("{scheme}://{place}{mark}{}", kept.join("&"));
    }
    words(conninfo).into_iter().filter(|word| !secret(word)).collect::<Vec<_>>().join(" ")
}

fn secret(option: &str) -> bool {
    let name = option.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
    name == "password" || name == "sslpassword"
}

/// `name = 'value'`, each as one word.
fn words(conninfo: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), conninfo.trim());
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let mut end = after.len();
        let (mut inside, mut escaped) = (after.starts_with('\''), false);
        for (at, c) in after.char_indices().skip(usize::from(inside)) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '\'' if inside => inside = false,
                c if c.is_whitespace() && !inside => {
                    end = at;
                    break;
                }
                _ => {}
            }
        }
        let (value, next) = after.split_at(end);
        words.push(format!("{}={value}", name.trim()));
        rest = next.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_kept() {
        for (conninfo, kept) in [
            ("host=db user=r password=secret port=5432", "host=db user=r port=5432"),
            ("host = 'a b'  password = 'it\\'s a = b' user=r", "host='a b' user=r"),
            ("PASSWORD=x", ""),
            ("passfile=/p host=db sslpassword=y", "passfile=/p host=db"),
            ("", ""),
            (
                "postgresql://r:secret@db:5432/x?sslmode=require&password=z",
                "postgresql://r@db:5432/x?sslmode=require",
            ),
            ("postgres://db/x?password=z", "postgres://db/x"),
        ] {
            assert_eq!(without_password(conninfo), kept, "{conninfo}");
        }
        assert_eq!(quoted("a'b\\c"), "E'a''b\\\\c'");
    }
}
