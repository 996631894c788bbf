//! Start-up and login.
//!
//! **Invariant:** a server that began to prove that it knows the password has to finish the proof.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use super::error::Error;
use super::notice::Said;
use super::options::Endpoint;
use super::socket::Socket;
use super::wire::Wire;
use crate::connect::PAST_THE_FENCE;
use crate::password;

const NONSENSE: Error = Error::Protocol("a login that is not of the protocol");

/// Opens a connection that takes replication commands; with a database, one that takes SQL instead. A server that we
/// have fenced is opened too: what it has must still be kept, and nothing is written here.
pub(super) async fn open(endpoint: &Endpoint, database: Option<&str>) -> Result<Wire, Error> {
    match open_with(endpoint, database, None).await {
        // "undefined_file": the fence's own lock; see [`crate::connect`]. From 15 on it is not looked at here.
        Err(Error::Refused { said, .. }) if said.is("58P01") => {
            open_with(endpoint, database, Some(PAST_THE_FENCE)).await
        }
        opened => opened,
    }
}

async fn open_with(
    endpoint: &Endpoint,
    database: Option<&str>,
    options: Option<&str>,
) -> Result<Wire, Error> {
    let opening = async {
        let password = match &endpoint.password_file {
            Some(path) => Some(password::read(path).await.map_err(|error| Error::Local(error.to_string()))?),
            None => None,
        };
        let mut wire = Wire::new(Socket::open(endpoint).await?, endpoint.limit);
        start(&mut wire, endpoint, database, options).await?;
        authenticate(&mut wire, &endpoint.user, password.as_deref()).await?;
        settle(&mut wire).await?;
        Ok(wire)
    };
    match tokio::time::timeout(endpoint.limit, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(Error::TimedOut { act: "the login", limit: endpoint.limit }),
    }
}

async fn start(
    wire: &mut Wire,
    endpoint: &Endpoint,
    database: Option<&str>,
    options: Option<&str>,
) -> Result<(), Error> {
    let mode = database.map_or(("replication", "true"), |database| ("database", database));
    let parameters = [
        ("user", endpoint.user.as_str()),
        mode,
        ("application_name", endpoint.application_name.as_str()),
        ("client_encoding", "UTF8"),
    ];
    let parameters = parameters.into_iter().chain(options.map(|options| ("options", options)));
    wire.put(|out| frontend::startup_message(parameters, out))?;
    wire.flush().await
}

async fn answer(wire: &mut Wire) -> Result<Message, Error> {
    loop {
        match wire.message().await? {
            Message::NoticeResponse(_) => {}
            Message::ErrorResponse(body) => return Err(Error::said("the login", Said::read(body.fields()))),
            message => return Ok(message),
        }
    }
}

async fn send(
    wire: &mut Wire,
    write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
) -> Result<(), Error> {
    wire.put(write)?;
    wire.flush().await
}

async fn authenticate(wire: &mut Wire, user: &str, password: Option<&[u8]>) -> Result<(), Error> {
    let needed = || Error::Local("the server asks for a password, and no password file is named".to_owned());
    match answer(wire).await? {
        Message::AuthenticationOk => return Ok(()),
        Message::AuthenticationCleartextPassword => {
            let password = password.ok_or_else(needed)?;
            send(wire, |out| frontend::password_message(password, out)).await?;
        }
        Message::AuthenticationMd5Password(body) => {
            let hash = md5_hash(user.as_bytes(), password.ok_or_else(needed)?, body.salt());
            send(wire, |out| frontend::password_message(hash.as_bytes(), out)).await?;
        }
        Message::AuthenticationSasl(body) => scram(wire, &body, password.ok_or_else(needed)?).await?,
        _ => {
            return Err(Error::Local(
                "the server asks for a way to log in that is not known here".to_owned(),
            ));
        }
    }
    match answer(wire).await? {
        Message::AuthenticationOk => Ok(()),
        _ => Err(NONSENSE),
    }
}

async fn scram(wire: &mut Wire, body: &AuthenticationSaslBody, password: &[u8]) -> Result<(), Error> {
    let (mut plain, mut plus) = (false, false);
    let mut mechanisms = body.mechanisms();
    while let Some(mechanism) = mechanisms.next().map_err(|_| NONSENSE)? {
        plain |= mechanism == SCRAM_SHA_256;
        plus |= mechanism == SCRAM_SHA_256_PLUS;
    }
    let (mechanism, binding) = match wire.socket().end_point() {
        Some(end_point) if plus => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(end_point)),
        // Says that we would have: a server that did offer it finds out that somebody in between took it away.
        Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
    };
    if mechanism == SCRAM_SHA_256 && !plain {
        return Err(Error::Local("the server offers no way to log in that is known here".to_owned()));
    }
    let mut scram = ScramSha256::new(password, binding);
    send(wire, |out| frontend::sasl_initial_response(mechanism, scram.message(), out)).await?;
    let Message::AuthenticationSaslContinue(body) = answer(wire).await? else { return Err(NONSENSE) };
    scram.update(body.data()).map_err(|_| NONSENSE)?;
    send(wire, |out| frontend::sasl_response(scram.message(), out)).await?;
    let Message::AuthenticationSaslFinal(body) = answer(wire).await? else { return Err(NONSENSE) };
    scram.finish(body.data()).map_err(|_| Error::Protocol("the server does not know the password"))
}

async fn settle(wire: &mut Wire) -> Result<(), Error> {
    loop {
        match answer(wire).await? {
            Message::BackendKeyData(_) => {}
            Message::ReadyForQuery(_) => return Ok(()),
            _ => return Err(NONSENSE),
        }
    }
}
