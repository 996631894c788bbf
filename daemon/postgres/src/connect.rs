//! Sessions: one connection to the server each, owned by a task that knows when and why it ended.
//!
//! **Invariant:** a session that is dropped closes its socket at once, whatever it was waiting for.
//! **Invariant:** a session of a pinned cluster is only ever handed out after the identity was checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lifeboat_core::sighting::FailureKind;
use lifeboat_core::{Failure, SystemIdentifier};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Error, NoTls, Row, SimpleQueryMessage};

use crate::options::{Options, Tls};
use crate::stream::{self, Allowance, Metered};
use crate::trouble::Trouble;
use crate::{password, tls};

/// The start-up option that gets us into a server we have fenced; see [`crate::fence`].
pub(crate) const PAST_THE_FENCE: &str = "-c session_preload_libraries=";

/// A logged-in connection.
pub(crate) struct Session {
    client: Client,
    allowance: Allowance,
    /// Process id of the backend that serves it.
    pub(crate) backend: i32,
    /// The cluster it belongs to.
    pub(crate) system: SystemIdentifier,
    /// Whether it was let past a fence of ours, which it found when it was opened.
    pub(crate) past_the_fence: bool,
    ended: watch::Receiver<Option<Failure>>,
    heralded: Arc<AtomicBool>,
    end_event: Arc<Notify>,
    /// Requests that were sent and not answered.
    owed: AtomicUsize,
    task: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // A session that owes nothing takes its leave by itself when its client is dropped.
        if self.owed.load(Ordering::SeqCst) > 0 {
            self.task.abort();
        }
    }
}

/// A parameter with its type, so that a query takes one round trip.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

impl Session {
    /// Logs in, also to a server that we have fenced. `end` is notified when the session ends by itself,
    /// once [`Session::herald_end`] was called.
    pub(crate) async fn open(options: &Options, end: &Arc<Notify>) -> Result<Self, Trouble> {
        match Self::open_as_client(options, end).await {
            // "could not access file": the fence's own lock. A role without the grant to pass it is told so.
            Err(error) if error.sqlstate() == Some(&SqlState::UNDEFINED_FILE) => {
                let mut session = Self::open_with(options, Some(PAST_THE_FENCE), end).await?;
                session.past_the_fence = true;
                Ok(session)
            }
            opened => opened,
        }
    }

    /// Logs in as any client would; a fence keeps it out.
    pub(crate) async fn open_as_client(options: &Options, end: &Arc<Notify>) -> Result<Self, Trouble> {
        Self::open_with(options, None, end).await
    }

    async fn open_with(options: &Options, startup: Option<&str>, end: &Arc<Notify>) -> Result<Self, Trouble> {
        let mut config = Config::new();
        config.user(&options.user).dbname(&options.dbname).application_name("lifeboat");
        if let Some(startup) = startup {
            config.options(startup);
        }
        if let Some(path) = &options.password_file {
            config.password(password::read(path).await?);
        }
        match &options.tls {
            Tls::Off => {
                config.ssl_mode(SslMode::Disable);
                let (stream, allowance) = stream::dial(&options.host, options.port).await?;
                Self::start(options, &config, NoTls, stream, allowance, end).await
            }
            Tls::VerifyFull { ca_file } => {
                config.ssl_mode(SslMode::Require);
                let mut connector = tls::connector(ca_file.as_deref()).await?;
                let (stream, allowance) = stream::dial(&options.host, options.port).await?;
                let tls = MakeTlsConnect::<Metered>::make_tls_connect(&mut connector, &options.host);
                let Ok(tls) = tls;
                Self::start(options, &config, tls, stream, allowance, end).await
            }
        }
    }

    async fn start<T>(
        options: &Options,
        config: &Config,
        tls: T,
        stream: Metered,
        allowance: Allowance,
        end: &Arc<Notify>,
    ) -> Result<Self, Trouble>
    where
        T: TlsConnect<Metered>,
        T::Stream: Send + 'static,
    {
        let (client, connection) = config.connect_raw(stream, tls).await?;
        let (tell, ended) = watch::channel(None);
        let heralded = Arc::new(AtomicBool::new(false));
        let (herald, end, end_of_herald) = (Arc::clone(&heralded), Arc::clone(end), Arc::clone(end));
        let task = tokio::spawn(async move {
            let failure = match connection.await {
                Ok(()) => Failure::new(FailureKind::Refused, "connection closed"),
                Err(error) => Trouble::from(error).failure(),
            };
            tell.send_replace(Some(failure));
            if herald.load(Ordering::SeqCst) {
                end.notify_one();
            }
        });
        let system = SystemIdentifier::new(0);
        let (backend, owed, end_event) = (0, AtomicUsize::new(0), end_of_herald);
        let past_the_fence = false;
        let mut session = Self {
            client,
            allowance,
            backend,
            system,
            past_the_fence,
            ended,
            heralded,
            end_event,
            owed,
            task,
        };
        session.introduce(options.system).await?;
        Ok(session)
    }

    async fn introduce(&mut self, pinned: Option<SystemIdentifier>) -> Result<(), Trouble> {
        let sql = "SELECT pg_backend_pid(), system_identifier FROM pg_control_system()";
        let row = self.row(sql, &[]).await?;
        self.backend = row.try_get(0)?;
        self.system = SystemIdentifier::new(row.try_get::<_, i64>(1)?.cast_unsigned());
        match pinned {
            Some(expected) if expected != self.system => {
                Err(Trouble::Stranger { found: self.system, expected })
            }
            _ => Ok(()),
        }
    }

    /// From now on the end of this session is an event.
    pub(crate) fn herald_end(&self) {
        self.heralded.store(true, Ordering::SeqCst);
        if self.end().is_some() {
            self.end_event.notify_one(); // It ended before anybody was listening.
        }
    }

    /// Why it ended, if it has.
    pub(crate) fn end(&self) -> Option<Failure> {
        self.ended.borrow().clone()
    }

    /// Runs one statement, in one round trip; outside a transaction block it commits by itself.
    pub(crate) async fn rows(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Trouble> {
        self.answered(self.client.query_typed(sql, parameters)).await
    }

    /// Runs one statement that gives one row.
    pub(crate) async fn row(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Row, Trouble> {
        let rows = self.rows(sql, parameters).await?;
        rows.into_iter().next().ok_or(Trouble::Malformed("a row was expected"))
    }

    /// Runs statements without parameters, as one transaction.
    pub(crate) async fn batch(&self, sql: &str) -> Result<(), Trouble> {
        self.answered(self.client.batch_execute(sql)).await
    }

    /// Runs a statement of somebody's own; the first column of the first row, as the server writes it.
    pub(crate) async fn first_text(&self, sql: &str) -> Result<Option<String>, Trouble> {
        let answer = self.answered(self.client.simple_query(sql)).await?;
        let row = answer.into_iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) if !row.is_empty() => Some(row),
            _ => None,
        });
        Ok(row.map(|row| row.try_get(0).map(|text| text.map(str::to_owned))).transpose()?.flatten())
    }

    async fn answered<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Trouble> {
        self.allowance.refill();
        self.owed.fetch_add(1, Ordering::SeqCst);
        let answer = request.await;
        // Not reached when the caller gives up: then it is owed for good, and the socket is closed hard.
        self.owed.fetch_sub(1, Ordering::SeqCst);
        match answer {
            Err(error) if error.is_closed() => Err(self.obituary().await),
            answer => Ok(answer?),
        }
    }

    /// Why the connection is closed: its task knows better than "closed", and says so in the next instant.
    async fn obituary(&self) -> Trouble {
        let mut ended = self.ended.clone();
        let closed = Failure::new(FailureKind::Refused, "connection closed");
        let failure = match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(closed),
            Err(_) => closed,
        };
        Trouble::Ended(failure)
    }
}
