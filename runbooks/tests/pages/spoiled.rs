//! Every rule has a row: a shipped page with one thing spoiled, and exactly the flaws that gives, as a person reads
//! them (`flaws.txt`). `LIFEBOAT_BLESS=1` writes the texts anew; read the difference before you commit it.

use std::collections::BTreeSet;
use std::path::Path;

use lifeboat_runbooks::Kind::{Failback, Failover, Rejoin, Switchover};
use lifeboat_runbooks::{FlawKind, Kind, load, shipped};

/// A rule's name, the page, and what is replaced in it by what, once each.
type Row = (&'static str, Kind, &'static [(&'static str, &'static str)]);

const REPORT: &str = "[[step]]\nname = \"report\"";

const ROWS: &[Row] = &[
    // The page.
    ("no TOML", Failover, &[("kind = \"failover\"", "kind = failover")]),
    ("unknown key", Failover, &[("timeout = \"10s\"", "timeuot = \"10s\"")]),
    ("unknown key of a page", Failover, &[("title = ", "titel = ")]),
    (
        "two steps that cannot be read",
        Failover,
        &[("\"measure-loss\"\ngives", "\"hope\"\ngives"), ("\"90s\"", "\"90\"")],
    ),
    (
        "steps that are no list",
        Rejoin,
        &[
            ("[[step]]\nname = \"fence\"", "[step]\nname = \"fence\""),
            ("[[step]]\nname = \"salvage\"", "[other]\nname = \"salvage\""),
            ("[[step]]\nname = \"rejoin\"", "[a]\nname = \"rejoin\""),
            ("[[step]]\nname = \"await-replication\"", "[b]\nname = \"await-replication\""),
            (REPORT, "[c]\nname = \"report\""),
        ],
    ),
    ("name of another kind", Failback, &[("name = \"failback\"", "name = \"homecoming\"")]),
    ("no title", Failover, &[("title = \"Failover: the primary region is lost\"", "title = \" \"")]),
    ("deadline of nothing", Switchover, &[("deadline = \"2m\"", "deadline = \"0s\"")]),
    // A step by itself.
    ("a name that cannot be typed", Failover, &[("name = \"verify\"", "name = \"see it\"")]),
    ("a name twice", Failover, &[("name = \"verify\"", "name = \"fence\"")]),
    ("a title that says nothing", Failover, &[("title = \"Promote the standby\"", "title = \"\"")]),
    ("a timeout of nothing", Failover, &[("timeout = \"90s\"", "timeout = \"0ms\"")]),
    ("a length without a unit", Failover, &[("timeout = \"90s\"", "timeout = \"90\"")]),
    ("no attempts", Failover, &[("attempts = 5", "attempts = 0")]),
    (
        "a gift that is not its own",
        Failover,
        &[("gives = [\"fenced\"]", "gives = [\"fenced\", \"serving\"]")],
    ),
    // Facts.
    (
        "a need that nobody gives",
        Failover,
        &[("needs = [\"verified\"]", "needs = [\"verified\", \"rejoined\"]")],
    ),
    ("a need given too late", Failover, &[("needs = [\"loss\"]", "needs = [\"loss\", \"serving\"]")]),
    ("a need given beside", Switchover, &[("needs = [\"names\"]", "needs = [\"names\", \"rejoined\"]")]),
    (
        "a need that may be left out",
        Switchover,
        &[("needs = [\"verified\"]", "needs = [\"verified\", \"rejoined\"]")],
    ),
    ("a promotion without a fence", Failover, &[("needs = [\"fenced\"]", "needs = [\"loss\"]")]),
    ("a fence before the loss is known", Failover, &[("needs = [\"loss\"]\n", "")]),
    (
        "a planned promotion that does not catch up",
        Switchover,
        &[("needs = [\"fenced\", \"caught-up\"]", "needs = [\"fenced\"]")],
    ),
    (
        "a catch-up with nothing",
        Failback,
        &[("do = \"catch-up\"\nneeds = [\"fenced\"]", "do = \"catch-up\"\nneeds = [\"ready\"]")],
    ),
    ("traffic to what may not serve", Failover, &[("needs = [\"serving\"]", "needs = [\"primary\"]")]),
    ("waiting for no primary", Failover, &[("needs = [\"primary\"]\n", "")]),
    (
        "a rejoin that salvages nothing",
        Rejoin,
        &[("needs = [\"fenced\", \"salvaged\"]", "needs = [\"fenced\"]")],
    ),
    (
        "a salvage of what still writes",
        Rejoin,
        &[("do = \"salvage\"\nneeds = [\"fenced\"]\n", "do = \"salvage\"\n")],
    ),
    (
        "a standby made of the only primary",
        Switchover,
        &[(
            "when = [\"host\"]\nneeds = [\"primary\"]\ngives = [\"rejoined\"]",
            "when = [\"host\"]\ngives = [\"rejoined\"]",
        )],
    ),
    // Order.
    ("after nobody", Failover, &[("do = \"verify\"", "do = \"verify\"\nafter = [\"switch-dns\", \"dns\"]")]),
    (
        "after what stands below",
        Switchover,
        &[
            ("do = \"drain\"", "do = \"drain\"\nafter = [\"fence\"]"),
            ("do = \"fence\"", "do = \"fence\"\nafter = [\"check-standby\"]"),
        ],
    ),
    (
        "steps that wait for each other",
        Failover,
        &[("do = \"await-serving\"", "do = \"await-serving\"\nafter = [\"promote\", \"verify\"]")],
    ),
    (
        "a step that waits for itself",
        Failover,
        &[("do = \"verify\"", "do = \"verify\"\nafter = [\"verify\", \"switch-dns\"]")],
    ),
    (
        "a step that no run comes to",
        Rejoin,
        &[(
            "do = \"await-replication\"\nneeds = [\"rejoined\"]\ngives = [\"replicating\"]\nwhen = [\"host\"]",
            "do = \"await-replication\"\nneeds = [\"rejoined\"]\ngives = [\"replicating\"]\nwhen = [\"automatic\", \"ordered\"]",
        )],
    ),
    (
        "a planned step that is never ordered",
        Switchover,
        &[("do = \"drain\"", "do = \"drain\"\nwhen = [\"automatic\"]")],
    ),
    ("a group of one", Failover, &[("do = \"verify\"", "do = \"verify\"\nparallel = \"alone\"")]),
    ("a group torn apart", Switchover, &[("do = \"drain\"", "do = \"drain\"\nparallel = \"afterwards\"")]),
    (
        "the point of no return in a group",
        Failover,
        &[
            ("do = \"promote\"", "do = \"promote\"\nparallel = \"both\""),
            (
                "do = \"await-serving\"\nneeds = [\"primary\"]",
                "do = \"await-serving\"\nneeds = [\"primary\"]\nparallel = \"both\"",
            ),
        ],
    ),
    (
        "a step beside the promotion",
        Failover,
        &[
            (
                REPORT,
                "[[step]]\nname = \"tell\"\ntitle = \"Tell people\"\ndo = \"notify\"\nwith = { text = \"{workload} moves\" }\nafter = [\"fence\"]\ntimeout = \"5s\"\n\n[[step]]\nname = \"report\"",
            ),
            ("do = \"report\"", "do = \"report\"\nafter = [\"tell\", \"verify\"]"),
        ],
    ),
    // What a kind asks.
    (
        "a promotion that could turn back",
        Failover,
        &[("point_of_no_return = true", "point_of_no_return = false")],
    ),
    (
        "a point of no return elsewhere",
        Failover,
        &[("do = \"fence\"", "do = \"fence\"\npoint_of_no_return = true")],
    ),
    (
        "two promotions",
        Failover,
        &[(
            "name = \"await-serving\"",
            "name = \"promote-again\"\ntitle = \"Again\"\ndo = \"promote\"\nneeds = [\"fenced\"]\npoint_of_no_return = true\ntimeout = \"60s\"\n\n[[step]]\nname = \"await-serving\"",
        )],
    ),
    (
        "no promotion",
        Failover,
        &[
            (
                "do = \"promote\"\nneeds = [\"fenced\"]\ngives = [\"primary\"]\npoint_of_no_return = true",
                "do = \"wait\"\nwith = { length = \"1s\" }",
            ),
            ("needs = [\"primary\"]", "needs = [\"fenced\"]"),
        ],
    ),
    (
        "a promotion in a rejoin",
        Rejoin,
        &[(
            "do = \"await-replication\"\nneeds = [\"rejoined\"]\ngives = [\"replicating\"]\nwhen = [\"host\"]",
            "do = \"promote\"\nneeds = [\"fenced\"]\npoint_of_no_return = true",
        )],
    ),
    (
        "no fence in a rejoin",
        Rejoin,
        &[
            ("do = \"fence\"\ngives = [\"fenced\"]", "do = \"wait\"\nwith = { length = \"1s\" }"),
            ("do = \"salvage\"\nneeds = [\"fenced\"]", "do = \"salvage\""),
            ("needs = [\"fenced\", \"salvaged\"]", "needs = [\"salvaged\"]"),
            ("needs = [\"fenced\"]", "needs = []"),
        ],
    ),
    ("no report", Rejoin, &[("do = \"report\"", "do = \"wait\"\nwith = { length = \"1s\" }")]),
    (
        "a report before the end",
        Failover,
        &[
            (
                "name = \"verify\"",
                "name = \"early\"\ntitle = \"Report\"\ndo = \"report\"\ntimeout = \"10s\"\n\n[[step]]\nname = \"verify\"",
            ),
            ("do = \"report\"\nneeds = [\"verified\"]", "do = \"wait\"\nwith = { length = \"1s\" }"),
        ],
    ),
    (
        "a report beside the rejoin",
        Switchover,
        &[("do = \"report\"", "do = \"report\"\nafter = [\"verify\"]")],
    ),
    (
        "a promotion with conditions",
        Failover,
        &[("point_of_no_return = true", "point_of_no_return = true\nwhen = [\"ordered\"]")],
    ),
    (
        "the lost region is drained",
        Failover,
        &[
            (
                "do = \"fence\"",
                "do = \"drain\"\ntimeout = \"5s\"\n\n[[step]]\nname = \"cut\"\ntitle = \"Fence\"\ndo = \"fence\"",
            ),
            ("name = \"fence\"", "name = \"drain\""),
        ],
    ),
    (
        "the lost region is asked",
        Failover,
        &[(
            "do = \"verify\"",
            "do = \"sql\"\nwith = { on = \"from\", statement = \"select 1\" }\ntimeout = \"5s\"\n\n[[step]]\nname = \"see\"\ntitle = \"Verify\"\ndo = \"verify\"",
        )],
    ),
    (
        "a salvage in a planned move",
        Switchover,
        &[("do = \"drain\"\nneeds = [\"ready\"]", "do = \"salvage\"\nneeds = [\"ready\"]")],
    ),
    ("a loss in a planned move", Failback, &[("do = \"drain\"", "do = \"measure-loss\"")]),
    // The way back.
    (
        "an undo after the promotion",
        Failover,
        &[("do = \"verify\"", "do = \"verify\"\nundo = { do = \"run\", with = { argv = [\"true\"] } }")],
    ),
    ("an undo that is none", Switchover, &[("do = \"drain\"", "do = \"drain\"\nundo = { do = \"report\" }")]),
    ("a planned fence that stays", Switchover, &[("undo = { do = \"lift\" }\n", "")]),
    (
        "a planned fence taken back by a command",
        Switchover,
        &[("undo = { do = \"lift\" }", "undo = { do = \"run\", with = { argv = [\"open\"] } }")],
    ),
    (
        "a fence lifted in a failover",
        Failover,
        &[("timeout = \"90s\"", "timeout = \"90s\"\nundo = { do = \"lift\" }")],
    ),
    ("a lift as a step", Switchover, &[("do = \"drain\"", "do = \"lift\"")]),
    // Operands.
    (
        "operands where none are taken",
        Failover,
        &[("do = \"verify\"", "do = \"verify\"\nwith = { text = \"now\" }")],
    ),
    (
        "operands left out",
        Failover,
        &[
            ("do = \"verify\"\nneeds = [\"names\"]\ngives = [\"verified\"]", "do = \"run\""),
            ("needs = [\"verified\"]\n", ""),
        ],
    ),
    (
        "an unknown operand",
        Failover,
        &[
            (
                "do = \"verify\"\nneeds = [\"names\"]\ngives = [\"verified\"]",
                "do = \"sql\"\nwith = { on = \"to\", statment = \"select 1\" }",
            ),
            ("needs = [\"verified\"]\n", ""),
        ],
    ),
    (
        "every operand of a command",
        Failover,
        &[(
            REPORT,
            "[[step]]\nname = \"own\"\ntitle = \"Own\"\ndo = \"run\"\nwith = { argv = [\"\", \"--to={regoin}\", \"${shell}\"], env = { \"A=B\" = \"{to}\" } }\ntimeout = \"5s\"\n\n[[step]]\nname = \"report\"",
        )],
    ),
    (
        "every operand of a request",
        Failover,
        &[
            (
                REPORT,
                "[[step]]\nname = \"own\"\ntitle = \"Own\"\ndo = \"http\"\n\n[step.with]\nmethod = \"post\"\nurl = \"example.net/{workload}\"\nbody = '{\"run\": \"{runs}\"}'\nexpect = [200, 99, 600]\n\n[[step]]\nname = \"report\"",
            ),
            ("do = \"http\"\n", "do = \"http\"\ntimeout = \"5s\"\n"),
        ],
    ),
    (
        "no status is fine",
        Failover,
        &[(
            REPORT,
            "[[step]]\nname = \"own\"\ntitle = \"Own\"\ndo = \"http\"\nwith = { url = \"https://example.net\", expect = [] }\ntimeout = \"5s\"\n\n[[step]]\nname = \"report\"",
        )],
    ),
    (
        "an empty statement, and a pause of nothing",
        Failover,
        &[(
            REPORT,
            "[[step]]\nname = \"own\"\ntitle = \"Own\"\ndo = \"sql\"\nwith = { on = \"to\", statement = \" \" }\ntimeout = \"5s\"\n\n[[step]]\nname = \"rest\"\ntitle = \"Rest\"\ndo = \"wait\"\nwith = { length = \"0s\" }\ntimeout = \"5s\"\n\n[[step]]\nname = \"report\"",
        )],
    ),
    (
        "questions",
        Failover,
        &[
            (
                REPORT,
                "[[step]]\nname = \"own\"\ntitle = \"Own\"\ndo = \"approve\"\nwith = { text = \"\" }\napprove = \"sure, {you}?\"\ntimeout = \"5s\"\n\n[[step]]\nname = \"report\"",
            ),
            ("do = \"verify\"", "do = \"verify\"\napprove = \"\""),
        ],
    ),
];

/// Pages that are no shipped page with something spoiled.
const OTHERS: &[(&str, &str)] = &[
    ("nothing", ""),
    ("no steps", "name = \"rejoin\"\nkind = \"rejoin\"\ntitle = \"Rejoin\"\nprose = \"\"\n"),
    ("a name that is no text", "name = 3"),
];

fn spoiled(row: &Row) -> String {
    let (name, kind, edits) = row;
    edits.iter().fold(shipped(*kind).to_owned(), |page, (from, to)| {
        assert!(page.contains(from), "{name}: the page no longer says {from}");
        page.replacen(from, to, 1)
    })
}

fn told(name: &str, page: &str, file: &str) -> String {
    let flaws = load(page).err().unwrap_or_else(|| panic!("{name}: the page loads"));
    let shown: Vec<String> = flaws.iter().map(|flaw| flaw.render(file, page)).collect();
    format!("## {name}\n\n{}\n", shown.join("\n"))
}

#[test]
fn every_flaw_is_told_with_its_place() {
    let rows = ROWS.iter().map(|row| told(row.0, &spoiled(row), &format!("{}.toml", row.1)));
    let others = OTHERS.iter().map(|(name, page)| told(name, page, "page.toml"));
    let all: String = rows.chain(others).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages/flaws.txt");
    if std::env::var_os("LIFEBOAT_BLESS").is_some() {
        std::fs::write(&path, &all).expect("the golden file is written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (is, was) in all.split("## ").zip(golden.split("## ")) {
        assert_eq!(is, was);
    }
    assert_eq!(all.len(), golden.len(), "rows came or went");
}

/// The variant of a flaw, as the compiler names it.
fn variant(kind: &FlawKind) -> String {
    let shown = format!("{kind:?}");
    shown.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}

#[test]
fn every_kind_of_flaw_has_a_row() {
    let source = include_str!("../../src/flaw.rs");
    let kinds = source.split("pub enum FlawKind {").nth(1).and_then(|rest| rest.split("\n}").next());
    let all: BTreeSet<String> = kinds
        .expect("the kinds")
        .lines()
        .filter_map(|line| {
            line.strip_prefix("    ").filter(|l| l.starts_with(|c: char| c.is_ascii_uppercase()))
        })
        .map(|line| line.trim_end_matches([' ', '{', ',']).to_owned())
        .collect();
    assert!(all.len() > 30, "the kinds were not read: {all:?}");
    let pages = ROWS.iter().map(spoiled).chain(OTHERS.iter().map(|(_, page)| (*page).to_owned()));
    let seen: BTreeSet<String> = pages
        .flat_map(|page| load(&page).err().unwrap_or_default())
        .map(|flaw| variant(&flaw.kind))
        .collect();
    assert_eq!(all, seen);
}
