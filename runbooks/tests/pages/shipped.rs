//! The shipped pages.

use lifeboat_runbooks::{Deed, Kind, Runbooks, load, shipped};

#[test]
fn every_shipped_page_is_sound_and_in_its_place() {
    for kind in Kind::ALL {
        let page = load(shipped(kind)).unwrap_or_else(|flaws| panic!("{kind}: {flaws:?}"));
        assert_eq!((page.kind, page.name), (kind, kind.to_string()));
    }
    let pages = Runbooks::shipped().expect("sound pages");
    assert!(Kind::ALL.iter().all(|kind| pages.page(*kind).kind == *kind));
}

#[test]
fn what_a_person_reads_says_when_and_when_not() {
    for kind in Kind::ALL {
        let page = load(shipped(kind)).expect("sound pages");
        for words in ["Use it", "Do not use it", "It costs"] {
            assert!(page.prose.contains(words), "{kind}: the prose does not say {words:?}");
        }
        for step in &page.steps {
            let capital = step.title.starts_with(|c: char| c.is_ascii_uppercase());
            assert!(capital && !step.title.ends_with('.'), "{kind}: {:?} is no title", step.title);
        }
    }
}

#[test]
fn a_planned_move_is_the_same_page_both_ways() {
    let pages = Runbooks::shipped().expect("sound pages");
    assert_eq!(pages.page(Kind::Switchover).steps, pages.page(Kind::Failback).steps);
}

#[test]
fn deeds_are_called_what_pages_call_them() {
    for deed in Deed::ALL {
        let page = format!(
            "name = \"failover\"\nkind = \"failover\"\ntitle = \"t\"\nprose = \"p\"\n[[step]]\nname = \"s\"\ntitle = \"t\"\ndo = \"{deed}\"\ntimeout = \"1s\"\n"
        );
        let flaws = load(&page).expect_err("no page has one step");
        assert!(flaws.iter().all(|flaw| !flaw.to_string().contains("unknown variant")), "{deed}: {flaws:?}");
    }
}

#[test]
fn an_operators_page_takes_the_place_of_its_kind() {
    let mut pages = Runbooks::shipped().expect("sound pages");
    let mut mine = pages.page(Kind::Failover).clone();
    mine.title = "Ours".to_owned();
    pages.replace(mine);
    assert_eq!(pages.page(Kind::Failover).title, "Ours");
    assert_eq!(pages.pages().count(), Kind::ALL.len());
}
