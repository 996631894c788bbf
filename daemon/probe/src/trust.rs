//! Whom TLS probes trust, and how long certificates last.
//!
//! **Invariant:** trust anchors are loaded when a probe is made that needs them, once per file, never during a look.
//! **Invariant:** no session is resumed: a resumed one would not show its certificate again.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifeboat_core::Moment;
use lifeboat_core::sighting::{Failure, FailureKind};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::parse_x509_certificate;

use crate::setup::SetupError;

/// Bytes of a file of trust anchors that are read; Debian's whole store has 220 KB.
const MOST_ANCHOR_BYTES: u64 = 4 << 20;

/// TLS configurations by trust anchors, each shared by all probes that use it.
#[derive(Debug)]
pub(crate) struct Trust {
    configs: Mutex<BTreeMap<Option<PathBuf>, Arc<ClientConfig>>>,
    time: Arc<AgentTime>,
}

impl Trust {
    pub(crate) fn new() -> Self {
        Self { configs: Mutex::new(BTreeMap::new()), time: Arc::new(AgentTime(AtomicU64::new(0))) }
    }

    /// A configuration that trusts what `ca_file` holds, or the system's anchors when there is none.
    pub(crate) fn shared(&self, ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, SetupError> {
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = configs.get(&ca_file.map(Path::to_owned)) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.load(ca_file)?);
        configs.insert(ca_file.map(Path::to_owned), Arc::clone(&config));
        Ok(config)
    }

    /// Tells certificates what time it is: the agent's, so that a look can be repeated in a test. All probes
    /// that share this have the same agent, and its clock does not step back.
    pub(crate) fn set_time(&self, at: Moment) {
        self.time.0.store(at.millis(), Ordering::Relaxed);
    }

    fn load(&self, ca_file: Option<&Path>) -> Result<ClientConfig, SetupError> {
        let (certificates, place) = match ca_file {
            Some(path) => (read_anchors(path)?, path.display().to_string()),
            None => (rustls_native_certs::load_native_certs().certs, "the system's store".to_owned()),
        };
        let mut anchors = RootCertStore::empty();
        // A store may hold a few odd certificates; what matters is that there is one to trust.
        let (usable, _odd) = anchors.add_parsable_certificates(certificates);
        if usable == 0 {
            return Err(SetupError::NoAnchors { place });
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let time: Arc<dyn TimeProvider> = Arc::<AgentTime>::clone(&self.time);
        let mut config = ClientConfig::builder_with_details(provider, time)
            .with_safe_default_protocol_versions()
            .map_err(|source| SetupError::Tls { source })?
            .with_root_certificates(anchors)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The time of the last look, in milliseconds since the Unix epoch.
struct AgentTime(AtomicU64);

impl TimeProvider for AgentTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.load(Ordering::Relaxed))))
    }
}

impl fmt::Debug for AgentTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Moment::from_millis(self.0.load(Ordering::Relaxed)))
    }
}

fn read_anchors(path: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let unreadable = |source| SetupError::ReadAnchors { path: path.to_owned(), source };
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MOST_ANCHOR_BYTES).read_to_end(&mut pem).map_err(unreadable)?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| SetupError::ParseAnchors { path: path.to_owned(), source })
}

/// Checks that the server's own certificate is valid for at least `days` more whole days at `at`. The rest
/// of its chain was checked to be valid now; intermediates are often sent that expire and are not needed.
pub(crate) fn check_days_left(
    chain: Option<&[CertificateDer<'_>]>,
    days: u32,
    at: Moment,
) -> Result<(), Failure> {
    let bad = |detail: String| Err(Failure::new(FailureKind::Certificate, detail));
    let Some(own) = chain.and_then(<[_]>::first) else {
        return bad("the server showed no certificate".to_owned());
    };
    let Ok((_, parsed)) = parse_x509_certificate(own) else {
        return bad("the certificate cannot be parsed".to_owned());
    };
    let expires = parsed.validity().not_after.timestamp();
    let now = i64::try_from(at.millis() / 1000).unwrap_or(i64::MAX);
    let left = expires.saturating_sub(now).div_euclid(86_400);
    if left < i64::from(days) {
        return bad(format!("the certificate is valid for {left} more days, at least {days} are expected"));
    }
    Ok(())
}
