//! Google's services, by their JSON interfaces.
//!
//! **Invariant:** one TLS stack, and one HTTP client, which the rest of lifeboat has already.
//! **Invariant:** a token goes to the service it is for, and nowhere else; none is in an error or a log.

pub mod gcs;
