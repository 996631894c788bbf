//! One request and as much of its answer as the question needs, on one connection.
//!
//! **Invariant:** at most 64 KiB of head and [`BODY_LIMIT`] bytes of body are held; the rest is not read.
//! **Invariant:** no task is spawned: the connection is driven by the look that asks over it, and ends with it.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lifeboat_core::sighting::{Failure, FailureKind};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::deadline::{Deadline, Stage};
use crate::failure::{self, Part};
use crate::setup::SetupError;
use crate::target::Target;

/// Bytes of a body that are looked at.
pub const BODY_LIMIT: usize = 64 << 10;

/// Bytes of status and headers that are taken. hyper begins with 8 KiB and grows only when they are full.
const HEAD_LIMIT: usize = 64 << 10;

/// The answer that is expected.
#[derive(Clone, Debug)]
pub(crate) struct Expect {
    status: StatusCode,
    body: Option<Bytes>,
}

/// What came, when it was not a failure.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The answer that was expected.
    Expected,
    /// A status of the 3xx class that was not expected, with where it points.
    Redirect(StatusCode, Option<HeaderValue>),
}

/// Why there is no reply.
enum Broken {
    /// A failure that is clear by itself.
    Failure(Failure),
    /// The connection broke while this part was awaited; the connection itself may know better why.
    Connection(hyper::Error, Part),
}

impl Expect {
    /// `status`, and a body that contains `body`. An empty text is in every body, so it asks for nothing.
    pub(crate) fn new(status: u16, body: Option<&str>) -> Result<Self, SetupError> {
        let status = StatusCode::from_u16(status).map_err(|_| SetupError::Status { status })?;
        let body = body.filter(|text| !text.is_empty()).map(|text| Bytes::copy_from_slice(text.as_bytes()));
        Ok(Self { status, body })
    }
}

/// Asks for `target` over `stream`, and reads until it is known whether the answer is the expected one.
pub(crate) async fn get<S>(
    stream: S,
    target: &Target,
    expect: &Expect,
    deadline: &mut Deadline<'_>,
) -> Result<Reply, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let opened = Builder::new().max_buf_size(HEAD_LIMIT).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = opened.map_err(|error| failure::of_http(&error, Part::Head))?;
    let request = request(target);
    drive(connection, ask(sender, request, expect, deadline)).await
}

/// Sends `body` to `target` over `stream`, whatever the status of the answer: that, and the beginning of its body.
pub(crate) async fn send<S>(
    stream: S,
    target: &Target,
    method: Method,
    body: Bytes,
    deadline: &mut Deadline<'_>,
) -> Result<(StatusCode, Vec<u8>), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let opened = Builder::new().max_buf_size(HEAD_LIMIT).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = opened.map_err(|error| failure::of_http(&error, Part::Head))?;
    let mut request = request(target).map(|_| Full::new(body));
    *request.method_mut() = method;
    let sending = async {
        let answered =
            deadline.within(Stage::Head, sender.send_request(request)).await.map_err(Broken::Failure)?;
        let mut response = answered.map_err(|error| Broken::Connection(error, Part::Head))?;
        let mut said = Vec::new();
        while said.len() < BODY_LIMIT {
            let next = deadline.within(Stage::Body, response.frame()).await.map_err(Broken::Failure)?;
            let Some(frame) = next else { break };
            let frame = frame.map_err(|error| Broken::Connection(error, Part::Body))?;
            let Some(data) = frame.data_ref() else { continue };
            said.extend_from_slice(&data[..data.len().min(BODY_LIMIT - said.len())]);
        }
        Ok((response.status(), said))
    };
    drive(connection, sending).await
}

/// Runs the connection and the asking side by side until the asking has its answer.
async fn drive<S, B, T>(
    connection: Connection<TokioIo<S>, B>,
    asking: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = Box::pin(connection);
    let mut asking = std::pin::pin!(asking);
    let ended = tokio::select! {
        biased;
        reply = asking.as_mut() => return reply.map_err(Broken::into_failure),
        ended = connection.as_mut() => ended,
    };
    // The connection is over, but what it had read may be all that was asked for.
    drop(connection);
    match (asking.await, ended) {
        (Err(Broken::Connection(error, part)), Err(cause)) if error.is_canceled() || error.is_closed() => {
            Err(failure::of_http(&cause, part))
        }
        (reply, _) => reply.map_err(Broken::into_failure),
    }
}

async fn ask(
    mut sender: SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
    expect: &Expect,
    deadline: &mut Deadline<'_>,
) -> Result<Reply, Broken> {
    let answered =
        deadline.within(Stage::Head, sender.send_request(request)).await.map_err(Broken::Failure)?;
    let mut response = answered.map_err(|error| Broken::Connection(error, Part::Head))?;
    let status = response.status();
    if status != expect.status {
        if status.is_redirection() {
            return Ok(Reply::Redirect(status, response.headers_mut().remove(LOCATION)));
        }
        let detail = format!("status {}, expected {}", status.as_u16(), expect.status.as_u16());
        return Err(Broken::Failure(Failure::new(FailureKind::WrongAnswer, detail)));
    }
    match &expect.body {
        Some(text) => find(text, response, deadline).await,
        None => Ok(Reply::Expected),
    }
}

/// Reads the body until `text` was in it, or it ends, or it was looked at for long enough.
async fn find(
    text: &[u8],
    mut response: Response<Incoming>,
    deadline: &mut Deadline<'_>,
) -> Result<Reply, Broken> {
    let mut seen = Vec::new();
    while seen.len() < BODY_LIMIT {
        let next = deadline.within(Stage::Body, response.frame()).await.map_err(Broken::Failure)?;
        let Some(frame) = next else { break };
        let frame = frame.map_err(|error| Broken::Connection(error, Part::Body))?;
        let Some(data) = frame.data_ref() else { continue };
        // Looking again at all of it would take ages when it comes byte by byte.
        let from = seen.len().saturating_sub(text.len() - 1);
        seen.extend_from_slice(&data[..data.len().min(BODY_LIMIT - seen.len())]);
        if seen[from..].windows(text.len()).any(|part| part == text) {
            return Ok(Reply::Expected);
        }
    }
    let detail = format!(
        "the body does not contain {:?} ({} bytes of it were looked at)",
        String::from_utf8_lossy(text),
        seen.len()
    );
    Err(Broken::Failure(Failure::new(FailureKind::WrongAnswer, detail)))
}

fn request(target: &Target) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = target.path.clone();
    let headers = request.headers_mut();
    headers.insert(HOST, target.authority.clone());
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("lifeboat/", env!("CARGO_PKG_VERSION"))));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    request
}

impl Broken {
    fn into_failure(self) -> Failure {
        match self {
            Self::Failure(failure) => failure,
            Self::Connection(error, part) => failure::of_http(&error, part),
        }
    }
}
