//! A failover by hand: the commands of the page that `lifeboat runbook render` writes are run as they stand there, on a
//! real pair, after the agent was killed. A page that rots fails here.

#![expect(clippy::unwrap_used, reason = "a test that cannot look has failed")]

use std::process::Command;
use std::time::Duration;

use lifeboat_chaos::postgres::{AGENT_USER, SHOP_USER};
use lifeboat_chaos::{AgentOptions, Lab, LabOptions, Region};
use lifeboat_tests::binary;

/// How long anything that should happen may take on a slow machine. Never a bar.
const SOON: Duration = Duration::from_secs(60);

/// The blocks of commands of a page that ask a server, each with the heading it stands under: those marked `sh`, in order,
/// or `console`, for when something fails.
fn blocks(page: &str, marked: &str) -> Vec<(String, String)> {
    let opening = format!("```{marked}");
    let (mut found, mut heading, mut block) = (Vec::new(), String::new(), None::<String>);
    for line in page.lines() {
        match &mut block {
            Some(_) if line.starts_with("```") => found.push((heading.clone(), block.take().unwrap())),
            Some(commands) => {
                commands.push_str(line);
                commands.push('\n');
            }
            None if line == opening => block = Some(String::new()),
            None if line.starts_with("## ") => heading = line.to_owned(),
            None => {}
        }
    }
    found.retain(|(_, block): &(String, String)| block.contains("sql_orders"));
    found
}

/// The page of a procedure, written down by a lab whose agent is gone.
async fn page(lab: &Lab, kind: &str) -> String {
    let written = lab.lifeboat(&["runbook", "render", kind, "--workload", "shop"]).await;
    assert_eq!(written.code, Some(0), "{written:?}");
    written.stdout
}

/// Runs commands as a person's shell would; what it said, both outputs in one. Not on the thread of the lab's proxies.
async fn shell(commands: &str) -> (bool, String) {
    let commands = format!("exec 2>&1\n{commands}");
    let run = move || {
        let mut shell = Command::new("sh");
        shell.args(["-eu", "-c", &commands]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        shell.env("LC_ALL", "C").output().unwrap()
    };
    let said = tokio::task::spawn_blocking(run).await.unwrap();
    (said.status.success(), String::from_utf8(said.stdout).unwrap())
}

#[tokio::test]
async fn the_page_of_a_failover_ends_with_a_promoted_standby() {
    let lab = Lab::start(LabOptions {
        agent: Some(AgentOptions { supervised: true, ..AgentOptions::default() }),
        lifeboat: Some(binary("lifeboat").unwrap()),
        chaos: Some(binary("chaos").unwrap()),
        ..LabOptions::default()
    })
    .await
    .unwrap();
    // The agent learns the cluster and writes heartbeats; then lifeboat is gone, and its journal stays.
    lab.until_status("everything is healthy", SOON, |status| {
        let region = |name: &str| &status["workloads"]["shop"]["regions"][name]["verdict"];
        region("east") == "healthy" && region("west") == "healthy"
    })
    .await
    .unwrap();
    lab.kill_agent().unwrap();
    taken_back(&lab).await;
    let page = page(&lab, "failover").await;
    let (east, west) = (lab.server(Region::East), lab.server(Region::West));
    let session = east.connect(AGENT_USER).await.unwrap();
    let identity = "SELECT system_identifier::text FROM pg_control_system()";
    let system: String = session.query_one(identity, &[]).await.unwrap().get(0);
    assert!(page.contains(&format!("the cluster `{system}`")), "the record knows the cluster:\n{page}");
    let secret = std::fs::read_to_string(lab.folder().join("agent/orders.password")).unwrap();
    assert!(!page.contains(secret.trim()), "the page holds a password");

    // In order, down to the first write; the names and the shops are not the servers'.
    let commands = blocks(&page, "sh");
    let headings: Vec<&str> = commands.iter().map(|(heading, _)| heading.as_str()).collect();
    assert_eq!(headings.len(), 6, "{headings:#?}");
    let client = east.connect(SHOP_USER).await.unwrap();
    let script: String = commands.iter().map(|(_, block)| block.as_str()).collect();
    let (well, said) = shell(&script).await;
    assert!(well, "{said}");
    for wanted in [
        "ERROR:  25006",
        "fenced_by_lifeboat",
        "a new session is turned away",
        "pg_promote",
        "by-hand",
        &system,
    ] {
        assert!(said.contains(wanted), "no {wanted} in:\n{said}");
    }
    assert!(!said.contains("NOT FENCED"), "{said}");

    // What the page says is so.
    assert!(client.execute("INSERT INTO orders VALUES ('late', 0, 'east')", &[]).await.is_err());
    assert!(east.connect(SHOP_USER).await.is_err(), "a client gets into the fenced primary");
    let west = west.connect(SHOP_USER).await.unwrap();
    let standby: bool = west.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap().get(0);
    assert!(!standby, "{said}");
    west.execute("INSERT INTO orders VALUES ('first', 0, 'west')", &[]).await.unwrap();

    // Who begins the page again sees that it is done.
    let (_, said) = shell(&format!("{}{}", commands[0].1, commands[1].1)).await;
    assert!(said.contains("primary"), "the role is shown: {said}");
    returns(&lab).await;
}

/// The old primary, fenced as it is, is salvaged and made a standby by the page of a rejoin.
async fn returns(lab: &Lab) {
    let page = page(lab, "rejoin").await;
    let mut commands = blocks(&page, "sh");
    assert!(commands[1].1.contains("sessions_left"), "{commands:#?}");
    // As the page says of a server that is fenced already.
    commands[1].1 =
        format!("export PGOPTIONS='-c session_preload_libraries='\n{}unset PGOPTIONS\n", commands[1].1);
    let script: String = commands.iter().map(|(_, block)| block.as_str()).collect();
    let (well, said) = shell(&script).await;
    assert!(well, "{said}");
    for wanted in [
        "ERROR:  25006",
        "a new session is turned away",
        r#"{"done":{"salvaged":"#,
        r#"{"done":{"rejoined":"#,
    ] {
        assert!(said.contains(wanted), "no {wanted} in:\n{said}");
    }
    let follows = async {
        let row = "SELECT pg_is_in_recovery() AND EXISTS (SELECT FROM orders WHERE id = 'first')";
        loop {
            if let Ok(client) = lab.server(Region::East).connect(SHOP_USER).await
                && let Ok(row) = client.query_one(row, &[]).await
                && row.get::<_, bool>(0)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, follows).await.is_ok(), "east does not follow:\n{said}");
}

/// A switchover up to where it may still be taken back, and that: the primary is closed, the standby has everything,
/// and clients write again.
async fn taken_back(lab: &Lab) {
    let page = page(lab, "switchover").await;
    let before: String = blocks(&page, "sh")
        .into_iter()
        .take_while(|(heading, _)| !heading.starts_with("## 5."))
        .map(|(_, block)| block)
        .collect();
    let (well, said) = shell(&before).await;
    assert!(well, "{said}");
    for wanted in ["CHECKPOINT", "ERROR:  25006", "a new session is turned away", "caught_up"] {
        assert!(said.contains(wanted), "no {wanted} in:\n{said}");
    }
    let lift = blocks(&page, "console");
    assert_eq!(lift.len(), 1, "one way back: {lift:?}");
    let (functions, _) = before.split_once("EPOCH=").unwrap();
    let (well, said) = shell(&format!("{functions}{}", lift[0].1)).await;
    assert!(well, "{said}");
    let client = lab.server(Region::East).connect(SHOP_USER).await.unwrap();
    client.execute("INSERT INTO orders VALUES ('between', 0, 'east')", &[]).await.unwrap();
}
