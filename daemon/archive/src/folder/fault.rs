//! What an error of the system means for a store.

use std::io;

use lifeboat_engine::ports::StoreError;
use rustix::io::Errno;

/// What the system's error means; `shown` is the path it is about.
pub(super) fn of(errno: Errno, shown: &str) -> StoreError {
    let text = format!("{shown}: {}", io::Error::from(errno));
    match errno {
        // A limit of the size of one file, of the file system's or of the process's own, is a kind of full.
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => StoreError::Full(text),
        Errno::ACCESS | Errno::PERM | Errno::ROFS => StoreError::Denied(text),
        Errno::AGAIN
        | Errno::INTR
        | Errno::MFILE
        | Errno::NFILE
        | Errno::NOMEM
        | Errno::STALE
        | Errno::TIMEDOUT
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NETUNREACH => StoreError::Unreachable(text),
        _ => StoreError::Unusable(text),
    }
}

/// The same, for an error of the standard library's.
pub(super) fn of_io(error: &io::Error, shown: &str) -> StoreError {
    match error.raw_os_error() {
        Some(number) => of(Errno::from_raw_os_error(number), shown),
        None => StoreError::Unusable(format!("{shown}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do_next() {
        assert!(matches!(of(Errno::NOSPC, "a"), StoreError::Full(_)));
        assert!(matches!(of(Errno::DQUOT, "a"), StoreError::Full(_)));
        assert!(matches!(of(Errno::ROFS, "a"), StoreError::Denied(_)));
        assert!(of(Errno::STALE, "a").passing());
        assert!(!of(Errno::IO, "a").passing());
    }
}
