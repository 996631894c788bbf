//! The HTTP(S) probe.
//!
//! **Invariant:** redirects are followed only as often as allowed, and never to a page that was seen already.

use std::path::PathBuf;

use async_trait::async_trait;
use lifeboat_core::sighting::{Evidence, Failure, FailureKind, Look};
use lifeboat_engine::ports::{Ask, Probe};

use crate::deadline::Deadline;
use crate::dial;
use crate::exchange::{Expect, Reply};
use crate::fetch::Fetch;
use crate::kit::Kit;
use crate::setup::SetupError;
use crate::target::Target;

/// What an HTTP probe asks for, and what it expects.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// `http://…` or `https://…`, without user and password.
    pub url: String,
    /// Sent as `Host`, and whom the certificate must be for, in place of the URL's host.
    pub host: Option<String>,
    /// The expected status, 100 to 999.
    pub status: u16,
    /// Text that the first [`BODY_LIMIT`](crate::BODY_LIMIT) bytes of the body must contain.
    pub body: Option<String>,
    /// Whole days that the server's certificate must be valid for; 0 asks for nothing more than validity.
    pub certificate_days: u32,
    /// Trust anchors (PEM) in place of the system's. Read when the probe is made.
    pub ca_file: Option<PathBuf>,
    /// How many redirects are followed, 0 to 10. A status that is expected is not followed.
    pub redirects: u8,
}

impl HttpOptions {
    /// The defaults of the configuration: status 200, any body, 14 days of certificate, no redirects.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            host: None,
            status: 200,
            body: None,
            certificate_days: 14,
            ca_file: None,
            redirects: 0,
        }
    }
}

/// Asks for one page on a fresh connection.
#[derive(Debug)]
pub struct HttpProbe {
    target: Target,
    fetch: Fetch,
    redirects: u8,
    kit: Kit,
}

impl HttpProbe {
    /// Makes the probe; reads the trust anchors when it may need them (https, or redirects).
    ///
    /// # Errors
    ///
    /// When the options cannot be used or the trust anchors cannot be read.
    pub fn new(options: &HttpOptions, kit: &Kit) -> Result<Self, SetupError> {
        let target = Target::parse(&options.url, options.host.as_deref())?;
        let may_need_tls = target.secure.is_some() || options.redirects > 0;
        let tls = may_need_tls.then(|| kit.trust().shared(options.ca_file.as_deref())).transpose()?;
        let expect = Expect::new(options.status, options.body.as_deref())?;
        let fetch = Fetch { expect, tls, certificate_days: options.certificate_days };
        Ok(Self { target, fetch, redirects: options.redirects, kit: kit.clone() })
    }

    async fn ask(&self, target: &Target, ask: &Ask, deadline: &mut Deadline<'_>) -> Result<Reply, Failure> {
        let addresses = self.kit.resolve(&target.host, target.port, deadline).await?;
        let stream = dial::connect(&addresses, deadline).await?;
        self.fetch.over(stream, target, ask.at, deadline).await
    }

    /// Goes where the first page points, and on from there.
    async fn follow(&self, first: Reply, ask: &Ask, deadline: &mut Deadline<'_>) -> Look {
        let mut seen = vec![self.target.clone()];
        let mut reply = first;
        loop {
            let (status, location) = match reply {
                Reply::Expected => return Ok(Evidence::Answered),
                Reply::Redirect(status, location) => (status.as_u16(), location),
            };
            let here = &seen[seen.len() - 1];
            let Some(location) = location else {
                let detail = format!("{} answers status {status} without saying where to", here.url);
                return Err(Failure::new(FailureKind::WrongAnswer, detail));
            };
            let next = here.follow(&location)?;
            if seen.iter().any(|target| target.url == next.url) {
                let detail = format!("redirects in a loop: {} leads back to {}", here.url, next.url);
                return Err(Failure::new(FailureKind::WrongAnswer, detail));
            }
            if seen.len() > usize::from(self.redirects) {
                let detail = format!(
                    "status {status}, a redirect to {}, where {} redirects are allowed",
                    next.url, self.redirects
                );
                return Err(Failure::new(FailureKind::WrongAnswer, detail));
            }
            reply = self.ask(&next, ask, deadline).await?;
            seen.push(next);
        }
    }
}

#[async_trait]
impl Probe for HttpProbe {
    async fn look(&self, ask: &Ask) -> Look {
        let over = std::pin::pin!(tokio::time::sleep(ask.limit));
        let mut deadline = Deadline::new(over, ask.limit);
        if self.fetch.tls.is_some() {
            self.kit.trust().set_time(ask.at);
        }
        match self.ask(&self.target, ask, &mut deadline).await? {
            Reply::Expected => Ok(Evidence::Answered),
            redirect @ Reply::Redirect(..) => Box::pin(self.follow(redirect, ask, &mut deadline)).await,
        }
    }
}
