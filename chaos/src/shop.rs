//! The shop: a small HTTP service in each region, over its own region's database.
//!
//! `GET /health` answers 200 "ok" when the database answers and takes writes: in the standby's region that is
//! 503 until the promotion. It asks the database for its role and commits nothing, as most health checks in
//! the field, so a server that can no longer commit still looks well to it.
//! `POST /orders` (the order's id as the body, at most 100 bytes) answers 201 after the commit, never before;
//! 200 when that order was there already.
//!
//! **Invariant:** an answer of 201 means that the row's commit was acknowledged by PostgreSQL.
//! **Invariant:** at most [`SESSIONS`] + 1 sessions, also when commits hang: then orders wait, and are refused.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_postgres::{Client, Config, NoTls, Statement};

use crate::region::Region;

/// Sessions for orders. 100 orders a second of a few milliseconds each need one; 16 leave room for a slow disk.
const SESSIONS: usize = 16;
/// How long an order waits for a session, and a health check for its answer.
const PATIENCE: Duration = Duration::from_millis(900);
/// The header that says which region answered.
pub const REGION_HEADER: &str = "x-region";

/// What a shop is told.
#[derive(Clone, Debug)]
pub struct ShopOptions {
    /// Its region.
    pub region: Region,
    /// Where it listens.
    pub listen: SocketAddr,
    /// How it reaches its database.
    pub database: Config,
}

/// Serves until the process ends.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(options: ShopOptions) -> std::io::Result<()> {
    let listener = TcpListener::bind(options.listen).await?;
    let shop = Arc::new(Shop {
        region: options.region,
        database: options.database,
        idle: Mutex::new(Vec::new()),
        places: Arc::new(Semaphore::new(SESSIONS)),
        checker: tokio::sync::Mutex::new(None),
    });
    let router = Router::new()
        .route("/health", get(health))
        .route("/orders", post(order))
        .layer(DefaultBodyLimit::max(100))
        .with_state(shop);
    axum::serve(tokio_listener(listener), router).await
}

/// Answers are a few bytes: without this they would wait for the client's acknowledgement.
fn tokio_listener(listener: TcpListener) -> impl axum::serve::Listener<Addr = SocketAddr> {
    use axum::serve::ListenerExt;
    listener.tap_io(|stream| {
        // Refused only for a socket that is closed already.
        let _ = stream.set_nodelay(true);
    })
}

struct Session {
    client: Client,
    insert: Statement,
}

struct Shop {
    region: Region,
    database: Config,
    idle: Mutex<Vec<Session>>,
    places: Arc<Semaphore>,
    checker: tokio::sync::Mutex<Option<Client>>,
}

type Answer = (StatusCode, [(&'static str, &'static str); 1], &'static str);

impl Shop {
    fn answer(&self, status: StatusCode, body: &'static str) -> Answer {
        (status, [(REGION_HEADER, self.region.name())], body)
    }

    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.database.connect(NoTls).await?;
        // The session's end is seen by whoever uses the client next.
        tokio::spawn(async move { connection.await.ok() });
        Ok(client)
    }

    async fn session(&self) -> Result<Session, tokio_postgres::Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(session) if !session.client.is_closed() => Ok(session),
            _ => {
                let client = self.connect().await?;
                let sql = "INSERT INTO orders (id, sent_ms, region) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING";
                let insert = client.prepare(sql).await?;
                Ok(Session { client, insert })
            }
        }
    }

    async fn insert(&self, id: &str) -> Result<u64, tokio_postgres::Error> {
        let session = self.session().await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let rows = session.client.execute(&session.insert, &[&id, &now, &self.region.name()]).await?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        Ok(rows)
    }

    async fn writable(&self) -> Result<bool, tokio_postgres::Error> {
        let mut checker = self.checker.lock().await;
        // Taken out, so that a check that was given up leaves no half-read session behind.
        let client = match checker.take() {
            Some(client) if !client.is_closed() => client,
            _ => self.connect().await?,
        };
        let sql = "SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'";
        let writable = client.query_one(sql, &[]).await?.get(0);
        *checker = Some(client);
        Ok(writable)
    }
}

async fn health(State(shop): State<Arc<Shop>>) -> Answer {
    match tokio::time::timeout(PATIENCE, shop.writable()).await {
        Ok(Ok(true)) => shop.answer(StatusCode::OK, "ok"),
        Ok(Ok(false)) => shop.answer(StatusCode::SERVICE_UNAVAILABLE, "read only"),
        Ok(Err(_)) => shop.answer(StatusCode::SERVICE_UNAVAILABLE, "no database"),
        Err(_) => shop.answer(StatusCode::SERVICE_UNAVAILABLE, "database silent"),
    }
}

async fn order(State(shop): State<Arc<Shop>>, id: String) -> Answer {
    if id.is_empty() {
        return shop.answer(StatusCode::BAD_REQUEST, "an order has an id");
    }
    let place = tokio::time::timeout(PATIENCE, Arc::clone(&shop.places).acquire_owned()).await;
    let Ok(Ok(place)) = place else { return shop.answer(StatusCode::SERVICE_UNAVAILABLE, "busy") };
    // A task of its own: a client that gives up must not free the place while its commit still hangs, or
    // hanging commits would take every session the server has.
    let work = tokio::spawn({
        let shop = Arc::clone(&shop);
        async move {
            let _place = place;
            shop.insert(&id).await
        }
    });
    match work.await {
        Ok(Ok(0)) => shop.answer(StatusCode::OK, "known"),
        Ok(Ok(_)) => shop.answer(StatusCode::CREATED, "created"),
        _ => shop.answer(StatusCode::SERVICE_UNAVAILABLE, "not taken"),
    }
}
