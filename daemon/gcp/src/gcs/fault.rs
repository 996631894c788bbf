//! What an answer of the service means for a store.
//!
//! The status decides, and the reason where the status says too little
//! (<https://cloud.google.com/storage/docs/json_api/v1/status-codes>).

use lifeboat_engine::ports::StoreError;
use serde::Deserialize;

use super::http::Answer;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    error: Error,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Error {
    message: String,
    errors: Vec<Reason>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
}

/// Names the trouble; what is about one object alone is the caller's to name before.
pub(super) fn of(answer: &Answer) -> StoreError {
    let said: Said = serde_json::from_slice(&answer.body).unwrap_or_default();
    let reason = said.error.errors.first().map(|first| first.reason.as_str()).unwrap_or_default();
    let message: String = said.error.message.chars().take(300).collect();
    let text = format!("{} {reason}: {message}", answer.status);
    match (answer.status, reason) {
        (_, "rateLimitExceeded" | "userRateLimitExceeded" | "backendError") => StoreError::Unreachable(text),
        (_, "quotaExceeded") => StoreError::Full(text),
        (401 | 403, _) => StoreError::Denied(text),
        (status, _) if passing(status) => StoreError::Unreachable(text),
        _ => StoreError::Unusable(text),
    }
}

/// Whether the same may be asked again.
pub(super) fn passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}
