//! What an answer of S3, or none, means for a store.
//!
//! The status decides, and the code where the status says too little: others than Amazon agree on the former.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::interceptors::InterceptorContext;
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use lifeboat_engine::ports::StoreError;

/// Why a call did not do it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There is no such object, or no such upload.
    NotThere,
    /// There is such an object.
    There,
    /// Another one writes it just now.
    Conflict(String),
    /// The range begins behind the end.
    Behind(String),
    /// Anything else.
    Other(StoreError),
}

/// Names the trouble.
pub(super) fn of<E>(error: SdkError<E, HttpResponse>) -> Trouble
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let status = error.raw_response().map(|answer| answer.status().as_u16());
    let code = error.code().unwrap_or_default().to_owned();
    let unsent = matches!(error, SdkError::ConstructionFailure(_));
    let text = chain(&error);
    let Some(status) = status else {
        return Trouble::Other(match credentials(&error) {
            Some(true) => StoreError::Denied(text),
            _ if unsent => StoreError::Unusable(text),
            _ => StoreError::Unreachable(text),
        });
    };
    judge(status, &code, text)
}

/// Whether the trouble is that we do not know who we are; some and false: we may, later.
fn credentials(error: &(dyn std::error::Error + 'static)) -> Option<bool> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<CredentialsError>() {
            return Some(!matches!(found, CredentialsError::ProviderTimedOut(_)));
        }
        cause = error.source();
    }
    None
}

fn judge(status: u16, code: &str, text: String) -> Trouble {
    let text = format!("{status} {code}: {text}");
    Trouble::Other(match (status, code) {
        (_, "NoSuchBucket") => StoreError::Unusable(text),
        (404, _) => return Trouble::NotThere,
        (412, _) => return Trouble::There,
        (409, _) => return Trouble::Conflict(text),
        (416, _) => return Trouble::Behind(text),
        (507, _)
        | (
            _,
            "QuotaExceeded" | "InsufficientCapacity" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded",
        ) => StoreError::Full(text),
        (401 | 403, _) | (_, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => {
            StoreError::Denied(text)
        }
        (408 | 425 | 429 | 500 | 502 | 503 | 504, _) | (_, "RequestTimeout" | "SlowDown") => {
            StoreError::Unreachable(text)
        }
        _ => StoreError::Unusable(text),
    })
}

/// What others say in place of Amazon's 503 when too much is asked of them, which Amazon's client does not know.
#[derive(Clone, Copy, Debug)]
pub(super) struct TooMuchAsked;

impl ClassifyRetry for TooMuchAsked {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        match context.response().map(|answer| answer.status().as_u16()) {
            Some(408 | 425 | 429) => RetryAction::throttling_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "too much asked"
    }
}

/// An error with its causes; those that repeat it are left out.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_to_do_next() {
        let kind = |status, code: &str| match judge(status, code, String::new()) {
            Trouble::Other(StoreError::Denied(_)) => "denied",
            Trouble::Other(StoreError::Full(_)) => "full",
            Trouble::Other(StoreError::Unreachable(_)) => "unreachable",
            Trouble::Other(StoreError::Unusable(_)) => "unusable",
            Trouble::Other(_) => "other",
            Trouble::NotThere => "not there",
            Trouble::There => "there",
            Trouble::Conflict(_) => "conflict",
            Trouble::Behind(_) => "behind",
        };
        for (status, code, expected) in [
            (404, "NoSuchKey", "not there"),
            (404, "", "not there"),
            (404, "NoSuchBucket", "unusable"),
            (412, "PreconditionFailed", "there"),
            (409, "ConditionalRequestConflict", "conflict"),
            (416, "InvalidRange", "behind"),
            (401, "", "denied"),
            (403, "InvalidAccessKeyId", "denied"),
            (400, "ExpiredToken", "denied"),
            (400, "RequestTimeout", "unreachable"),
            (400, "AuthorizationHeaderMalformed", "unusable"),
            (429, "", "unreachable"),
            (503, "SlowDown", "unreachable"),
            (500, "", "unreachable"),
            (403, "QuotaExceeded", "full"),
            (507, "", "full"),
            (501, "NotImplemented", "unusable"),
        ] {
            assert_eq!(kind(status, code), expected, "{status} {code}");
        }
    }
}
