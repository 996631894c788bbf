//! Keys from files, one value each, as secrets are mounted into containers.
//!
//! **Invariant:** no value of a file is in an error or in a log.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use lifeboat_engine::clock::Clock;

/// How long a file's value is taken for what is in it.
const FRESH: Duration = Duration::from_secs(600);

/// Reads the files whenever what they said is too old.
#[derive(Clone)]
pub(super) struct FromFiles {
    id: PathBuf,
    secret: PathBuf,
    token: Option<PathBuf>,
    clock: Clock,
}

impl FromFiles {
    pub(super) fn new(id: &Path, secret: &Path, token: Option<&Path>) -> Self {
        let token = token.map(Path::to_path_buf);
        Self { id: id.to_path_buf(), secret: secret.to_path_buf(), token, clock: Clock::start() }
    }

    async fn load(&self) -> Result<Credentials, CredentialsError> {
        let (id, secret) = (value(&self.id).await?, value(&self.secret).await?);
        let token = match &self.token {
            Some(path) => Some(value(path).await?),
            None => None,
        };
        let now = UNIX_EPOCH + Duration::from_millis(self.clock.now().millis());
        Ok(Credentials::new(id, secret, token, Some(now + FRESH), "files"))
    }
}

impl fmt::Debug for FromFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys from {} and {}", self.id.display(), self.secret.display())
    }
}

impl ProvideCredentials for FromFiles {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.load())
    }
}

async fn value(path: &Path) -> Result<String, CredentialsError> {
    let shown = path.display();
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| CredentialsError::invalid_configuration(format!("{shown}: {error}")))?;
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(CredentialsError::invalid_configuration(format!("{shown} does not hold one value")));
    }
    Ok(text.to_owned())
}
