//! What is said about a key or a value that does not fit.
//!
//! **Invariant:** texts from the document are quoted through `shown`.

use std::fmt::Display;

use serde_json::{Map, Value};
use toml::de::DeValue;

use crate::form::shown;

/// Message and hint for a value of another type.
pub(super) fn wrong_type(
    path: &str,
    wanted: &str,
    format: Option<&str>,
    value: &DeValue<'_>,
) -> (String, String) {
    let found = match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(array) if array.iter().next().is_some_and(|v| v.get_ref().is_table()) => {
            "a list of tables"
        }
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    let table = path.rsplit('.').next().unwrap_or(path);
    let (expected, help) = match (wanted, format, value) {
        ("string", Some("lifeboat-duration"), DeValue::Integer(n)) => {
            let n = shown(n.as_str());
            return (
                format!("`{path}` has no unit"),
                format!(
                    "say what {n} counts, for example \"{n}ms\", \"{n}s\", \"{n}m\", \"{n}h\" or \"{n}d\""
                ),
            );
        }
        ("string", Some("lifeboat-duration"), _) => {
            ("a duration", "for example \"250ms\", \"5s\" or \"1h30m\"".to_owned())
        }
        ("string", ..) => ("a text", "put it in quotes".to_owned()),
        ("integer", _, DeValue::String(_)) => ("a number", "write it without quotes".to_owned()),
        ("integer", ..) => ("a whole number", String::new()),
        ("boolean", ..) => ("true or false", "without quotes".to_owned()),
        ("array", _, DeValue::Table(_)) => ("a list", format!("begin each element with [[{path}]]")),
        ("array", ..) => ("a list", "put the values in brackets: [ … ]".to_owned()),
        (_, _, DeValue::Array(_)) => ("one table", format!("write [{path}], not [[{path}]]")),
        _ => ("a table", format!("write [{path}] and its keys below it, or {table} = {{ … }}")),
    };
    (format!("`{path}` must be {expected}, not {found}"), help)
}

/// The nearest known key, or all of them.
pub(super) fn unknown_key<'a>(key: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(key, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let all: Vec<_> = known.map(|k| format!("`{k}`")).collect();
            format!("the keys here are {}", all.join(", "))
        }
    }
}

/// The word that was probably meant, or all of them.
pub(super) fn word_hint(word: &str, words: &[&str]) -> String {
    match nearest(word, words.iter().copied()) {
        Some(near) if words.len() > 1 => format!("did you mean \"{near}\"? It can be {}", quoted(words)),
        _ => format!("it can be {}", quoted(words)),
    }
}

/// The known word nearest to `word`, if it can be a slip of the hand.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are not compared: no key is that long, and the work grows with the square.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    let distance = |k: &str| strsim::damerau_levenshtein(&word, &k.to_lowercase());
    known.map(|k| (distance(k), k)).filter(|(d, _)| *d <= allowed).min().map(|(_, k)| k)
}

/// Words as they are written: `"a", "b" or "c"`.
pub(super) fn quoted(words: &[&str]) -> String {
    let each: Vec<_> = words.iter().map(|w| format!("\"{w}\"")).collect();
    match each.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

/// The key that tells the branches of a choice apart, with its word in each branch.
pub(super) fn tag<'s>(
    branches: impl Iterator<Item = &'s Map<String, Value>>,
) -> Option<(&'s str, Vec<&'s str>)> {
    let tagged = branches.map(|properties| {
        properties.iter().find_map(|(key, schema)| Some((key.as_str(), schema.get("const")?.as_str()?)))
    });
    let tagged: Vec<_> = tagged.collect::<Option<_>>()?;
    let key = tagged.first()?.0;
    Some((key, tagged.into_iter().map(|(_, word)| word).collect()))
}

/// The first sentence of what is said about a key.
pub(super) fn about(written: &str, description: &str) -> String {
    let line = description.split('\n').next().unwrap_or_default();
    if line.is_empty() { String::new() } else { format!("{written}: {line}") }
}

/// Message and hint for a list or a text that is too short or too long.
pub(super) fn wrong_count(path: &str, what: &str, count: u64, least: u64, most: u64) -> (String, String) {
    let noun = if what.is_empty() { "value" } else { what };
    let many = |n: u64| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    if count == 0 {
        return (format!("`{path}` is empty"), format!("at least {}", many(least)));
    }
    let limit =
        if count < least { format!("at least {}", many(least)) } else { format!("at most {}", many(most)) };
    (format!("`{path}` has {}", many(count)), limit)
}

/// Message and hint for a number or a duration out of its range.
pub(super) fn out_of_range<T: Display>(
    path: &str,
    value: &dyn Display,
    least: Option<T>,
    most: Option<T>,
) -> (String, String) {
    let help = match (least, most) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("{least} or more"),
        (None, Some(most)) => format!("{most} or less"),
        (None, None) => String::new(),
    };
    (format!("`{path}` is {value}, out of its range"), help)
}
