//! One connection to the primary server, every message on it signed.
//!
//! **Invariant:** an answer counts when its id and question are those of the request and its signature
//! covers both; a server that answers a signed request without a signature is believed only when it says no.

use std::io;
use std::net::SocketAddr;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::tsig::TsigError;
use hickory_proto::rr::{TSigVerifier, TSigner};
use lifeboat_core::DnsName;
use lifeboat_engine::clock::Clock;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::message::{Found, Target};
use super::{Rfc2136Options, UpdateError, key};
use crate::exchange::{belongs, read_frame, write_frame};

/// A connection and the key it is used with.
pub(super) struct Session {
    server: SocketAddr,
    zone: DnsName,
    stream: TcpStream,
    signer: TSigner,
}

/// A request whose answer is due.
struct Due {
    request: Message,
    verifier: Option<TSigVerifier>,
}

impl Session {
    /// Reads the key, then connects.
    pub(super) async fn open(options: &Rfc2136Options) -> Result<Self, UpdateError> {
        let server = options.server;
        let signer = key::signer(options).await?;
        let unreachable = |source| UpdateError::Unreachable { server, source };
        let stream = TcpStream::connect(server).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(Self { server, zone: options.zone.clone(), stream, signer })
    }

    /// What the name says now.
    pub(super) async fn look(&mut self, target: &Target) -> Result<Found, UpdateError> {
        // All questions leave together: one round trip, wherever the server is.
        let mut due = Vec::new();
        for question in target.questions() {
            due.push(self.send(question, false).await?);
        }
        let mut answers = Vec::new();
        while !due.is_empty() {
            let answer = self.receive(&mut due).await?;
            match answer.response_code {
                ResponseCode::NoError | ResponseCode::NXDomain if !answer.authoritative => {
                    return Err(UpdateError::Lame { server: self.server, zone: self.zone.clone() });
                }
                ResponseCode::NoError | ResponseCode::NXDomain => answers.push(answer),
                // To a question, "not authorised" can only mean the signature: PowerDNS says no more than that.
                ResponseCode::NotAuth => return Err(self.key_refused("NOTAUTH")),
                code @ ResponseCode::Refused => {
                    return Err(UpdateError::ZoneRefused {
                        server: self.server,
                        zone: self.zone.clone(),
                        code,
                    });
                }
                // Nothing was changed yet, so this is no more than a server that is not well.
                _ => return Err(self.untrusted("with an error to a plain question", false)),
            }
        }
        target.found(&answers)
    }

    /// Sends an update and returns what the server says to it.
    pub(super) async fn update(&mut self, update: Message) -> Result<ResponseCode, UpdateError> {
        let mut due = vec![self.send(update, true).await?];
        let answer = self.receive(&mut due).await?;
        Ok(answer.response_code)
    }

    async fn send(&mut self, mut request: Message, update: bool) -> Result<Due, UpdateError> {
        // A signature needs the time of day as others read it now, not the agent's own steady time.
        let seconds = Clock::start().now().millis() / 1000;
        let unsigned =
            |_| UpdateError::Untrusted { server: self.server, what: "signing failed", update: false };
        let verifier = request.finalize(&self.signer, seconds).map_err(unsigned)?;
        let bytes = request.to_vec().map_err(unsigned)?;
        let written = write_frame(&mut self.stream, &bytes).await;
        written.map_err(|source| UpdateError::Cut { server: self.server, update, source })?;
        self.stream.flush().await.map_err(|source| UpdateError::Cut {
            server: self.server,
            update,
            source,
        })?;
        Ok(Due { request, verifier })
    }

    /// Reads the next answer, whichever request it belongs to, and verifies it.
    async fn receive(&mut self, due: &mut Vec<Due>) -> Result<Message, UpdateError> {
        let update = due.iter().any(|due| due.request.op_code == OpCode::Update);
        let cut = |source| UpdateError::Cut { server: self.server, update, source };
        let frame = read_frame(&mut self.stream, usize::from(u16::MAX)).await.map_err(cut)?;
        let bytes = frame.ok_or_else(|| cut(io::ErrorKind::UnexpectedEof.into()))?;
        // Decoded before it is verified: what cannot be decoded has no signature to look at.
        let answer = Message::from_vec(&bytes).map_err(|_| self.untrusted("it cannot be read", update))?;
        let at = due.iter().position(|due| belongs(&due.request, &answer));
        let at = at.ok_or_else(|| self.untrusted("to another question", update))?;
        let mut due = due.swap_remove(at);
        let Some(signature) = &answer.signature else {
            // A no may be said before the key was looked at; a yes without a signature may be anyone's.
            return match answer.response_code {
                ResponseCode::NoError | ResponseCode::NXDomain => {
                    Err(self.untrusted("the answer is not signed", update))
                }
                _ => Ok(answer),
            };
        };
        if let Some(error) = signature.data.error {
            return Err(self.key_error(error));
        }
        let verified = due.verifier.as_mut().map(|verifier| verifier.verify(&bytes).is_ok());
        if verified != Some(true) {
            return Err(self.untrusted("its signature is wrong", update));
        }
        Ok(answer)
    }

    fn key_error(&self, error: TsigError) -> UpdateError {
        match error {
            // Knot looks for the key among those with rights on the zone, and knows no other.
            TsigError::BadKey => self.key_refused("BADKEY: unknown there, or without rights on the zone"),
            TsigError::BadSig => self.key_refused("BADSIG"),
            TsigError::BadTrunc => self.key_refused("BADTRUNC"),
            TsigError::BadTime => UpdateError::Clock { server: self.server },
            TsigError::Unknown(_) => self.key_refused("TSIG error"),
        }
    }

    fn key_refused(&self, reason: &'static str) -> UpdateError {
        UpdateError::KeyRefused { server: self.server, reason }
    }

    fn untrusted(&self, what: &'static str, update: bool) -> UpdateError {
        UpdateError::Untrusted { server: self.server, what, update }
    }
}
