//! Three real agents that share a real Kubernetes API server, with the rights as they ship: one decides, another one goes on
//! when it is killed, and without the API server nobody decides.

#![expect(clippy::unwrap_used, reason = "a test that cannot look has failed")]

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use lifeboat_tests::council::{AGENTS, Council};

#[expect(dead_code, reason = "the coordinator's own tests use all of it")]
#[path = "../../daemon/lease/tests/kubernetes/cluster.rs"]
mod cluster;

use cluster::{Cluster, Namespace, RIGHTS};

const AUTOMATIC: &str = "mode = \"automatic\"\nfreshness = \"20s\"\ncooldown = \"1s\"\nbudget = 100\nbudget_window = \"1m\"\nhold_down = \"0s\"";

/// The agents with their file of credentials; the folder is theirs until the test ends.
fn council(cluster: &Cluster, namespace: &Namespace) -> (Council, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    // JSON is YAML.
    std::fs::write(&path, namespace.kubeconfig(cluster.address).to_string()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let lease = format!(
        "kind = \"kubernetes\"\nttl = \"5s\"\nnamespace = \"{}\"\nkubeconfig = \"{}\"\n",
        namespace.name,
        path.display()
    );
    (Council::over(&lease, AUTOMATIC), folder)
}

fn environment(council: &Council) -> (Option<i32>, String) {
    let said = council.lifeboat(0, &["check", "--environment"]);
    (said.status.code(), String::from_utf8(said.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_agent_decides_when_the_one_that_did_is_gone() {
    let cluster = Arc::new(Cluster::start(&[]).await);
    let namespace = cluster.namespace(RIGHTS).await;
    let (mut council, _credentials) = council(&cluster, &namespace);
    let first = council.agreed();
    let term = council.status(first)["decider"]["term"].as_u64().unwrap();
    let (code, said) = environment(&council);
    assert!(code == Some(0) && said.contains("all rights are there\n"), "{said}");

    // An order given to an agent that stands by is carried out by the one that decides.
    let by = (first + 1) % 3;
    let said = council.lifeboat(by, &["pause", "shop", "--reason", "a look inside", "--for", "1h"]);
    assert!(said.status.success(), "{said:?}");
    council.until("every agent knows of the pause", || {
        (0..3).all(|n| council.status(n)["workloads"]["shop"]["phase"] == "paused")
    });

    council.kill_agent(first);
    let second = council.agreed();
    assert_ne!(first, second);
    assert!(council.status(second)["decider"]["term"].as_u64().unwrap() > term);
    assert_eq!(council.status(second)["workloads"]["shop"]["phase"], "paused", "the record went with it");
    let said = council.lifeboat(second, &["resume", "shop"]);
    assert!(said.status.success(), "{said:?}");
    council.until("both are ready, and see the east", || {
        council.running().iter().all(|n| {
            let status = council.status(*n);
            status["vantages"][AGENTS[second].0]["sees"]["shop"]["east"]["verdict"] == "healthy"
        })
    });

    // And a loss is acted on once, under the new one.
    council.start_agent(first);
    council.agreed();
    council.east.set(false);
    council.until("the workload lives in the west, for every agent", || {
        (0..3).all(|n| {
            council.status(n)["workloads"]["shop"]["primary"] == "west" && council.name_says(n) == "west"
        })
    });
    assert_eq!(council.json(second, &["history", "--json"]).as_array().unwrap().len(), 1);

    cluster.stop();
    council.until("every agent says that the coordinator is lost", || {
        (0..3).all(|n| {
            let status = council.status(n);
            status["coordination"]["reached"] == false && status["decider"]["here"] != true
        })
    });
    let (code, said) = environment(&council);
    assert!(code == Some(1) && said.contains("failed   the Kubernetes API, Lease lifeboat"), "{said}");
    for (name, _) in AGENTS {
        let log = std::fs::read_to_string(council.folder.path().join(format!("{name}.log"))).unwrap();
        assert!(!log.contains("kube_client"), "a failure is told once, by who handles it: {log}");
    }
}

/// A right that is missing is named before it is missed.
#[tokio::test(flavor = "multi_thread")]
async fn the_environment_names_each_right_that_is_missing() {
    let cluster = Arc::new(Cluster::start(&[]).await);
    let rights = RIGHTS.replace("\"create\", \"update\", \"delete\"", "\"create\", \"update\"");
    assert_ne!(rights, RIGHTS);
    let namespace = cluster.namespace(&rights).await;
    let (council, _credentials) = council(&cluster, &namespace);
    let (code, said) = environment(&council);
    assert!(code == Some(1) && said.contains("this agent may not delete configmaps; "), "{said}");
}
