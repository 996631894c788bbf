//! The names of the keys.
//!
//! **Invariant:** a name that a person chose is one part of a key, whatever it consists of.

use lifeboat_core::{AgentName, RegionName, WorkloadName};

/// The keys of one lifeboat.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

/// What a key is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Guardian,
    Newest,
    Batch(u64),
    Testimony(AgentName),
    Order(String),
    Answer(String),
    Write(WorkloadName, RegionName),
    Head(WorkloadName),
    /// What a newer lifeboat keeps here.
    Other,
}

impl Keys {
    pub(super) fn new(name: &str) -> Self {
        Self { prefix: format!("/lifeboat/{}/", part(name)) }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn guardian(&self) -> String {
        format!("{}guardian", self.prefix)
    }

    pub(super) fn newest(&self) -> String {
        format!("{}newest", self.prefix)
    }

    pub(super) fn batches(&self) -> String {
        format!("{}record/", self.prefix)
    }

    /// The batch that begins with this record.
    pub(super) fn batch(&self, first: u64) -> String {
        format!("{}record/{first:020}", self.prefix)
    }

    pub(super) fn heads(&self) -> String {
        format!("{}head/", self.prefix)
    }

    pub(super) fn head(&self, workload: &WorkloadName) -> String {
        format!("{}head/{}", self.prefix, part(workload.as_str()))
    }

    pub(super) fn testimonies(&self) -> String {
        format!("{}testimony/", self.prefix)
    }

    pub(super) fn testimony(&self, agent: &AgentName) -> String {
        format!("{}testimony/{}", self.prefix, part(agent.as_str()))
    }

    pub(super) fn orders(&self) -> String {
        format!("{}order/", self.prefix)
    }

    pub(super) fn order(&self, id: &str) -> String {
        format!("{}order/{}", self.prefix, part(id))
    }

    pub(super) fn answers(&self) -> String {
        format!("{}answer/", self.prefix)
    }

    pub(super) fn answer(&self, id: &str) -> String {
        format!("{}answer/{}", self.prefix, part(id))
    }

    pub(super) fn writes(&self) -> String {
        format!("{}write/", self.prefix)
    }

    pub(super) fn write(&self, workload: &WorkloadName, region: &RegionName) -> String {
        format!("{}write/{}/{}", self.prefix, part(workload.as_str()), part(region.as_str()))
    }

    /// What a key under the prefix is about.
    pub(super) fn place(&self, key: &[u8]) -> Place {
        self.known(key).unwrap_or(Place::Other)
    }

    fn known(&self, key: &[u8]) -> Option<Place> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?;
        let place = match rest.split_once('/') {
            None if rest == "guardian" => Place::Guardian,
            None if rest == "newest" => Place::Newest,
            Some(("record", first)) => Place::Batch(first.parse().ok()?),
            Some(("testimony", agent)) => Place::Testimony(AgentName::new(whole(agent)?)),
            Some(("order", id)) => Place::Order(whole(id)?),
            Some(("answer", id)) => Place::Answer(whole(id)?),
            Some(("head", workload)) => Place::Head(WorkloadName::new(whole(workload)?)),
            Some(("write", rest)) => {
                let (workload, region) = rest.split_once('/')?;
                Place::Write(WorkloadName::new(whole(workload)?), RegionName::new(whole(region)?))
            }
            _ => return None,
        };
        Some(place)
    }
}

/// A name as one part of a key: what is not a letter, a digit or one of `-._` is written as in a URL (RFC 3986, 2.1).
fn part(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// The name again; none when it is not written as [`part`] writes it.
fn whole(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|name| part(name) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_whatever_it_consists_of() {
        let keys = Keys::new("a/b");
        assert_eq!(keys.prefix(), "/lifeboat/a%2Fb/");
        for name in ["shop", "shop/east", "100%", "küste", "..", "a b", ""] {
            let place = Place::Write(WorkloadName::new(name), RegionName::new("r/1"));
            assert_eq!(keys.place(keys.write(&name.into(), &"r/1".into()).as_bytes()), place);
            assert_eq!(
                keys.place(keys.testimony(&name.into()).as_bytes()),
                Place::Testimony(AgentName::new(name))
            );
        }
        assert_eq!(keys.place(keys.batch(42).as_bytes()), Place::Batch(42));
        assert_eq!(keys.place(keys.guardian().as_bytes()), Place::Guardian);
        assert_eq!(keys.place(b"/lifeboat/other/guardian"), Place::Other);
        assert_eq!(keys.place(b"/lifeboat/a%2Fb/testimony/%zz"), Place::Other);
        assert_eq!(keys.place(b"/lifeboat/a%2Fb/testimony/a/b"), Place::Other);
        assert_eq!(keys.place(keys.head(&"shop".into()).as_bytes()), Place::Head("shop".into()));
    }

    #[test]
    fn batches_sort_by_place() {
        let keys = Keys::new("x");
        assert!(keys.batch(9) < keys.batch(10));
        assert!(keys.batch(99_999) < keys.batch(u64::MAX));
    }
}
