//! Who we are: a token, fetched when it is needed, and anew before it is too old.
//!
//! A service account signs a claim with its key and trades it for a token (RFC 7523); an instance asks the metadata server
//! (<https://cloud.google.com/compute/docs/access/authenticate-workloads>).
//!
//! **Invariant:** one fetches at a time; the others wait for what it gets.
//! **Invariant:** neither a key nor a token is ever in an error.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::{Method, header};
use lifeboat_core::Moment;
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::StoreError;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;

use super::http::{ANSWER, Ask, Wire, send};
use super::{Identity, fault};

/// What a token is for: reading and writing objects.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// Where every instance finds the metadata server.
const METADATA: &str = "http://169.254.169.254";
/// A token is fetched anew so long before it is too old, or at half of its life.
const EARLY: Duration = Duration::from_secs(300);
/// The longest answer with a token in it.
const LONGEST: usize = 64 << 10;

/// Where tokens come from, and the newest one.
pub(super) struct Account {
    source: Source,
    clock: Clock,
    held: Mutex<Option<Held>>,
}

enum Source {
    Nobody,
    Instance(String),
    Key(Box<ServiceAccount>),
}

struct ServiceAccount {
    email: String,
    key_id: String,
    token_uri: String,
    key: RsaKeyPair,
}

/// The file, as the console gives it out.
#[derive(Deserialize)]
struct Document {
    client_email: String,
    #[serde(default)]
    private_key_id: String,
    private_key: String,
    token_uri: String,
}

struct Held {
    token: String,
    until: Moment,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

impl Account {
    pub(super) fn new(identity: &Identity) -> Result<Self, StoreError> {
        let source = match identity {
            Identity::Nobody => Source::Nobody,
            Identity::Instance(address) => {
                let address = address.as_deref().unwrap_or(METADATA).trim_end_matches('/');
                Source::Instance(format!(
                    "{address}/computeMetadata/v1/instance/service-accounts/default/token"
                ))
            }
            Identity::File(path) => Source::Key(Box::new(read(path)?)),
        };
        Ok(Self { source, clock: Clock::start(), held: Mutex::default() })
    }

    /// The token to show now; none for nobody.
    pub(super) async fn token(&self, wire: &Wire) -> Result<Option<String>, StoreError> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|held| self.clock.now() < held.until) {
            return Ok(Some(held.token.clone()));
        }
        let ask = match &self.source {
            Source::Nobody => return Ok(None),
            Source::Instance(address) => Ask {
                headers: vec![(header::HeaderName::from_static("metadata-flavor"), "Google".to_owned())],
                limit: Duration::from_secs(5),
                ..Ask::get(address.clone(), LONGEST)
            },
            Source::Key(account) => account.ask()?,
        };
        // A life is counted from before it was asked for.
        let asked = self.clock.now();
        let granted = grant(wire, &ask).await?;
        let life = Duration::from_secs(granted.expires_in);
        *held =
            Some(Held { token: granted.access_token.clone(), until: asked + (life - EARLY.min(life / 2)) });
        Ok(Some(granted.access_token))
    }

    /// A token was refused: it is not shown again.
    pub(super) async fn forget(&self, token: &str) {
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(|held| held.token == token) {
            *held = None;
        }
    }
}

async fn grant(wire: &Wire, ask: &Ask) -> Result<Granted, StoreError> {
    let answer = send(wire, ask, None).await?;
    match answer.status {
        200 => serde_json::from_slice(&answer.body)
            .map_err(|_| StoreError::Unusable("what was answered is no token".to_owned())),
        status if fault::passing(status) => {
            Err(StoreError::Unreachable(format!("no token was given out: {status}")))
        }
        // A key that was deleted or belongs to somebody else is answered with 400.
        status => Err(StoreError::Denied(format!("no token was given out: {status}"))),
    }
}

fn read(path: &Path) -> Result<ServiceAccount, StoreError> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|error| StoreError::Denied(format!("{shown}: {error}")))?;
    let wrong = |what: &str| StoreError::Denied(format!("{shown}: {what}"));
    let document: Document =
        serde_json::from_slice(&text).map_err(|_| wrong("not the file of a service account"))?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(document.private_key.as_bytes())
        .map_err(|_| wrong("its private key is not PEM"))?;
    let key =
        RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| wrong("its private key is not RSA"))?;
    Ok(ServiceAccount {
        email: document.client_email,
        key_id: document.private_key_id,
        token_uri: document.token_uri,
        key,
    })
}

impl ServiceAccount {
    /// The question for a token, with a claim that is signed.
    fn ask(&self) -> Result<Ask, StoreError> {
        // The wall clock as it is now: the other side compares it with its own.
        let now = Clock::start().now().millis() / 1000;
        let head = json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id });
        let claim = json!({
            "iss": self.email, "scope": SCOPE, "aud": self.token_uri, "iat": now, "exp": now + 3600,
        });
        let encoded = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let signed =
            format!("{}.{}", encoded(head.to_string().as_bytes()), encoded(claim.to_string().as_bytes()));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| StoreError::Unusable("the account's key does not sign".to_owned()))?;
        let body = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={signed}.{}",
            encoded(&signature)
        );
        Ok(Ask {
            method: Method::POST,
            address: self.token_uri.clone(),
            headers: vec![(header::CONTENT_TYPE, "application/x-www-form-urlencoded".to_owned())],
            body: Bytes::from(body),
            most: LONGEST,
            limit: ANSWER,
        })
    }
}
