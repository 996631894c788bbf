//! Places in a document by their keys, and the text they stand for.
//!
//! **Invariant:** every place has a text: that of a key which is not written is that of the table it would be in.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// A way down from the top of the document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    steps: Vec<Step>,
    on_key: bool,
}

impl Place {
    pub(crate) fn top() -> Self {
        Self::default()
    }

    /// The value of `key` here.
    pub(crate) fn key(&self, key: &str) -> Self {
        let mut place = self.clone();
        place.steps.push(Step::Key(key.to_owned()));
        place
    }

    /// The element `index` of the list here.
    pub(crate) fn index(&self, index: usize) -> Self {
        let mut place = self.clone();
        place.steps.push(Step::Index(index));
        place
    }

    /// The key itself, not its value.
    pub(crate) fn name(mut self) -> Self {
        self.on_key = true;
        self
    }

    /// Whether there is a value of its own here.
    pub(crate) fn is_written(&self, root: &DeTable<'_>) -> bool {
        let mut steps = self.steps.iter();
        let Some(Step::Key(first)) = steps.next() else { return true };
        let mut value = root.get(first.as_str());
        for step in steps {
            value = value.and_then(|v| match (step, v.get_ref()) {
                (Step::Key(name), DeValue::Table(table)) => table.get(name.as_str()),
                (Step::Index(index), DeValue::Array(array)) => array.get(*index),
                _ => None,
            });
        }
        value.is_some()
    }

    /// The bytes it stands for; nothing for the top of the document.
    pub(crate) fn span(&self, root: &DeTable<'_>) -> Option<Range<usize>> {
        let mut steps = self.steps.iter();
        let Some(Step::Key(first)) = steps.next() else { return None };
        let (key, mut value) = root.get_key_value(first.as_str())?;
        let mut span = text_of(key, value, self.on_key && self.steps.len() == 1);
        for (depth, step) in (2..).zip(steps) {
            let last_key = self.on_key && depth == self.steps.len();
            match (step, value.get_ref()) {
                (Step::Key(name), DeValue::Table(table)) => {
                    let Some((key, inner)) = table.get_key_value(name.as_str()) else { break };
                    span = text_of(key, inner, last_key);
                    value = inner;
                }
                (Step::Index(index), DeValue::Array(array)) => {
                    let Some(inner) = array.get(*index) else { break };
                    span = inner.span();
                    value = inner;
                }
                _ => break,
            }
        }
        Some(span)
    }
}

fn text_of(
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    on_key: bool,
) -> Range<usize> {
    if on_key { key.span() } else { value.span() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_or_their_table_is() {
        let text = "[[w]]\na = 1\n[[w]]\nb = { c = [7, 8] }\n[w.d]\n";
        let root = DeTable::parse(text).unwrap();
        let shown = |place: Place| place.span(root.get_ref()).map(|span| &text[span]);
        let second = Place::top().key("w").index(1);
        assert_eq!(shown(Place::top().key("w").index(0).key("a")), Some("1"));
        assert_eq!(shown(second.key("b").key("c").index(1)), Some("8"));
        assert_eq!(shown(second.key("b").name()), Some("b"));
        assert_eq!(shown(second.key("missing")), Some("[[w]]"));
        assert_eq!(shown(second.key("missing").key("deeper").name()), Some("[[w]]"));
        assert_eq!(shown(second.key("d").key("missing")), Some("[w.d]"));
        assert_eq!(shown(Place::top()), None);
        assert_eq!(shown(Place::top().key("none")), None);
    }
}
