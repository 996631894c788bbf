//! What the operator wrote, as policy and wiring.
//!
//! A document goes up five floors, and every problem of a floor is reported at once: the file, TOML, each key
//! against the JSON Schema, the values taken over, the rules across keys. [`Config`] is what comes out on top;
//! [`environment`] then holds it against this machine.
//!
//! **Invariant:** no network, no clock; one file is read, and [`environment`] looks at those the document names.

mod archive;
mod config;
pub mod document;
mod effective;
mod environment;
mod form;
mod hour;
mod key;
mod length;
mod place;
mod policy;
mod problem;
mod rule;
mod rules;
mod schedule;
mod schema;
mod shape;
mod size;
mod source;
pub mod wiring;

pub use archive::{ArchivePlace, Bucket, SlotName};
pub use config::{Config, Loaded, Signer};
pub use environment::environment;
pub use form::{Cluster, FilePath, Fqdn, HostPort, HttpUrl, IpPort, Label, Target};
pub use hour::Hour;
pub use key::PublicKey;
pub use length::Length;
pub use problem::{MOST, Problem, Problems, WIDTH};
pub use rule::{Rule, Severity};
pub use schedule::{Due, Schedule, Timetable, Zone};
pub use schema::schema;
pub use size::Size;
pub use source::LIMIT;
pub use wiring::Wiring;
