//! An agent that was alone gets company: what it has on record becomes the shared record, and nothing is decided before.

use lifeboat_tests::council::Council;

#[test]
fn the_record_of_an_agent_that_was_alone_becomes_the_shared_one() {
    let mut council = Council::before("mode = \"supervised\"\nfreshness = \"10s\"");
    let file = council.folder.path().join("ash.toml");
    let together = std::fs::read_to_string(&file).unwrap();
    let (head, rest) = together.split_once("[lease]").unwrap();
    let (_, tail) = rest.split_once("[[region]]").unwrap();
    std::fs::write(&file, format!("{head}[[region]]{tail}")).unwrap();
    council.start_agent(0);
    council.until("it is on guard", || council.status(0)["workloads"]["shop"].is_object());
    let said = council.lifeboat(0, &["pause", "shop", "--reason", "it moves", "--for", "1h"]);
    assert!(said.status.success(), "{said:?}");
    council.kill_agent(0);

    // With company, but without its record, it decides nothing and says what to do.
    std::fs::write(&file, together).unwrap();
    council.start_agent(0);
    council.until("it says what to do", || {
        let said = String::from_utf8(council.lifeboat(0, &["status"]).stdout).unwrap();
        said.contains("the shared record is empty, and this agent's own has")
            && said.contains("lifeboat share")
    });
    assert_ne!(council.status(0)["decider"]["here"], true);
    let said = council.lifeboat(0, &["share"]);
    assert!(!said.status.success(), "while the agent runs, its record is its own: {said:?}");
    council.kill_agent(0);

    let said = council.lifeboat(0, &["share"]);
    assert!(said.status.success(), "{said:?}");
    let again = council.lifeboat(0, &["share"]);
    let again = String::from_utf8(again.stdout).unwrap();
    assert!(again.contains("has all") && again.contains("already"), "{again}");

    (0..3).for_each(|n| council.start_agent(n));
    council.agreed();
    council.until("every agent knows of the pause that was there before", || {
        (0..3).all(|n| council.status(n)["workloads"]["shop"]["phase"] == "paused")
    });

    // One that kept a record of its own meanwhile is not mixed in.
    (0..3).for_each(|n| council.kill_agent(n));
    std::fs::remove_file(council.folder.path().join("birch/journal.db")).unwrap();
    for more in ["journal.db-wal", "journal.db-shm"] {
        let _ = std::fs::remove_file(council.folder.path().join("birch").join(more));
    }
    let own = council.folder.path().join("birch.toml");
    let together = std::fs::read_to_string(&own).unwrap();
    let (head, rest) = together.split_once("[lease]").unwrap();
    let (_, tail) = rest.split_once("[[region]]").unwrap();
    std::fs::write(&own, format!("{head}[[region]]{tail}")).unwrap();
    council.start_agent(1);
    council.until("it is on guard", || council.status(1)["workloads"]["shop"].is_object());
    council.kill_agent(1);
    std::fs::write(&own, together).unwrap();
    let said = council.lifeboat(1, &["share"]);
    let told = String::from_utf8(said.stderr).unwrap();
    assert!(said.status.code() == Some(5) && told.contains("went another way"), "{told}");
}
