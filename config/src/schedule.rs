//! When something is due: a line as in cron(8), in a time zone, with a jitter that is the same each time.
//!
//! A line that names hours is a list of local times, and each of them comes once a day: one that the clocks jump over in
//! spring is due when the jump is over, one that they show twice in autumn is due the first time. A line that is due in
//! every hour goes by the clock on the wall, and so by elapsed hours.
//!
//! **Invariant:** what is due next depends on the line, the zone, the names and the moment alone.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, LocalResult, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use lifeboat_core::Moment;

use crate::form::{Flaw, shown, text_form};
use crate::rule::Rule;

/// The longest line taken.
const LONGEST: usize = 100;

/// A line that is due sometimes, as in cron(8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    cron: Cron,
    hourly: bool,
}

text_form! {
    Schedule, "lifeboat-schedule", r"^(@(hourly|daily|weekly|monthly|yearly)|\S+( +\S+){4})$",
    "A line as in cron(8): minute, hour, day of the month, month, day of the week; or @hourly, @daily, @weekly, @monthly, @yearly."
}

impl Schedule {
    /// Reads a line.
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        let help = "five fields as in cron(8), minute, hour, day of the month, month, day of the week: \"0 2 * * *\" is \
                    each night at two, \"0 */6 * * *\" each six hours; or @hourly, @daily, @weekly, @monthly";
        let flaw = |why: &str| {
            Flaw::new(Rule::BadSchedule, format!("`{}` is no schedule: {why}", shown(text)), help)
        };
        if text.len() > LONGEST {
            return Err(flaw("it is too long"));
        }
        let line = match text {
            "@hourly" => "0 * * * *",
            "@daily" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" => "0 0 1 1 *",
            line => line,
        };
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, _, day, _, weekday] = fields.as_slice() else {
            return Err(flaw(&format!("it has {} fields, not five", fields.len())));
        };
        if line.starts_with('@') || line.contains(['?', '+', 'W', 'w']) {
            return Err(flaw("that is not known here"));
        }
        // cron(8): when both day fields are restricted, either one is enough. One that begins with a star does not count as
        // restricted, even with a step.
        let stepped = [day, weekday].iter().any(|field| field.starts_with('*') && field.len() > 1);
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed);
        let cron =
            parser.dom_and_dow(stepped).build().parse(line).map_err(|error| flaw(&error.to_string()))?;
        let hourly = (0..24).all(|hour| cron.pattern.hour_match(hour).unwrap_or_default());
        let schedule = Self { text: text.to_owned(), cron, hourly };
        let epoch = Moment::default();
        if schedule.next(Zone::UTC, epoch).is_none() {
            return Err(flaw("it is never due"));
        }
        Ok(schedule)
    }

    /// A default of ours.
    pub(crate) fn nightly() -> Self {
        let text = "0 2 * * *";
        let cron = CronParser::new().parse(text);
        #[expect(clippy::unwrap_used, reason = "a constant, and read in a test")]
        Self { text: text.to_owned(), cron: cron.unwrap(), hourly: false }
    }

    /// When it is due first after that moment; never, when the calendar ends before.
    #[must_use]
    pub fn next(&self, zone: Zone, after: Moment) -> Option<Moment> {
        let after = DateTime::<Utc>::from_timestamp_millis(i64::try_from(after.millis()).ok()?)?;
        let local = after.with_timezone(&zone.0);
        if self.hourly {
            return self.cron.find_next_occurrence(&local, false).ok().and_then(moment);
        }
        let mut at = local.naive_local();
        // Local times are behind the moment only within an hour that is shown twice, and there are few of them.
        loop {
            at = self.cron.find_next_occurrence(&at, false).ok()?;
            let found = instant(zone.0, at)?;
            if found > after {
                return moment(found);
            }
        }
    }

    /// The longest time between two runs within four years: how old the newest one gets at most.
    #[must_use]
    pub fn longest(&self, zone: Zone) -> Duration {
        const DAY: u64 = 86_400_000;
        // From one that is known on: what is written is judged the same at any time.
        let (mut at, end) = (Moment::from_millis(20_000 * DAY), Moment::from_millis(21_461 * DAY));
        let (mut longest, mut seen) = (Duration::ZERO, 0);
        while let Some(next) = self.next(zone, at) {
            if seen > 0 {
                longest = longest.max(next.since(at));
            }
            at = next;
            seen += 1;
            // What is due so often is due as often all the time.
            if at > end || seen > 3000 {
                break;
            }
        }
        longest
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// The moment at which the clocks of a zone show that time first, or at which they jump over it.
fn instant(zone: Tz, local: NaiveDateTime) -> Option<DateTime<Utc>> {
    let mut later = local;
    // No zone has ever jumped further than one day.
    for _ in 0..=25 * 60 {
        match zone.from_local_datetime(&later) {
            LocalResult::Single(found) | LocalResult::Ambiguous(found, _) => return Some(found.to_utc()),
            LocalResult::None => later = later.checked_add_signed(TimeDelta::minutes(1))?,
        }
    }
    None
}

fn moment<T: TimeZone>(at: DateTime<T>) -> Option<Moment> {
    u64::try_from(at.timestamp_millis()).ok().map(Moment::from_millis)
}

/// A time zone by its name in the IANA data base, which is part of the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone(Tz);

text_form! {
    Zone, "lifeboat-time-zone", r"^[A-Za-z0-9_+/-]+$",
    "A time zone by its name in the IANA data base: \"UTC\", \"Europe/Berlin\"."
}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(Tz::UTC);

    /// Reads a name.
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        text.parse().map(Self).map_err(|_| {
            let message = format!("`{}` is no time zone", shown(text));
            let near = crate::shape::nearest(text, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()));
            let help = match near {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "a name of the IANA data base, for example \"UTC\", \"Europe/Berlin\" or \"America/New_York\"".to_owned(),
            };
            Flaw::new(Rule::BadTimeZone, message, help)
        })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.name())
    }
}

/// A schedule of one thing: when it is due, and whether it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timetable {
    /// The line.
    pub schedule: Schedule,
    /// Where its clock is.
    pub zone: Zone,
    /// How much later than the line says, always the same for one thing: less than the jitter, by its names.
    pub later: Duration,
}

/// Whether something is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Now, and since that moment; once, however often it was missed.
    Since(Moment),
    /// Not before that moment; never, when there is none.
    At(Option<Moment>),
}

impl Timetable {
    /// What is called by these names is due by that line, up to `jitter` later.
    #[must_use]
    pub fn new(schedule: Schedule, zone: Zone, jitter: Duration, names: &[&str]) -> Self {
        let millis = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
        let later = Duration::from_millis(if millis == 0 { 0 } else { spread(names) % millis });
        Self { schedule, zone, later }
    }

    /// When it is due first after that moment.
    #[must_use]
    pub fn next(&self, after: Moment) -> Option<Moment> {
        self.schedule.next(self.zone, after.before(self.later)).map(|due| due + self.later)
    }

    /// Whether it is due, when it was begun last at `last`. What was never begun is due at once.
    #[must_use]
    pub fn due(&self, last: Option<Moment>, now: Moment) -> Due {
        let Some(last) = last else { return Due::Since(now) };
        match self.next(last) {
            Some(due) if due <= now => Due::Since(due),
            due => Due::At(due),
        }
    }
}

/// A number that is the same for the same names on every machine and in every version (FNV-1a, 64 bits).
fn spread(names: &[&str]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = names.iter().flat_map(|name| name.bytes().chain([0]));
    let mixed = bytes.fold(BASIS, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(PRIME));
    // The lowest bits alone depend on too little.
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests;
