//! Random pages: none makes the reader panic, and whatever loads keeps the promises in every order it allows.

use std::collections::BTreeSet;

use lifeboat_runbooks::{Deed, Kind, Runbook, When, load, shipped};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// How many pages are made for each property.
const PAGES: u64 = 3000;
/// How many orders of each page that loads are walked.
const WALKS: usize = 8;

struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Below `end`, which is 1 or more.
    fn below(&mut self, end: usize) -> usize {
        let end = u32::try_from(end).expect("a small number");
        (self.0.next_u32() % end) as usize
    }

    fn once_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn one<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

/// A page near a shipped one: lines dropped, doubled, swapped, or with another value.
fn mangled(dice: &mut Dice) -> String {
    let kind = Kind::ALL[dice.below(4)];
    let mut blocks: Vec<String> = shipped(kind).split("\n[[step]]\n").map(str::to_owned).collect();
    for _ in 0..=dice.below(4) {
        let at = 1 + dice.below(blocks.len() - 1);
        match dice.below(11) {
            0 if blocks.len() > 3 => drop(blocks.remove(at)),
            1 => blocks.insert(at, own_step(dice)),
            2 => {
                let other = 1 + dice.below(blocks.len() - 1);
                blocks.swap(at, other);
            }
            3 => blocks[at] += "\nparallel = \"both\"\n",
            4 => {
                let other = shipped(kind).split("name = \"").skip(2).collect::<Vec<_>>();
                let name = other[dice.below(other.len())].split('"').next().expect("a name");
                blocks[at] += &format!("\nafter = [\"{name}\"]\n");
            }
            5 => {
                blocks[at] +=
                    &format!("\nwhen = [\"{}\"]\n", dice.one(&["host", "canary", "automatic", "ordered"]))
            }
            6 => blocks[at] += "\nundo = { do = \"run\", with = { argv = [\"true\"] } }\n",
            // A step that forgets what it needs, and stands too early for it.
            8 | 9 => {
                blocks[at] = blocks[at].replace("needs = [", "# needs = [");
                blocks.swap(at, (at - 1).max(1));
            }
            7 => blocks[at] = blocks[at].replace("point_of_no_return = true\n", ""),
            _ => {
                let lines: Vec<&str> = blocks[at].lines().collect();
                let gone = dice.below(lines.len());
                blocks[at] = lines
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| *i != gone)
                    .map(|(_, l)| format!("{l}\n"))
                    .collect();
            }
        }
    }
    blocks.join("\n[[step]]\n")
}

fn own_step(dice: &mut Dice) -> String {
    let name = dice.below(1000);
    let what = dice.one(&[
        "do = \"wait\"\nwith = { length = \"1s\" }",
        "do = \"notify\"\nwith = { text = \"{workload} moves\" }",
        "do = \"run\"\nwith = { argv = [\"true\"] }\nafter = []",
        "do = \"approve\"\nwith = { text = \"go on?\" }",
        "do = \"sql\"\nwith = { on = \"to\", statement = \"select 1\" }\nafter = [\"fence\"]",
    ]);
    format!("name = \"own-{name}\"\ntitle = \"Ours\"\ntimeout = \"5s\"\n{what}\n")
}

/// One order in which the steps of the plan may end, with the steps whose condition does not hold left out.
fn walk(page: &Runbook, held: &BTreeSet<When>, dice: &mut Dice) -> Vec<Deed> {
    let follows = page.predecessors();
    let (mut over, mut deeds) = (BTreeSet::new(), Vec::new());
    while over.len() < page.steps.len() {
        let open: Vec<usize> = (0..page.steps.len())
            .filter(|index| !over.contains(index) && follows[*index].is_subset(&over))
            .collect();
        assert!(!open.is_empty(), "steps wait for each other: {page:?}");
        let index = open[dice.below(open.len())];
        over.insert(index);
        if page.steps[index].when.is_subset(held) {
            deeds.push(page.steps[index].deed);
        }
    }
    deeds
}

fn conditions(kind: Kind, dice: &mut Dice) -> BTreeSet<When> {
    let automatic = !kind.planned() && dice.once_in(2);
    let mut held = BTreeSet::from([if automatic { When::Automatic } else { When::Ordered }]);
    held.extend([When::Canary, When::Host].into_iter().filter(|_| dice.once_in(2)));
    held
}

/// The promises, judged on the order alone.
fn assert_safe(page: &Runbook, deeds: &[Deed], seed: u64) {
    let place = |deed| deeds.iter().position(|other| *other == deed);
    let before = |first, second| match (place(first), place(second)) {
        (_, None) => true,
        (first, Some(second)) => first.is_some_and(|first| first < second),
    };
    let moves = page.kind != Kind::Rejoin;
    let context = format!("seed {seed}: {deeds:?}\n{page:?}");
    assert_eq!(deeds.iter().filter(|d| **d == Deed::Promote).count(), usize::from(moves), "{context}");
    assert_eq!(deeds.last(), Some(&Deed::Report), "{context}");
    assert!(before(Deed::Fence, Deed::Promote), "{context}");
    assert!(before(Deed::Fence, Deed::Salvage), "{context}");
    assert!(before(Deed::AwaitServing, Deed::SwitchDns), "{context}");
    match page.kind {
        Kind::Failover => assert!(before(Deed::MeasureLoss, Deed::Fence), "{context}"),
        Kind::Rejoin => assert!(before(Deed::Salvage, Deed::Rejoin), "{context}"),
        Kind::Switchover | Kind::Failback => {
            assert!(before(Deed::Fence, Deed::CatchUp) && before(Deed::CatchUp, Deed::Promote), "{context}");
            assert!(before(Deed::Promote, Deed::Rejoin), "{context}");
        }
    }
}

#[test]
fn a_page_that_loads_keeps_its_promises_in_every_order() {
    let mut loaded = 0;
    for seed in 0..PAGES {
        let mut dice = Dice::new(seed);
        let Ok(page) = load(&mangled(&mut dice)) else { continue };
        loaded += 1;
        for _ in 0..WALKS {
            let held = conditions(page.kind, &mut dice);
            assert_safe(&page, &walk(&page, &held, &mut dice), seed);
        }
    }
    assert!(loaded > PAGES / 20, "only {loaded} of {PAGES} pages loaded: the property says little");
}

#[test]
fn no_text_makes_the_reader_panic_and_every_flaw_can_be_shown() {
    for seed in 0..PAGES {
        let mut dice = Dice::new(seed);
        let mut text: Vec<char> = mangled(&mut dice).chars().collect();
        for _ in 0..=dice.below(6) {
            let at = dice.below(text.len().max(1));
            match dice.below(3) {
                0 if text.len() > 1 => drop(text.remove(at)),
                1 => {
                    text.insert(at, ['"', '[', ']', '{', '}', '=', '\n', 'é', '\u{0}', '\r'][dice.below(10)])
                }
                _ => text.truncate(at.max(1)),
            }
        }
        let text: String = text.into_iter().collect();
        for flaw in load(&text).err().into_iter().flatten() {
            let shown = flaw.render("page.toml", &text);
            let (excerpt, carets) = (shown.lines().nth_back(1), shown.lines().last());
            assert!(carets.is_some_and(|line| line.contains('^')), "seed {seed}: {shown}");
            assert!(
                excerpt.is_some_and(|line| line.starts_with(&flaw.line.to_string())),
                "seed {seed}: {shown}"
            );
        }
    }
}
