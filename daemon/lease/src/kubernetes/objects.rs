//! What the objects are called, and how they are told apart from others in the namespace.
//!
//! **Invariant:** two agents, two orders or two parts of the record never have one name.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lifeboat_core::AgentName;

/// Whose objects these are.
const OWNER: &str = "app.kubernetes.io/managed-by";
/// Of which lifeboat.
const INSTANCE: &str = "app.kubernetes.io/instance";
/// What an object is.
pub(super) const PART: &str = "app.kubernetes.io/component";

/// What an object is; the value of its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The end of the record, with term and heads.
    Record,
    /// An older part of the record, which never changes; it is not watched.
    Sealed,
    /// What a vantage says.
    Testimony,
    /// An order, and its answer.
    Order,
}

impl Part {
    const fn label(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Sealed => "sealed-record",
            Self::Testimony => "testimony",
            Self::Order => "order",
        }
    }

    /// What that object is; none when it is none of ours.
    pub(super) fn of(object: &ConfigMap) -> Option<Self> {
        let label = object.metadata.labels.as_ref()?.get(PART)?;
        [Self::Record, Self::Sealed, Self::Testimony, Self::Order]
            .into_iter()
            .find(|part| part.label() == label.as_str())
    }
}

/// The names of one lifeboat's objects.
#[derive(Clone, Debug)]
pub(super) struct Names(String);

impl Names {
    pub(super) const fn new(name: String) -> Self {
        Self(name)
    }

    /// The Lease.
    pub(super) fn lease(&self) -> &str {
        &self.0
    }

    /// The end of the record.
    pub(super) fn record(&self) -> String {
        format!("{}-record", self.0)
    }

    /// The older part of the record that begins there.
    pub(super) fn sealed(&self, first: u64) -> String {
        format!("{}-record-{first}", self.0)
    }

    /// What that vantage says. A name that Kubernetes would not take is written in hexadecimal, behind a dot, where no
    /// other name can be.
    pub(super) fn testimony(&self, vantage: &AgentName) -> String {
        let name = vantage.as_str();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let taken = name.starts_with(plain)
            && name.ends_with(plain)
            && name.len() <= 63
            && name.chars().all(|c| plain(c) || c == '-');
        match taken {
            true => format!("{}-testimony-{name}", self.0),
            false => format!("{}-testimony.{}", self.0, hexadecimal(name.as_bytes())),
        }
    }

    /// The order of that name.
    pub(super) fn order(&self, id: &str) -> String {
        format!("{}-order-{id}", self.0)
    }

    /// The label selector of what is watched.
    pub(super) fn watched(&self) -> String {
        let parts = [Part::Record, Part::Testimony, Part::Order].map(Part::label).join(",");
        format!("{OWNER}=lifeboat,{INSTANCE}={},{PART} in ({parts})", self.0)
    }

    /// An object of ours without content.
    pub(super) fn object(&self, name: String, part: Part) -> ConfigMap {
        let labels = [(OWNER, "lifeboat"), (INSTANCE, &self.0), (PART, part.label())];
        let labels: BTreeMap<_, _> = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let metadata = ObjectMeta { name: Some(name), labels: Some(labels), ..ObjectMeta::default() };
        ConfigMap { metadata, ..ConfigMap::default() }
    }
}

/// Bytes as text that a name can hold.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A word that nobody else has: 128 random bits.
pub(super) fn word() -> Option<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(hexadecimal(&bytes))
}

/// One entry of an object.
pub(super) fn entry<'a>(object: &'a ConfigMap, key: &str) -> Option<&'a str> {
    object.data.as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_vantages_have_one_object() {
        let names = Names::new("lifeboat".to_owned());
        let agents = ["east", "EAST", "east.", "65617374", "-east", "e ast", "ea.st", "ä"];
        let objects: std::collections::BTreeSet<_> =
            agents.iter().map(|agent| names.testimony(&AgentName::new(*agent))).collect();
        assert_eq!(objects.len(), agents.len(), "{objects:?}");
        let taken = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        assert!(objects.iter().all(|object| object.chars().all(taken)), "{objects:?}");
    }
}
