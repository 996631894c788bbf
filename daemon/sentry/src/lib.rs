//! Beside a database: holds its write lease, and stops it by itself when the lease runs out.
