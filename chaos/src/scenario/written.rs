//! From the text of a scenario to its value, with the line of what is wrong.

use std::time::Duration;

use super::{Fault, Scenario};

/// What is wrong with a scenario, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {what}")]
pub struct Flaw {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What.
    pub what: String,
}

/// Reads a scenario. `file` is named in errors, and must be the scenario's name.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(file: &str, text: &str) -> Result<Scenario, Flaw> {
    let flaw = |place: usize, what: String| {
        let before = &text[..place.min(text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
        Flaw { file: file.to_owned(), line, column, what }
    };
    let scenario: Scenario = toml::from_str(text).map_err(|error| {
        // What serde says of a table has the place of the table.
        flaw(error.span().map_or(0, |span| span.start), error.message().to_owned())
    })?;
    let key = |name: &str| text.find(name).unwrap_or_default();
    let wanted = std::path::Path::new(file).file_stem().and_then(|stem| stem.to_str());
    if wanted != Some(&scenario.name) {
        return Err(flaw(key("name"), format!("its name is \"{}\", unlike its file's", scenario.name)));
    }
    if !scenario.about.ends_with('.') || scenario.about.contains('\n') {
        return Err(flaw(key("about"), "about is one sentence, with its full stop".to_owned()));
    }
    if scenario.real.scale <= 0.0 || scenario.real.scale > 1.0 {
        return Err(flaw(key("scale"), "scale is more than 0 and at most 1".to_owned()));
    }
    // Each `[[at]]` in the order of the text.
    let mut places = text.match_indices("[[at]]").map(|(at, _)| at);
    let mut last = Duration::ZERO;
    for happening in &scenario.happenings {
        let place = places.next().unwrap_or_default();
        if happening.at < last {
            return Err(flaw(place, "it happens before the one above it; put them in order".to_owned()));
        }
        last = happening.at;
        let many = happening.times.unwrap_or(1);
        if many == 0 || (many > 1 && happening.every.is_none()) {
            return Err(flaw(
                place,
                "times is 1 or more, and needs `every` when it is more than 1".to_owned(),
            ));
        }
        if happening.every.zip(happening.lasts).is_some_and(|(every, lasts)| lasts >= every) {
            return Err(flaw(
                place,
                "it must end before it begins again: `for` is less than `every`".to_owned(),
            ));
        }
        if let Fault::Lose { percent: 101.. } = happening.fault {
            return Err(flaw(place, "percent is 0 to 100".to_owned()));
        }
        if let Fault::Lie { about: super::Site::Witness, .. }
        | Fault::HangWrites { site: super::Site::Witness }
        | Fault::FailPromotion { site: super::Site::Witness } = happening.fault
        {
            return Err(flaw(place, "there is no database at the witness".to_owned()));
        }
    }
    Ok(scenario)
}

/// Reads `250ms`, `20s`, `10m`, `1h`.
fn read(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(unit)?))
}

fn refused<E: serde::de::Error>(text: &str) -> E {
    E::custom(format!("\"{text}\" is not a length; write 250ms, 20s, 10m or 1h"))
}

/// A length with its unit.
pub(super) mod length {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    pub(in crate::scenario) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        super::read(&text).ok_or_else(|| super::refused(&text))
    }
}

/// The same where it may be left out.
pub(super) mod length_option {
    use std::time::Duration;

    use serde::Deserializer;

    pub(in crate::scenario) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::length::deserialize(d).map(Some)
    }
}

/// A length with its sign, in milliseconds.
pub(super) mod signed {
    use serde::{Deserialize, Deserializer};

    pub(in crate::scenario) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
        let text = String::deserialize(d)?;
        let (sign, rest) = match text.split_at_checked(1) {
            Some(("-", rest)) => (-1, rest),
            Some(("+", rest)) => (1, rest),
            _ => (1, text.as_str()),
        };
        let length = super::read(rest).ok_or_else(|| super::refused(&text))?;
        Ok(sign * i64::try_from(length.as_millis()).unwrap_or(i64::MAX))
    }
}
