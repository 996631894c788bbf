//! The members of etcd: one client each, and which of them is asked.
//!
//! A client over all of them goes on using one that is frozen, for every third call. Here the next member is asked when
//! one has not answered in time, and stays the first to be asked while it answers.
//!
//! **Invariant:** one member that does not answer costs a call one deadline, and the calls after it nothing.
//! **Invariant:** a password and a certificate are read from their files when they are used, and not kept.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmType, Certificate, Client, ConnectOptions, Error, GetOptions, GetResponse, Identity,
    TlsOptions, Txn, TxnResponse,
};
use tokio::sync::Mutex;

use super::trouble::Trouble;
use super::{EtcdOptions, handshake};

/// The most bytes of one answer that are taken in.
const MOST: usize = 16 * 1024 * 1024;

/// All members.
pub(super) struct Members {
    options: EtcdOptions,
    list: Vec<Member>,
    first: AtomicUsize,
}

struct Member {
    endpoint: String,
    client: Mutex<Option<Client>>,
}

/// What a call gave.
pub(super) struct Told<T> {
    pub(super) what: T,
    /// Which member said so.
    pub(super) member: usize,
    /// Another member was asked before, and may have done it too.
    pub(super) twice: bool,
}

impl Members {
    pub(super) fn new(options: EtcdOptions) -> Self {
        let member = |endpoint: &String| Member { endpoint: endpoint.clone(), client: Mutex::default() };
        let list = options.endpoints.iter().map(member).collect();
        Self { options, list, first: AtomicUsize::new(0) }
    }

    /// How long one member is waited for: what is configured, but never so long that a tenure could not be renewed
    /// in spite of one that is frozen.
    pub(super) fn deadline(&self) -> Duration {
        self.options.deadline.min(self.options.tenure_ttl / 4)
    }

    /// Asks the members in turn, until one answers.
    pub(super) async fn ask<T, F>(&self, call: impl Fn(Client) -> F) -> Result<Told<T>, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let first = self.first.load(Ordering::Relaxed);
        let mut twice = false;
        let mut worst = Trouble::Away("no endpoint is configured".to_owned());
        for member in (0..self.list.len()).map(|turn| (first + turn) % self.list.len()) {
            match self.ask_one(member, &call).await {
                Ok(what) => {
                    self.first.store(member, Ordering::Relaxed);
                    return Ok(Told { what, member, twice });
                }
                Err(Trouble::NoRoom(text)) => return Err(self.room(member, text).await),
                // The next one may do better; what matters most of all that was heard is told in the end.
                Err(Trouble::Lost(text)) => {
                    twice = true;
                    worst = Trouble::Lost(text);
                }
                Err(Trouble::Distrusted(text)) if !twice => worst = Trouble::Distrusted(text),
                Err(Trouble::Away(text)) if matches!(worst, Trouble::Away(_)) => worst = Trouble::Away(text),
                Err(Trouble::Distrusted(_) | Trouble::Away(_)) => {}
                // etcd has spoken: another member would say the same.
                Err(said) => return Err(said),
            }
        }
        Err(worst)
    }

    /// Asks one member, twice when it does not know any more who we are.
    async fn ask_one<T, F>(&self, member: usize, call: &impl Fn(Client) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let endpoint = &self.list[member].endpoint;
        let late =
            |_| Trouble::Lost(format!("{endpoint}: no answer within {} ms", self.deadline().as_millis()));
        let attempt = async {
            let (client, fresh) = self.client(member).await?;
            match call(client).await.map_err(|error| Trouble::of(endpoint, &error)) {
                Err(Trouble::Denied(_)) if !fresh && self.options.user.is_some() => {
                    self.forget(member).await;
                    let (client, _) = self.client(member).await?;
                    call(client).await.map_err(|error| Trouble::of(endpoint, &error))
                }
                answer => answer,
            }
        };
        let answer = tokio::time::timeout(self.deadline(), attempt).await.map_err(late).flatten();
        let answer = match (answer, &self.options.tls) {
            // Why it broke is not told to the client when etcd closes it, so it is looked for.
            (Err(Trouble::Cut(text)), Some(tls)) => {
                let refusal = tokio::time::timeout(self.deadline(), handshake::refusal(endpoint, tls)).await;
                Err(refusal.ok().flatten().map_or(Trouble::Lost(text), Trouble::Distrusted))
            }
            (Err(Trouble::Cut(text)), None) => Err(Trouble::Lost(text)),
            (answer, _) => answer,
        };
        if matches!(
            answer,
            Err(Trouble::Lost(_) | Trouble::Away(_) | Trouble::Distrusted(_) | Trouble::Denied(_))
        ) {
            self.forget(member).await;
        }
        answer
    }

    /// A range of keys.
    pub(super) async fn get(
        &self,
        key: impl Into<Vec<u8>>,
        options: GetOptions,
    ) -> Result<Told<GetResponse>, Trouble> {
        let key = key.into();
        self.ask(|client| {
            let (key, options) = (key.clone(), options.clone());
            async move { client.kv_client().max_decoding_message_size(MOST).get(key, Some(options)).await }
        })
        .await
    }

    /// A transaction that has the same effect when it is sent twice.
    pub(super) async fn transact(&self, txn: Txn) -> Result<Told<TxnResponse>, Trouble> {
        self.ask(|client| {
            let txn = txn.clone();
            async move { client.kv_client().max_decoding_message_size(MOST).txn(txn).await }
        })
        .await
    }

    /// Grants a lease; its name.
    pub(super) async fn grant(&self, length: Duration) -> Result<i64, Trouble> {
        let seconds = whole_seconds(length);
        let granted = self.ask(|mut client| async move { client.lease_grant(seconds, None).await }).await?;
        Ok(granted.what.id())
    }

    /// Keeps a lease; `Gone` when it is over.
    pub(super) async fn keep(&self, lease: i64) -> Result<(), Trouble> {
        self.ask(|mut client| async move { client.lease_keep_alive(lease).await.map(drop) }).await.map(drop)
    }

    /// Ends a lease, with all that is bound to it. Without a word when that fails: it ends by itself.
    pub(super) async fn revoke(&self, lease: i64) {
        let revoked = self.ask(|mut client| async move { client.lease_revoke(lease).await }).await;
        if let Err(trouble) = revoked {
            tracing::debug!(?trouble, "a lease was not given back; it ends by itself");
        }
    }

    /// The client of one member, to watch through.
    pub(super) async fn watcher(&self, member: usize) -> Result<etcd_client::WatchClient, Trouble> {
        let (client, _) = self.client(member).await?;
        Ok(client.watch_client().max_decoding_message_size(MOST))
    }

    pub(super) fn endpoint(&self, member: usize) -> &str {
        &self.list[member].endpoint
    }

    /// Does not ask that member first any more.
    pub(super) async fn avoid(&self, member: usize) {
        self.forget(member).await;
        let next = (member + 1) % self.list.len();
        let _ = self.first.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether there is no room because the space is used up. etcd answers with one code for that and for too many
    /// requests at once; its alarms tell which.
    async fn room(&self, member: usize, text: String) -> Trouble {
        let call = |mut client: Client| async move {
            client.alarm(AlarmAction::Get, AlarmType::Nospace, None).await
        };
        match self.ask_one(member, &call).await {
            Ok(alarms) if alarms.alarms().is_empty() => Trouble::NoRoom(text),
            _ => Trouble::Full(text),
        }
    }

    async fn forget(&self, member: usize) {
        // Whoever connects at this moment makes a new one anyway.
        if let Ok(mut client) = self.list[member].client.try_lock() {
            *client = None;
        }
    }

    /// The client of a member, and whether it was made just now.
    async fn client(&self, member: usize) -> Result<(Client, bool), Trouble> {
        let Member { endpoint, client } = &self.list[member];
        let mut kept = client.lock().await;
        if let Some(client) = &*kept {
            return Ok((client.clone(), false));
        }
        let options = self.connect_options().await?;
        let made = Client::connect([endpoint], Some(options)).await;
        let made = made.map_err(|error| Trouble::of_login(endpoint, &error))?;
        *kept = Some(made.clone());
        Ok((made, true))
    }

    async fn connect_options(&self) -> Result<ConnectOptions, Trouble> {
        // A member without a leader says so at once, and ends a watch, instead of keeping silent.
        let mut options =
            ConnectOptions::new().with_require_leader(true).with_connect_timeout(self.deadline());
        if let Some(tls) = &self.options.tls {
            let ca = Certificate::from_pem(read(&tls.ca_file).await?);
            let mut config = TlsOptions::new().ca_certificate(ca);
            if let (Some(certificate), Some(key)) = (&tls.cert_file, &tls.key_file) {
                config = config.identity(Identity::from_pem(read(certificate).await?, read(key).await?));
            }
            options = options.with_tls(config);
        }
        if let Some(user) = &self.options.user {
            let password = read(&user.password_file).await?;
            let password = String::from_utf8_lossy(&password);
            options = options.with_user(&user.name, password.trim_end_matches(['\r', '\n']));
        }
        Ok(options)
    }
}

/// The length of a lease as etcd counts it: whole seconds, not less than was asked for.
pub(super) fn whole_seconds(length: Duration) -> i64 {
    let seconds = length.as_secs() + u64::from(length.subsec_nanos() > 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

async fn read(path: &Path) -> Result<Vec<u8>, Trouble> {
    // Not being able to show who we are is a refusal before the fact.
    let failed = |error| Trouble::Denied(format!("cannot read {}: {error}", path.display()));
    tokio::fs::read(path).await.map_err(failed)
}
