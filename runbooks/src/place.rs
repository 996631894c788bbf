//! Where each thing stands on a page, so that a flaw can point at it.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The places of a page, in bytes.
pub(crate) struct Places<'t> {
    text: &'t str,
    table: DeTable<'t>,
}

impl<'t> Places<'t> {
    pub(crate) const fn new(text: &'t str, table: DeTable<'t>) -> Self {
        Self { text, table }
    }

    pub(crate) const fn text(&self) -> &'t str {
        self.text
    }

    /// Of a value above the steps; the first line when there is none.
    pub(crate) fn header(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or(0..self.text.find('\n').unwrap_or(self.text.len()), Spanned::span)
    }

    /// Of a value of a step, by its path (`with.url`, `needs.fenced`); of the nearest thing around it that is
    /// there, and of what the step does when nothing is.
    pub(crate) fn step(&self, index: usize, path: &str) -> Range<usize> {
        let Some(step) = self.entry(index) else { return self.header("step") };
        let DeValue::Table(table) = step.get_ref() else { return step.span() };
        let Some((first, rest)) = parts(path) else { return step.span() };
        match table.get(first) {
            Some(value) => rest.map_or_else(|| value.span(), |rest| within(value, rest)),
            None => table.get("do").unwrap_or(step).span(),
        }
    }

    fn entry(&self, index: usize) -> Option<&Spanned<DeValue<'t>>> {
        match self.table.get("step")?.get_ref() {
            DeValue::Array(steps) => steps.get(index),
            _ => None,
        }
    }
}

/// The first name of a path, and the rest.
fn parts(path: &str) -> Option<(&str, Option<&str>)> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    (!first.is_empty()).then_some((first, rest))
}

/// Inside a table by key, inside a list by the text of the element.
fn within(value: &Spanned<DeValue<'_>>, path: &str) -> Range<usize> {
    let found = match value.get_ref() {
        DeValue::Table(table) => {
            let (first, rest) = parts(path).unwrap_or((path, None));
            return match (table.get(first), rest) {
                (Some(inner), Some(rest)) => within(inner, rest),
                (Some(inner), None) => inner.span(),
                (None, _) => value.span(),
            };
        }
        DeValue::Array(list) => list.iter().find(|element| match element.get_ref() {
            DeValue::String(text) => text.as_ref() == path,
            DeValue::Integer(number) => number.as_str() == path,
            _ => false,
        }),
        _ => None,
    };
    found.unwrap_or(value).span()
}
