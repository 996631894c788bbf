//! A strict double of what is used of Cloud Storage's JSON interface, of the token endpoint and of the metadata server,
//! after their published descriptions. What is not described is refused with 400, so that a mistake does not pass.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

pub(crate) const BUCKET: &str = "archive";
/// Parts of an upload that goes on are multiples of this.
const GRAIN: usize = 256 << 10;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// It is answered with that status, and that reason.
    Answer(u16, &'static str),
    /// It is done, and answered with 503.
    LoseAnswer,
    /// Of a part, one grain is taken.
    TakeLittle,
    /// Half of the answer is sent.
    CutAnswer,
}

/// The double; it ends when dropped.
pub(crate) struct Double {
    pub(crate) port: u16,
    room: Arc<Mutex<Room>>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
pub(crate) struct Room {
    objects: BTreeMap<String, Object>,
    sessions: BTreeMap<u64, Session>,
    count: u64,
    orders: VecDeque<(&'static str, Order)>,
    seen: Vec<String>,
    /// Writes are taken whatever their condition is.
    pub(crate) unconditional: bool,
    /// Who may sign for a token: its email, and its public key.
    pub(crate) account: Option<(String, Vec<u8>)>,
    /// The instance has an account.
    pub(crate) instance: bool,
    /// How long tokens live, in seconds.
    pub(crate) life: u64,
    /// Tokens that are taken, and until when.
    tokens: BTreeMap<String, Instant>,
    pub(crate) given_out: usize,
    /// How long the token before it had to live when another one was fetched, each time.
    pub(crate) left_to_live: Vec<Duration>,
}

struct Object {
    content: Vec<u8>,
    metadata: Value,
}

struct Session {
    key: String,
    metadata: Value,
    content: Vec<u8>,
}

type Answer = Result<Response, Refusal>;

struct Refusal(u16, &'static str);

impl Double {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let room = Arc::new(Mutex::new(Room { life: 3600, ..Room::default() }));
        let app = Router::new().fallback(serve).with_state((room.clone(), port));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.expect("served") });
        Self { port, room, serving }
    }

    pub(crate) fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().expect("whole")
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What becomes of the next requests whose method and path begin so.
    pub(crate) fn order(&self, begins: &'static str, orders: &[Order]) {
        self.room().orders.extend(orders.iter().map(|order| (begins, *order)));
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Room {
    pub(crate) fn left(&self) -> usize {
        self.orders.len()
    }

    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn seen(&self, begins: &str) -> usize {
        self.seen.iter().filter(|line| line.starts_with(begins)).count()
    }

    /// No token that was given out is taken any more.
    pub(crate) fn revoke(&mut self) {
        self.tokens.clear();
    }

    fn give_out(&mut self) -> Response {
        let now = Instant::now();
        if let Some(until) = self.tokens.get(&format!("token-{}", self.given_out)) {
            self.left_to_live.push(until.saturating_duration_since(now));
        }
        self.given_out += 1;
        let token = format!("token-{}", self.given_out);
        self.tokens.insert(token.clone(), now + Duration::from_secs(self.life));
        said(200, &json!({ "access_token": token, "expires_in": self.life, "token_type": "Bearer" }))
    }

    fn may(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.account.is_none() && !self.instance {
            return Ok(());
        }
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match shown.and_then(|value| value.strip_prefix("Bearer ")) {
            Some(token) if self.tokens.get(token).is_some_and(|until| Instant::now() < *until) => Ok(()),
            _ => Err(Refusal(401, "authError")),
        }
    }

    fn keep(&mut self, key: String, content: Vec<u8>, metadata: Value) -> Answer {
        if self.objects.contains_key(&key) && !self.unconditional {
            return Err(Refusal(412, "conditionNotMet"));
        }
        let about = described(&key, &content, &metadata);
        self.objects.insert(key, Object { content, metadata });
        Ok(said(200, &about))
    }

    /// `POST /upload/storage/v1/b/BUCKET/o`.
    fn begin(&mut self, port: u16, asked: &Asked) -> Answer {
        only(asked, &["uploadType", "ifGenerationMatch", "name"])?;
        let key = asked.query.get("name").ok_or(Refusal(400, "required"))?.clone();
        if asked.query.get("ifGenerationMatch").map(String::as_str) != Some("0") {
            return Err(Refusal(400, "a write without a condition"));
        }
        match asked.query.get("uploadType").map(String::as_str) {
            Some("multipart") => {
                let (about, content) = parts(asked).ok_or(Refusal(400, "badContent"))?;
                self.keep(key, content, about["metadata"].clone())
            }
            Some("resumable") => {
                if self.objects.contains_key(&key) && !self.unconditional {
                    return Err(Refusal(412, "conditionNotMet"));
                }
                let about: Value =
                    serde_json::from_slice(&asked.body).map_err(|_| Refusal(400, "parseError"))?;
                self.count += 1;
                let session = Session { key, metadata: about["metadata"].clone(), content: Vec::new() };
                self.sessions.insert(self.count, session);
                let place = format!(
                    "http://127.0.0.1:{port}/upload/storage/v1/b/{BUCKET}/o?uploadType=resumable&upload_id={}",
                    self.count
                );
                Ok(Response::builder()
                    .header(header::LOCATION, place)
                    .body(Body::empty())
                    .expect("an answer"))
            }
            _ => Err(Refusal(400, "invalid")),
        }
    }

    /// `PUT` to an upload's own address.
    fn go_on(&mut self, asked: &Asked, order: Option<Order>) -> Answer {
        only(asked, &["uploadType", "upload_id"])?;
        let id: u64 =
            asked.query.get("upload_id").and_then(|id| id.parse().ok()).ok_or(Refusal(400, "invalid"))?;
        let session = self.sessions.get_mut(&id).ok_or(Refusal(404, "notFound"))?;
        let range = asked.headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let (range, total) =
            range.and_then(|r| r.strip_prefix("bytes ")?.split_once('/')).ok_or(Refusal(400, "badRange"))?;
        let total: Option<usize> = match total {
            "*" => None,
            total => Some(total.parse().map_err(|_| Refusal(400, "badRange"))?),
        };
        if range != "*" {
            let (from, last) = range
                .split_once('-')
                .and_then(|(from, last)| Some((from.parse::<usize>().ok()?, last.parse::<usize>().ok()?)))
                .ok_or(Refusal(400, "badRange"))?;
            if from != session.content.len() || last + 1 - from != asked.body.len() {
                return Err(Refusal(400, "a part that does not follow"));
            }
            if total.is_none() && !asked.body.len().is_multiple_of(GRAIN) {
                return Err(Refusal(400, "a part of a wrong length"));
            }
            let taken = if order == Some(Order::TakeLittle) { GRAIN } else { asked.body.len() };
            session.content.extend_from_slice(&asked.body[..taken.min(asked.body.len())]);
        } else if !asked.body.is_empty() {
            return Err(Refusal(400, "badRange"));
        }
        if total == Some(session.content.len()) {
            let session = self.sessions.remove(&id).expect("it was there");
            // One that is refused can be asked again, with the same answer.
            if self.objects.contains_key(&session.key) && !self.unconditional {
                let mine = self.objects[&session.key].metadata == session.metadata;
                self.sessions.insert(id, session);
                return if mine { Ok(said(200, &json!({}))) } else { Err(Refusal(412, "conditionNotMet")) };
            }
            let (key, metadata) = (session.key.clone(), session.metadata.clone());
            return self.keep(key, session.content, metadata);
        }
        let mut answer = Response::builder().status(308);
        if !session.content.is_empty() {
            answer = answer.header(header::RANGE, format!("bytes=0-{}", session.content.len() - 1));
        }
        Ok(answer.body(Body::empty()).expect("an answer"))
    }

    fn list(&self, asked: &Asked) -> Answer {
        /// Few, so that whoever forgets to ask on is found out.
        const PAGE: usize = 300;
        only(asked, &["fields", "prefix", "startOffset", "pageToken"])?;
        let text = |name: &str| asked.query.get(name).map_or("", String::as_str);
        let wanted: Vec<&String> = self
            .objects
            .keys()
            .filter(|key| key.starts_with(text("prefix")) && key.as_str() >= text("startOffset"))
            .filter(|key| key.as_str() > text("pageToken"))
            .collect();
        let items: Vec<Value> = wanted
            .iter()
            .take(PAGE)
            .map(|key| described(key, &self.objects[*key].content, &self.objects[*key].metadata))
            .collect();
        let mut page = json!({ "kind": "storage#objects" });
        if !items.is_empty() {
            page["items"] = items.into();
        }
        if wanted.len() > PAGE {
            page["nextPageToken"] = wanted[PAGE - 1].as_str().into();
        }
        Ok(said(200, &page))
    }

    fn object(&mut self, asked: &Asked, key: &str) -> Answer {
        only(asked, &["fields", "alt"])?;
        if asked.method == Method::DELETE {
            return match self.objects.remove(key) {
                Some(_) => Ok(Response::builder().status(204).body(Body::empty()).expect("an answer")),
                None => Err(Refusal(404, "notFound")),
            };
        }
        let object = self.objects.get(key).ok_or(Refusal(404, "notFound"))?;
        if asked.query.get("alt").map(String::as_str) != Some("media") {
            return Ok(said(200, &described(key, &object.content, &object.metadata)));
        }
        let range = asked.headers.get(header::RANGE).and_then(|value| value.to_str().ok());
        let (from, last) = range
            .and_then(|range| range.strip_prefix("bytes=")?.split_once('-'))
            .and_then(|(from, last)| Some((from.parse::<usize>().ok()?, last.parse::<usize>().ok()?)))
            .ok_or(Refusal(400, "badRange"))?;
        if from >= object.content.len() {
            return Err(Refusal(416, "requestedRangeNotSatisfiable"));
        }
        let content = object.content[from..=last.min(object.content.len() - 1)].to_vec();
        Ok(Response::builder().status(206).body(content.into()).expect("an answer"))
    }

    /// `POST /token`, with a claim that an account has signed.
    fn trade(&mut self, asked: &Asked) -> Answer {
        let body = String::from_utf8_lossy(&asked.body).into_owned();
        let claim = body
            .strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=")
            .ok_or(Refusal(400, "unsupported_grant_type"))?;
        let (signed, signature) = claim.rsplit_once('.').ok_or(Refusal(400, "invalid_grant"))?;
        let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Refusal(400, "invalid_grant"));
        let (email, key) = self.account.clone().ok_or(Refusal(400, "invalid_grant"))?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
            .verify(signed.as_bytes(), &decoded(signature)?)
            .map_err(|_| Refusal(400, "invalid_grant"))?;
        let (head, claim) = signed.split_once('.').ok_or(Refusal(400, "invalid_grant"))?;
        let head: Value = serde_json::from_slice(&decoded(head)?).map_err(|_| Refusal(400, "invalid"))?;
        let claim: Value = serde_json::from_slice(&decoded(claim)?).map_err(|_| Refusal(400, "invalid"))?;
        let lasts = claim["exp"].as_u64().zip(claim["iat"].as_u64()).map(|(end, begin)| end - begin);
        let right = head["alg"] == "RS256"
            && claim["iss"] == *email
            && claim["aud"].as_str().is_some_and(|aud| aud.ends_with("/token"))
            && claim["scope"] == "https://www.googleapis.com/auth/devstorage.read_write"
            && lasts == Some(3600);
        if right { Ok(self.give_out()) } else { Err(Refusal(400, "invalid_grant")) }
    }
}

struct Asked {
    method: Method,
    path: String,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    body: Vec<u8>,
}

async fn serve(State((room, port)): State<(Arc<Mutex<Room>>, u16)>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.map(|body| body.to_vec()).unwrap_or_default();
    let pairs = head.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let asked = Asked {
        method: head.method.clone(),
        path: head.uri.path().to_owned(),
        query: pairs.map(|(name, value)| (name.to_owned(), unescaped(value))).collect(),
        headers: head.headers,
        body,
    };
    let mut room = room.lock().expect("whole");
    let line = format!("{} {}", asked.method, asked.path);
    let order = match room.orders.front() {
        Some((begins, _)) if line.starts_with(begins) => room.orders.pop_front().map(|(_, order)| order),
        _ => None,
    };
    room.seen.push(line);
    let answer = match order {
        Some(Order::Answer(status, reason)) => Err(Refusal(status, reason)),
        _ => answer(&mut room, port, &asked, order),
    };
    match (order, answer) {
        (Some(Order::LoseAnswer), _) => refused(&Refusal(503, "backendError")),
        (Some(Order::CutAnswer), Ok(_)) => {
            let broken = futures::stream::iter([
                Ok(bytes::Bytes::from_static(b"half")),
                Err(std::io::Error::other("as ordered")),
            ]);
            Response::builder().status(206).body(Body::from_stream(broken)).expect("an answer")
        }
        (_, Ok(answer)) => answer,
        (_, Err(refusal)) => refused(&refusal),
    }
}

fn answer(room: &mut Room, port: u16, asked: &Asked, order: Option<Order>) -> Answer {
    if asked.path == "/token" && asked.method == Method::POST {
        return room.trade(asked);
    }
    if asked.path == "/computeMetadata/v1/instance/service-accounts/default/token" {
        let flavor = asked.headers.get("metadata-flavor").is_some_and(|value| value == "Google");
        return match room.instance && flavor {
            true => Ok(room.give_out()),
            false => Err(Refusal(403, "forbidden")),
        };
    }
    room.may(&asked.headers)?;
    let parts: Vec<String> = asked.path.split('/').skip(1).map(unescaped).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match (asked.method.as_str(), &parts[..]) {
        ("POST", ["upload", "storage", "v1", "b", BUCKET, "o"]) => room.begin(port, asked),
        ("PUT", ["upload", "storage", "v1", "b", BUCKET, "o"]) => room.go_on(asked, order),
        ("DELETE", ["upload", "storage", "v1", "b", BUCKET, "o"]) => {
            let id = asked.query.get("upload_id").and_then(|id| id.parse().ok());
            match id.and_then(|id: u64| room.sessions.remove(&id)) {
                Some(_) => Err(Refusal(499, "cancelled")),
                None => Err(Refusal(404, "notFound")),
            }
        }
        ("GET", ["storage", "v1", "b", BUCKET, "o"]) => room.list(asked),
        ("GET" | "DELETE", ["storage", "v1", "b", BUCKET, "o", key]) => room.object(asked, key),
        (_, [.., "b", _, "o"] | [.., "b", _, "o", _]) => Err(Refusal(404, "notFound")),
        _ => Err(Refusal(400, "invalid")),
    }
}

fn only(asked: &Asked, known: &[&str]) -> Result<(), Refusal> {
    let unknown = asked.query.keys().any(|name| !known.contains(&name.as_str()));
    if unknown { Err(Refusal(400, "invalidParameter")) } else { Ok(()) }
}

/// The two parts of a body: what describes the object, and the object.
fn parts(asked: &Asked) -> Option<(Value, Vec<u8>)> {
    let kind = asked.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let mark = kind.strip_prefix("multipart/related; boundary=")?;
    let find = |from: usize, what: &[u8]| {
        asked.body[from..].windows(what.len()).position(|found| found == what).map(|at| at + from)
    };
    let empty = b"\r\n\r\n";
    let about = find(0, empty)? + 4;
    let second = find(about, format!("\r\n--{mark}\r\n").as_bytes())?;
    let content = find(second + 4, empty)? + 4;
    let end = asked.body.len().checked_sub(format!("\r\n--{mark}--\r\n").len())?;
    Some((serde_json::from_slice(&asked.body[about..second]).ok()?, asked.body.get(content..end)?.to_vec()))
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

fn described(key: &str, content: &[u8], metadata: &Value) -> Value {
    json!({
        "name": key, "bucket": BUCKET, "generation": "1", "size": content.len().to_string(),
        "updated": "2026-11-21T09:14:46.120Z", "metadata": metadata,
    })
}

fn said(status: u16, what: &Value) -> Response {
    let answer = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    answer.body(what.to_string().into()).expect("an answer")
}

fn refused(Refusal(status, reason): &Refusal) -> Response {
    let status = StatusCode::from_u16(*status).expect("a status").as_u16();
    let error = json!({ "code": status, "message": "refused", "errors": [{ "reason": reason }] });
    said(status, &json!({ "error": error }))
}
