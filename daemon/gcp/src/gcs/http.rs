//! One question, one answer: connections that are kept, time-outs, a small number of attempts, and who we are.
//!
//! **Invariant:** no more of an answer is read than was asked for.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lifeboat_engine::ports::StoreError;

use super::account::Account;
use super::fault;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take to begin, and to go on.
pub(super) const ANSWER: Duration = Duration::from_secs(20);
/// The same for what carries content: eight megabytes over a line of half a megabit a second.
pub(super) const CONTENT: Duration = Duration::from_secs(130);
/// So often is it asked, in all.
pub(super) const ATTEMPTS: u32 = 4;
/// The pause before the second attempt; each next one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);
/// Of an answer that says what went wrong, so much is read.
const ERROR: usize = 64 << 10;

/// What is asked.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) address: String,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Bytes,
    /// The longest answer, in bytes.
    pub(super) most: usize,
    pub(super) limit: Duration,
}

impl Ask {
    pub(super) fn get(address: String, most: usize) -> Self {
        Self { method: Method::GET, address, headers: Vec::new(), body: Bytes::new(), most, limit: ANSWER }
    }
}

/// What is answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The connections.
pub(super) type Wire = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The client.
pub(super) struct Http {
    wire: Wire,
    account: Account,
}

impl Http {
    pub(super) fn new(account: Account) -> Result<Self, StoreError> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider)
            .map_err(|error| StoreError::Unusable(format!("the system's trust anchors: {error}")))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let wire = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self { wire, account })
    }

    /// Asks, again when it may pass; the answer may still say that it went wrong.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Answer, StoreError> {
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            match self.once(ask).await {
                Ok(answer) if !fault::of(&answer).passing() || answer.status < 400 => return Ok(answer),
                Err(error) if !error.passing() => return Err(error),
                _ => {}
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.once(ask).await
    }

    /// Asks once; twice, when the token is taken for an old one.
    pub(super) async fn once(&self, ask: &Ask) -> Result<Answer, StoreError> {
        let Some(token) = self.account.token(&self.wire).await? else {
            return send(&self.wire, ask, None).await;
        };
        let answer = send(&self.wire, ask, Some(&token)).await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        self.account.forget(&token).await;
        let fresh = self.account.token(&self.wire).await?;
        send(&self.wire, ask, fresh.as_deref()).await
    }
}

/// Sends, and reads the answer.
pub(super) async fn send(wire: &Wire, ask: &Ask, token: Option<&str>) -> Result<Answer, StoreError> {
    let unusable = |what: &str| StoreError::Unusable(format!("{what} cannot be asked"));
    let mut request = Request::builder().method(ask.method.clone()).uri(&ask.address);
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    if ask.method != Method::GET {
        request = request.header(header::CONTENT_LENGTH, ask.body.len());
    }
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| unusable("a token"))?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    let request = request.body(Full::new(ask.body.clone())).map_err(|_| unusable("this"))?;
    let gone = |what: String| StoreError::Unreachable(what);
    let answer = tokio::time::timeout(ask.limit, wire.request(request)).await;
    let answer = answer
        .map_err(|_| gone("no answer came".to_owned()))?
        .map_err(|error| gone(format!("no answer: {}", causes(&error))))?;
    let (head, mut body) = answer.into_parts();
    let status = head.status.as_u16();
    let most = if head.status.is_success() { ask.most } else { ERROR };
    let mut read = BytesMut::new();
    loop {
        let next = tokio::time::timeout(ANSWER, body.frame()).await;
        let next = next.map_err(|_| gone("the answer stopped".to_owned()))?;
        match next {
            None => break,
            Some(Err(error)) => return Err(gone(format!("the answer broke off: {}", causes(&error)))),
            Some(Ok(frame)) => {
                let Ok(part) = frame.into_data() else { continue };
                if read.len() + part.len() > most {
                    if head.status.is_success() {
                        return Err(StoreError::Unusable("more was sent than asked for".to_owned()));
                    }
                    break;
                }
                read.extend_from_slice(&part);
            }
        }
    }
    Ok(Answer { status, headers: head.headers, body: read.freeze() })
}

fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
