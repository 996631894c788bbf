//! Which files are scenarios, and what is said of those that are not.

use super::*;

const GOOD: &str = r#"name = "good"
about = "Something happens."

[setup]
rpo = "30s"

[[at]]
t = "10s"
for = "20s"
every = "1m"
times = 3
fault = "isolate"
site = "east"

[[at]]
t = "40s"
fault = "clock"
agent = "witness"
step = "-10m"

[expect]
moved = "west"
within = "45s"
"#;

/// What is said of a text that one change has spoiled.
fn said(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "the change changes nothing");
    parse("scenarios/good.toml", &GOOD.replace(from, to)).expect_err("it is refused").to_string()
}

#[test]
fn a_scenario_is_read() {
    let scenario = parse("good.toml", GOOD).expect("it is right");
    let flaps: Vec<_> = scenario.happenings[0].occasions().map(|(at, ends)| (at.as_secs(), ends)).collect();
    let ends = |n| Some(Duration::from_secs(n));
    assert_eq!(flaps, [(10, ends(30)), (70, ends(90)), (130, ends(150))]);
    let clock = Fault::Clock { agent: Site::Witness, step: -600_000 };
    assert_eq!(scenario.happenings[1].fault, clock);
    assert_eq!(scenario.setup.rpo, Duration::from_secs(30));
    assert_eq!(scenario.expect.moved, Some(Site::West));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let cases = [
        ("rpo = \"30s\"", "rpo = \"30\"", "5:7: \"30\" is not a length; write 250ms, 20s, 10m or 1h"),
        ("rpo = ", "rpoo = ", "5:1: unknown field `rpoo`"),
        ("moved = \"west\"", "moved = \"north\"", "22:9: unknown variant `north`"),
        (
            "site = \"east\"\n\n[[at]]\nt = \"40s\"",
            "site = \"east\"\n\n[[at]]\nt = \"4s\"",
            "15:1: it happens before the one above it",
        ),
        ("for = \"20s\"", "for = \"60s\"", "7:1: it must end before it begins again"),
        ("every = \"1m\"\n", "", "7:1: times is 1 or more, and needs `every`"),
        ("name = \"good\"", "name = \"better\"", "1:1: its name is \"better\", unlike its file's"),
        ("happens.", "happens", "2:1: about is one sentence"),
    ];
    for (from, to, wanted) in cases {
        let said = said(from, to);
        assert!(said.starts_with(&format!("scenarios/good.toml:{wanted}")), "{said}\nis not\n{wanted}");
    }
    let said = said("fault = \"isolate\"\nsite = \"east\"", "fault = \"kill\"\nwhat = \"agent\"");
    assert!(said.contains("no part is called \"agent\"; parts are east, west"), "{said}");
}

#[test]
fn every_part_has_a_name_that_is_read() {
    let parts =
        Site::ALL.into_iter().flat_map(|site| [Part::Site(site), Part::Agent(site), Part::Member(site)]);
    let databases = Site::REGIONS.into_iter().flat_map(|site| [Part::Database(site), Part::Sentry(site)]);
    for part in parts.chain(databases).chain([Part::Coordinator]) {
        let text = GOOD
            .replace("fault = \"isolate\"\nsite = \"east\"", &format!("fault = \"kill\"\nwhat = \"{part}\""));
        let read = parse("good.toml", &text).expect("it is right");
        assert_eq!(read.happenings[0].fault, Fault::Kill { what: part });
    }
}

#[test]
fn the_shipped_scenarios_are_right_and_each_is_one_of_a_kind() {
    let all = shipped().expect("each is right");
    assert!(all.len() >= 20, "only {} scenarios", all.len());
    let names: BTreeSet<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
    let told: BTreeSet<&str> = all.iter().map(|scenario| scenario.about.as_str()).collect();
    assert_eq!((names.len(), told.len()), (all.len(), all.len()));
    let files =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios")).expect("the folder is there");
    assert_eq!(files.count(), all.len(), "each file in the folder is shipped");
    assert_eq!(
        find("primary-lost").expect("it is right").map(|found| found.name),
        Some("primary-lost".to_owned())
    );
}
