//! Beside a database: holds its write lease, and stops it by itself when the lease runs out.
//!
//! Two processes. The *keeper* ([`keeper::run`]) renews the lease with the coordinator; what it waits for may hang. The
//! *switch* ([`switch::run`]) waits for nothing: it knows a deadline, and stops the database when that has passed. The
//! keeper renews nothing while the switch does not answer, and has a guard of its own behind it; the switch acts when the
//! keeper hangs, dies, or has nothing good to say.
//!
//! **Invariant:** an open session of the old primary is answered no write after the deadline of the last lease.
//! **Invariant:** a standby is never touched, and no database is ever started.

mod backstop;
pub mod boottime;
pub mod failsafe;
mod guard;
pub mod keeper;
mod link;
mod post;
mod process;
mod server;
pub mod settings;
pub mod status;
mod stop;
pub mod switch;
mod trouble;
mod wire;

pub use guard::Deed;
pub use keeper::Sentry;
pub use settings::Settings;
pub use trouble::Trouble;
