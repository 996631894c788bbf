//! Three real agents on a real etcd: one decides, another one goes on when it is killed, all of them say the same, and
//! without the coordinator nothing is decided.

use lifeboat_tests::council::{AGENTS, Council};
use serde_json::Value;

const AUTOMATIC: &str = "mode = \"automatic\"\nfreshness = \"10s\"\ncooldown = \"1s\"\nbudget = 100\nbudget_window = \"1m\"\nhold_down = \"0s\"";

/// Waits until one agent decides and all that run say so; gives who it is.
fn agreed(council: &Council) -> usize {
    council.agreed()
}

/// Waits until every agent that runs has heard all that run, and sees both regions as healthy.
fn all_well(council: &Council) {
    let running = council.running();
    council.until("every agent hears every other, and all is healthy", || {
        running.iter().all(|n| {
            let status = council.status(*n);
            running.iter().all(|other| {
                let vantage = &status["vantages"][AGENTS[*other].0];
                vantage["connected"] == true
                    && ["east", "west"]
                        .iter()
                        .all(|region| vantage["sees"]["shop"][region]["verdict"] == "healthy")
            })
        })
    });
}

#[test]
fn one_decides_and_another_one_when_it_is_gone() {
    let mut council = Council::start(AUTOMATIC);
    let first = agreed(&council);
    all_well(&council);
    let term = council.status(first)["decider"]["term"].as_u64().unwrap();

    // An order given to an agent that stands by is carried out by the one that decides.
    let by = (first + 1) % 3;
    let said = council.lifeboat(by, &["pause", "shop", "--reason", "a look inside", "--for", "1h"]);
    assert!(said.status.success(), "{said:?}");
    council.until("every agent knows of the pause", || {
        (0..3).all(|n| council.status(n)["workloads"]["shop"]["phase"] == "paused")
    });
    let said = council.lifeboat((first + 2) % 3, &["resume", "shop"]);
    assert!(said.status.success(), "{said:?}");

    council.kill_agent(first);
    let second = agreed(&council);
    assert_ne!(first, second);
    let now = council.status(second)["decider"]["term"].as_u64().unwrap();
    assert!(now > term, "{now} after {term}");
    let elections = council.json(second, &["history", "--elections", "--json"]);
    let last: Vec<&str> =
        elections.as_array().unwrap().iter().map(|e| e["agent"].as_str().unwrap()).collect();
    assert_eq!(last.last(), Some(&AGENTS[second].0), "{elections}");

    // It comes back, follows, and has the same record as the others.
    council.start_agent(first);
    assert_ne!(agreed(&council), first);
    all_well(&council);
    assert_eq!(council.json(first, &["history", "--elections", "--json"]), elections);
}

#[test]
fn a_lost_region_is_failed_over_once_and_every_name_server_follows() {
    let council = Council::start(AUTOMATIC);
    let decider = agreed(&council);
    all_well(&council);
    council.east.set(false);
    council.until("the workload lives in the west, for every agent", || {
        (0..3).all(|n| council.status(n)["workloads"]["shop"]["primary"] == "west")
    });
    council.until("every name server says so", || (0..3).all(|n| council.name_says(n) == "west"));
    council.until("the run is done", || council.json(decider, &["history", "--json"])[0]["state"] == "done");
    for n in 0..3 {
        council.until("every agent has the run on record", || {
            council.json(n, &["history", "--json"]) == council.json(decider, &["history", "--json"])
        });
        assert_eq!(council.json(n, &["history", "--json"]).as_array().unwrap().len(), 1);
    }
}

#[test]
fn without_the_coordinator_nothing_is_decided() {
    let mut council = Council::start(AUTOMATIC);
    agreed(&council);
    all_well(&council);
    (0..3).for_each(|n| council.kill_etcd(n));
    council.until("every agent says that the coordinator is lost", || {
        (0..3).all(|n| {
            let status = council.status(n);
            status["coordination"]["reached"] == false && status["decider"]["here"] != true
        })
    });
    let said = String::from_utf8(council.lifeboat(0, &["status"]).stdout).unwrap();
    assert!(said.contains("automatic failover is suspended"), "{said}");
    council.east.set(false);
    council.until("each sees the loss for itself", || {
        (0..3)
            .all(|n| council.status(n)["vantages"][AGENTS[n].0]["sees"]["shop"]["east"]["verdict"] == "lost")
    });
    for n in 0..3 {
        assert_eq!(council.json(n, &["history", "--json"]), Value::Array(Vec::new()), "{}", council.told());
        assert_eq!(council.name_says(n), "east");
    }
    // A person's order cannot be carried out either, and is not kept for later.
    let said = council.lifeboat(1, &["pause", "shop", "--reason", "now?", "--for", "1h"]);
    assert!(!said.status.success(), "{said:?}");

    (0..3).for_each(|n| council.start_etcd(n));
    agreed(&council);
    council.until("what was lost all along is failed over now", || {
        (0..3).all(|n| {
            council.status(n)["workloads"]["shop"]["primary"] == "west" && council.name_says(n) == "west"
        })
    });
    assert!(
        council.status(0)["workloads"]["shop"]["paused"].is_null(),
        "an order that was refused came later"
    );
}

/// `check --environment` tells of each member of etcd, and of the agent's own key.
#[test]
fn the_environment_is_checked_up_to_the_coordinator() {
    let mut council = Council::start(AUTOMATIC);
    agreed(&council);
    let check = |council: &Council| {
        let said = council.lifeboat(0, &["check", "--environment"]);
        (said.status.code(), String::from_utf8(said.stdout).unwrap())
    };
    let (code, said) = check(&council);
    let count = |said: &str, what: &str| said.lines().filter(|line| line.contains(what)).count();
    assert!(code == Some(0) && said.contains("ash has the key that is listed for it"), "{said}");
    assert_eq!(count(&said, "answers, "), 3, "{said}");
    council.kill_etcd(2);
    // The two others may have to elect one first.
    council.until("two of three are enough, and the third is named", || {
        let (code, said) = check(&council);
        (code, count(&said, "answers, "), count(&said, "warning  etcd ")) == (Some(0), 2, 1)
    });
    council.kill_etcd(1);
    let (code, said) = check(&council);
    assert!(code == Some(1) && said.contains("of 3 members of etcd are of use"), "{said}");
}

/// In supervised mode a person is asked, with what each vantage says, and may answer through any agent.
#[test]
fn a_person_is_asked_with_the_evidence_of_each_vantage_and_answers_anywhere() {
    let council = Council::start("mode = \"supervised\"\nfreshness = \"10s\"");
    let decider = agreed(&council);
    all_well(&council);
    council.east.set(false);
    council.until("every agent knows what is asked", || {
        (0..3).all(|n| council.status(n)["workloads"]["shop"]["run"]["question"].is_object())
    });
    let other = (decider + 1) % 3;
    let run = council.status(other)["workloads"]["shop"]["run"]["run"].as_str().unwrap().to_owned();
    let said = String::from_utf8(council.lifeboat(other, &["explain", &run]).stdout).unwrap();
    let votes = said.lines().filter(|line| line.contains("lost, proven, a vote")).count();
    assert!(votes >= 2 && said.contains("of 3 saw the loss of east"), "{said}");
    let answer = council.status(other)["workloads"]["shop"]["run"]["answer"].as_str().unwrap().to_owned();
    // It is written for a shell.
    let words: Vec<&str> = answer.split(' ').skip(1).map(|word| word.trim_matches('"')).collect();
    let said = council.lifeboat(other, &words);
    assert!(said.status.success(), "{answer}: {said:?}");
    council.until("the workload lives in the west, for every agent", || {
        (0..3).all(|n| council.status(n)["workloads"]["shop"]["primary"] == "west")
    });
}
