//! Floor three: every key and value of the document against the JSON Schema, one at a time, all at once.
//!
//! **Invariant:** nothing below an unknown key is looked at, so the depth of the walk is that of the schema.

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::form::{self, Flaw, shown};
use crate::length::Length;
use crate::problem::{Found, Problem};
use crate::rule::Rule;

mod words;

pub(crate) use words::nearest;

/// Checks `root` against `schema`.
pub(crate) fn check(schema: &Value, root: &Spanned<DeTable<'_>>, found: &mut Found) {
    let mut walk = Walk { schema, found, path: Vec::new() };
    let top = walk.resolve(schema);
    walk.table(&top, root.get_ref(), None);
}

/// One schema: its own keywords, then those of the definition it refers to.
struct Shape<'s> {
    own: &'s Map<String, Value>,
    referred: Option<&'s Map<String, Value>>,
}

impl<'s> Shape<'s> {
    fn get(&self, keyword: &str) -> Option<&'s Value> {
        self.own.get(keyword).or_else(|| self.referred?.get(keyword))
    }

    fn text(&self, keyword: &str) -> Option<&'s str> {
        self.get(keyword)?.as_str()
    }

    fn number(&self, keyword: &str) -> Option<u64> {
        self.get(keyword)?.as_u64()
    }

    fn list(&self, keyword: &str) -> &'s [Value] {
        self.get(keyword).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn properties(&self) -> Option<&'s Map<String, Value>> {
        self.get("properties")?.as_object()
    }

    /// The words allowed, when it is a choice of words.
    fn words(&self) -> Option<Vec<&'s str>> {
        if let Some(only) = self.text("const") {
            return Some(vec![only]);
        }
        let listed = self.list("enum");
        if !listed.is_empty() {
            return listed.iter().map(Value::as_str).collect();
        }
        let choices = self.list("oneOf");
        let each = || choices.iter().map(|choice| choice.get("const")?.as_str());
        (!choices.is_empty()).then(each).and_then(Iterator::collect)
    }
}

struct Walk<'s, 'f> {
    schema: &'s Value,
    found: &'f mut Found,
    path: Vec<String>,
}

type Node<'a, 'i> = &'a Spanned<DeValue<'i>>;

impl<'s> Walk<'s, '_> {
    fn resolve(&self, schema: &'s Value) -> Shape<'s> {
        static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        let own = schema.as_object().unwrap_or(&NONE);
        let referred = own.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/"));
        let referred = referred.and_then(|name| self.schema.get("$defs")?.get(name)?.as_object());
        Shape { own, referred }
    }

    fn add(
        &mut self,
        rule: Rule,
        span: Option<std::ops::Range<usize>>,
        message: String,
        help: impl Into<String>,
    ) {
        self.found.add(Problem { rule, message, help: help.into(), span });
    }

    fn here(&self) -> String {
        self.path.join(".")
    }

    fn value(&mut self, shape: &Shape<'s>, node: Node<'_, '_>) {
        if let Some(words) = shape.words() {
            return self.word(&words, node);
        }
        match (shape.text("type"), node.get_ref()) {
            (Some("object"), DeValue::Table(table)) => self.table(shape, table, Some(node)),
            (None, DeValue::Table(table)) if !shape.list("oneOf").is_empty() => {
                self.tagged(shape, table, node)
            }
            (Some("array"), DeValue::Array(array)) => self.array(shape, array, node),
            (Some("string"), DeValue::String(text)) => self.text(shape, text, node),
            (Some("integer"), DeValue::Integer(_)) => self.integer(shape, node),
            (Some("boolean"), DeValue::Boolean(_)) => {}
            (kind, _) => {
                let wanted = kind.unwrap_or("object");
                let (message, help) =
                    words::wrong_type(&self.here(), wanted, shape.text("format"), node.get_ref());
                let unitless =
                    shape.text("format") == Some("lifeboat-duration") && node.get_ref().is_integer();
                let rule = if unitless { Rule::BadDuration } else { Rule::WrongType };
                self.add(rule, Some(node.span()), message, help);
            }
        }
    }

    fn table(&mut self, shape: &Shape<'s>, table: &DeTable<'_>, node: Option<Node<'_, '_>>) {
        let none = Map::new();
        let known = shape.properties();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if let Some(schema) = known.and_then(|k| k.get(name)) {
                self.path.push(name.to_owned());
                self.value(&self.resolve(schema), value);
                self.path.pop();
            } else if let Some(schema) = shape.get("additionalProperties").filter(|s| s.is_object()) {
                self.path.push(shown(name));
                self.value(&self.resolve(schema), value);
                self.path.pop();
            } else {
                let names = known.unwrap_or(&none).keys().map(String::as_str);
                let help = if self.found.full() { String::new() } else { words::unknown_key(name, names) };
                let place =
                    if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.here()) };
                self.add(
                    Rule::UnknownKey,
                    Some(key.span()),
                    format!("unknown key `{}`{place}", shown(name)),
                    help,
                );
            }
        }
        for key in shape.list("required").iter().filter_map(Value::as_str) {
            if !table.contains_key(key) {
                self.missing(shape, key, node);
            }
        }
    }

    fn missing(&mut self, shape: &Shape<'s>, key: &str, node: Option<Node<'_, '_>>) {
        let about = shape.properties().and_then(|p| p.get(key)).map(|schema| self.resolve(schema));
        let kind = about.as_ref().and_then(|s| s.text("type")).unwrap_or_default();
        let tables = about.as_ref().and_then(|s| s.get("items")).is_some_and(|items| {
            let items = self.resolve(items);
            items.text("type") == Some("object") || items.text("type").is_none()
        });
        let path = self.path.iter().map(String::as_str).chain([key]).collect::<Vec<_>>().join(".");
        let written = match kind {
            "array" if tables => format!("add [[{path}]]"),
            "object" => format!("add [{path}]"),
            _ => key.to_owned(),
        };
        let about = about.and_then(|s| s.text("description")).unwrap_or_default();
        let place =
            if self.path.is_empty() { "the document".to_owned() } else { format!("`{}`", self.here()) };
        let span = node.map(Spanned::span);
        self.add(
            Rule::MissingKey,
            span,
            format!("`{key}` is missing in {place}"),
            words::about(&written, about),
        );
    }

    /// A table whose keys depend on the word that one of them, the tag, holds.
    fn tagged(&mut self, shape: &Shape<'s>, table: &DeTable<'_>, node: Node<'_, '_>) {
        let branches: Vec<Shape<'s>> = shape.list("oneOf").iter().map(|s| self.resolve(s)).collect();
        let Some((tag, words)) = words::tag(branches.iter().filter_map(Shape::properties)) else { return };
        let Some(value) = table.get(tag) else {
            let help = format!("one of {}", words::quoted(&words));
            let message = format!("`{tag}` is missing in `{}`", self.here());
            return self.add(Rule::MissingKey, Some(node.span()), message, help);
        };
        let chosen = value.get_ref().as_str().and_then(|word| words.iter().position(|w| *w == word));
        match chosen {
            Some(at) => self.table(&branches[at], table, Some(node)),
            None => {
                self.path.push(tag.to_owned());
                self.word(&words, value);
                self.path.pop();
            }
        }
    }

    fn word(&mut self, words: &[&str], node: Node<'_, '_>) {
        let DeValue::String(text) = node.get_ref() else {
            let (message, _) = words::wrong_type(&self.here(), "string", None, node.get_ref());
            return self.add(
                Rule::WrongType,
                Some(node.span()),
                message,
                format!("one of {}", words::quoted(words)),
            );
        };
        if !words.contains(&text.as_ref()) {
            let message = format!("`{}` cannot be \"{}\"", self.here(), shown(text));
            let help = words::word_hint(text, words);
            self.add(Rule::UnknownValue, Some(node.span()), message, help);
        }
    }

    fn array(&mut self, shape: &Shape<'s>, array: &toml::de::DeArray<'_>, node: Node<'_, '_>) {
        let count = array.len() as u64;
        let (least, most) =
            (shape.number("minItems").unwrap_or(0), shape.number("maxItems").unwrap_or(u64::MAX));
        if count < least || count > most {
            let (message, help) = words::wrong_count(&self.here(), "", count, least, most);
            self.add(Rule::WrongSize, Some(node.span()), message, help);
            if count > most {
                return;
            }
        }
        if let Some(items) = shape.get("items") {
            for item in array.iter() {
                self.value(&self.resolve(items), item);
            }
        }
        if shape.get("uniqueItems").is_some_and(|u| *u == true) {
            self.unique(array);
        }
    }

    fn unique(&mut self, array: &toml::de::DeArray<'_>) {
        let mut seen = std::collections::BTreeSet::new();
        for item in array.iter() {
            let Some(text) = item.get_ref().as_str() else { continue };
            if !seen.insert(text.to_ascii_lowercase()) {
                let message = format!("\"{}\" is twice in `{}`", shown(text), self.here());
                self.add(Rule::RepeatedValue, Some(item.span()), message, "remove one of them");
            }
        }
    }

    fn text(&mut self, shape: &Shape<'s>, text: &str, node: Node<'_, '_>) {
        let count = text.chars().count() as u64;
        let (least, most) =
            (shape.number("minLength").unwrap_or(0), shape.number("maxLength").unwrap_or(u64::MAX));
        if count < least || count > most {
            let (message, help) = words::wrong_count(&self.here(), "character", count, least, most);
            return self.add(Rule::WrongSize, Some(node.span()), message, help);
        }
        let checked = shape.text("format").and_then(|format| form::check(format, text));
        if let Some(Err(Flaw { rule, message, help })) = checked {
            return self.add(rule, Some(node.span()), format!("`{}`: {message}", self.here()), help);
        }
        if let Ok(length) = Length::read(text)
            && shape.text("format") == Some("lifeboat-duration")
        {
            self.duration(shape, length, node);
        }
    }

    fn duration(&mut self, shape: &Shape<'s>, length: Length, node: Node<'_, '_>) {
        let bound = |keyword| shape.text(keyword).and_then(|text| Length::read(text).ok());
        let (least, most) = (bound("x-minimum"), bound("x-maximum"));
        if least.is_some_and(|least| length < least) || most.is_some_and(|most| length > most) {
            let (message, help) = words::out_of_range(&self.here(), &length, least, most);
            self.add(Rule::OutOfRange, Some(node.span()), message, help);
        } else if let Some(who) = shape.text("x-whole-seconds").filter(|_| length.0.subsec_nanos() != 0) {
            let message = format!("`{}` is {length}, which is no whole number of seconds", self.here());
            let help = format!("{who} counts in whole seconds");
            self.add(Rule::WholeSeconds, Some(node.span()), message, help);
        }
    }

    fn integer(&mut self, shape: &Shape<'s>, node: Node<'_, '_>) {
        let DeValue::Integer(written) = node.get_ref() else { return };
        let value = i128::from_str_radix(written.as_str(), written.radix()).unwrap_or(i128::MAX);
        let bound = |keyword| shape.get(keyword).and_then(Value::as_i64).map(i128::from);
        let (least, most) = (bound("minimum"), bound("maximum"));
        if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
            let (message, help) =
                words::out_of_range(&self.here(), &shown(&written.to_string()), least, most);
            self.add(Rule::OutOfRange, Some(node.span()), message, help);
        }
    }
}
