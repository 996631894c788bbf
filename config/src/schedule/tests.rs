//! Lines around the days on which clocks change, in zones that change them differently.

use super::*;

fn at(text: &str) -> Moment {
    let parsed = DateTime::parse_from_rfc3339(text).unwrap();
    moment(parsed).unwrap()
}

fn zone(name: &str) -> Zone {
    Zone::read(name).unwrap()
}

/// All that is due after `from` and not after `until`, in local time with its offset.
fn due(line: &str, name: &str, from: &str, until: &str) -> Vec<String> {
    let (schedule, zone) = (Schedule::read(line).unwrap(), zone(name));
    let (mut after, until, mut all) = (at(from), at(until), Vec::new());
    while let Some(next) = schedule.next(zone, after).filter(|next| *next <= until) {
        let local = DateTime::from_timestamp_millis(i64::try_from(next.millis()).unwrap()).unwrap();
        all.push(local.with_timezone(&zone.0).format("%d %H:%M%:z").to_string());
        assert!(next > after && all.len() < 1000, "{line}: {all:?}");
        after = next;
    }
    all
}

#[test]
fn a_time_that_is_jumped_over_is_due_when_the_jump_is_over() {
    // 2026-03-08, 02:00 becomes 03:00.
    let york = |line| due(line, "America/New_York", "2026-03-08T00:30:00-05:00", "2026-03-09T02:45:00-04:00");
    assert_eq!(york("30 2 * * *"), ["08 03:00-04:00", "09 02:30-04:00"]);
    assert_eq!(york("30 1 * * *"), ["08 01:30-05:00", "09 01:30-04:00"]);
    assert_eq!(
        york("0,30 2,3 * * 0"),
        ["08 03:00-04:00", "08 03:30-04:00"],
        "once for all that was jumped over"
    );
    assert_eq!(york("0 2,14 * * *"), ["08 03:00-04:00", "08 14:00-04:00", "09 02:00-04:00"]);
    // 2026-03-29, 02:00 becomes 03:00.
    let berlin = |line| due(line, "Europe/Berlin", "2026-03-29T00:30:00+01:00", "2026-03-29T12:00:00+02:00");
    assert_eq!(berlin("15 2 * * *"), ["29 03:00+02:00"]);
    assert_eq!(
        berlin("0 */2 * * *"),
        [
            "29 03:00+02:00",
            "29 04:00+02:00",
            "29 06:00+02:00",
            "29 08:00+02:00",
            "29 10:00+02:00",
            "29 12:00+02:00"
        ]
    );
    // 2026-10-04, 02:00 becomes 02:30.
    let howe =
        |line| due(line, "Australia/Lord_Howe", "2026-10-04T01:00:00+10:30", "2026-10-05T02:20:00+11:00");
    assert_eq!(howe("15 2 * * *"), ["04 02:30+11:00", "05 02:15+11:00"]);
    assert_eq!(howe("30 2 4 * *"), ["04 02:30+11:00"]);
    // The island that left out the 30th of December 2011 altogether.
    assert_eq!(
        due("0 2 * * *", "Pacific/Apia", "2011-12-29T03:00:00-10:00", "2012-01-01T00:00:00+14:00"),
        ["31 00:00+14:00", "31 02:00+14:00"]
    );
}

#[test]
fn a_time_that_is_shown_twice_is_due_once() {
    // 2026-11-01, 02:00 becomes 01:00.
    let york = |line| due(line, "America/New_York", "2026-11-01T00:00:00-04:00", "2026-11-02T01:45:00-05:00");
    assert_eq!(york("30 1 * * *"), ["01 01:30-04:00", "02 01:30-05:00"]);
    assert_eq!(
        york("30 1,13 * * *"),
        ["01 01:30-04:00", "01 13:30-05:00", "02 01:30-05:00"],
        "two hours are named"
    );
    assert_eq!(york("*/20 1 1 * *"), ["01 01:00-04:00", "01 01:20-04:00", "01 01:40-04:00"]);
    assert_eq!(york("0 2 * * *"), ["01 02:00-05:00"]);
    // 2026-10-25, 03:00 becomes 02:00.
    assert_eq!(
        due("30 2 * * *", "Europe/Berlin", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
        ["25 02:30+02:00"]
    );
    // 2026-04-05, 02:00 becomes 01:30.
    let howe =
        |line| due(line, "Australia/Lord_Howe", "2026-04-05T00:00:00+11:00", "2026-04-05T04:00:00+10:30");
    assert_eq!(howe("45 1 * * *"), ["05 01:45+11:00"]);
    assert_eq!(howe("0 2 * * *"), ["05 02:00+10:30"]);
}

#[test]
fn from_within_the_hour_that_is_shown_again_nothing_is_due_again() {
    let schedule = Schedule::read("30 1 * * *").unwrap();
    let york = zone("America/New_York");
    let again = at("2026-11-01T01:10:00-05:00");
    assert_eq!(schedule.next(york, again), Some(at("2026-11-02T01:30:00-05:00")));
}

#[test]
fn what_is_due_each_hour_goes_by_elapsed_hours() {
    let hours = |name, from, until| due("30 * * * *", name, from, until);
    assert_eq!(
        hours("America/New_York", "2026-03-08T00:45:00-05:00", "2026-03-08T04:00:00-04:00"),
        ["08 01:30-05:00", "08 03:30-04:00"]
    );
    assert_eq!(
        hours("America/New_York", "2026-11-01T00:45:00-04:00", "2026-11-01T02:45:00-05:00"),
        ["01 01:30-04:00", "01 01:30-05:00", "01 02:30-05:00"]
    );
    let quarters =
        due("*/30 * * * *", "Australia/Lord_Howe", "2026-04-05T01:00:00+11:00", "2026-04-05T02:30:00+10:30");
    assert_eq!(quarters, ["05 01:30+11:00", "05 01:30+10:30", "05 02:00+10:30", "05 02:30+10:30"]);
}

#[test]
fn days_are_as_in_cron() {
    let days = |line| -> Vec<String> {
        let all = due(line, "UTC", "2026-11-01T00:00:00Z", "2026-11-30T23:00:00Z");
        all.iter().map(|due| due[..2].to_owned()).collect()
    };
    assert_eq!(days("0 2 * * 0"), ["01", "08", "15", "22", "29"], "Sunday");
    assert_eq!(days("0 2 * * 7"), days("0 2 * * 0"));
    assert_eq!(days("0 2 * * sun"), days("0 2 * * 0"));
    assert_eq!(
        days("0 2 * * 5-7"),
        ["01", "06", "07", "08", "13", "14", "15", "20", "21", "22", "27", "28", "29"]
    );
    // Either day field is enough, when both are restricted.
    assert_eq!(days("0 2 3 * 1"), ["02", "03", "09", "16", "23", "30"]);
    // A star with a step is no restriction.
    assert_eq!(days("0 2 */10 * 0"), ["01"]);
    assert_eq!(days("0 2 31 * *"), Vec::<String>::new());
    assert_eq!(days("@monthly").len(), 0, "the first of the month at midnight is not after it");
    assert_eq!(days("@weekly"), ["08", "15", "22", "29"]);
    assert_eq!(days("@daily").len(), 29);
}

#[test]
fn what_is_no_schedule() {
    for text in [
        "",
        "@",
        "@reboot",
        "@Daily",
        "* * * *",
        "0 0 2 * * *",
        "0 0 2 * * * 2027",
        "60 2 * * *",
        "0 24 * * *",
        "0 2 0 * *",
        "0 2 32 * *",
        "0 2 * 13 *",
        "0 2 * * 8",
        "0 2 30 2 *",
        "0 2 ? * *",
        "0 2 1 * +1",
        "0 2 15W * *",
        "0 2 * * fri-mon-",
        "a b c d e",
        "*/0 * * * *",
        "١ 2 * * *",
        &"0,".repeat(60),
    ] {
        assert!(Schedule::read(text).is_err(), "{text:?}");
    }
    for text in ["0 2 * * *", "*/5 * * * *", "0 2,14 1-7 jan-mar mon", "@hourly", "@yearly"] {
        assert_eq!(Schedule::read(text).unwrap().to_string(), text);
    }
    assert_eq!(Schedule::nightly(), Schedule::read("0 2 * * *").unwrap());
    for text in ["", "Berlin", "Europe/berlin", "CEST", "+02:00"] {
        assert!(Zone::read(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_missed_run_is_made_up_for_once() {
    let table = Timetable { schedule: Schedule::nightly(), zone: Zone::UTC, later: Duration::from_secs(300) };
    let now = at("2026-11-21T12:00:00Z");
    assert_eq!(table.due(None, now), Due::Since(now), "never begun");
    let due = table.due(Some(at("2026-11-15T02:05:01Z")), now);
    assert_eq!(due, Due::Since(at("2026-11-16T02:05:00Z")), "six were missed");
    // It was begun late, at noon: the next one is the next night's.
    assert_eq!(table.due(Some(now), now), Due::At(Some(at("2026-11-22T02:05:00Z"))));
    // Begun in its time: not again for the same line, also when the jitter is not over where it began.
    let begun = at("2026-11-21T02:05:00Z");
    assert_eq!(table.due(Some(begun), begun), Due::At(Some(at("2026-11-22T02:05:00Z"))));
    let early = at("2026-11-21T02:04:59Z");
    assert_eq!(table.due(Some(early), now), Due::Since(begun));
    // A clock that was set back makes nothing due.
    assert_eq!(table.due(Some(now), at("2026-11-01T00:00:00Z")), Due::At(Some(at("2026-11-22T02:05:00Z"))));
}

#[test]
fn jitter_spreads_by_names_and_stays() {
    let jitter = Duration::from_secs(600);
    let later = |names: &[&str]| Timetable::new(Schedule::nightly(), Zone::UTC, jitter, names).later;
    assert_eq!(later(&["shop", "orders", "vault"]), later(&["shop", "orders", "vault"]));
    assert_ne!(later(&["shop", "orders", "vault"]), later(&["shop", "order", "svault"]));
    assert_eq!(
        Timetable::new(Schedule::nightly(), Zone::UTC, Duration::ZERO, &["shop"]).later,
        Duration::ZERO
    );
    // Of a hundred databases no tenth of the time has many more than ten.
    let mut tenths = [0; 10];
    for n in 0..100 {
        let later = later(&["shop", &format!("orders-{n}"), "vault"]);
        assert!(later < jitter);
        tenths[usize::try_from(later.as_millis() / 60_000).unwrap()] += 1;
    }
    assert!(tenths.iter().all(|count| (1..=25).contains(count)), "{tenths:?}");
}

#[test]
fn how_old_the_newest_gets() {
    let longest = |line| Schedule::read(line).unwrap().longest(Zone::UTC);
    assert_eq!(longest("0 2 * * *"), Duration::from_secs(86_400));
    assert_eq!(longest("0 2 * * 1-5"), Duration::from_secs(3 * 86_400));
    assert_eq!(longest("*/5 * * * *"), Duration::from_secs(300));
    assert_eq!(longest("@monthly"), Duration::from_secs(31 * 86_400));
    let nightly = Schedule::nightly().longest(zone("Europe/Berlin"));
    assert_eq!(nightly, Duration::from_secs(25 * 3600), "an autumn night");
}
