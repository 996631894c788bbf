//! A lab with its agent, and what is looked at in it.
//!
//! **Invariant:** the agent is judged by its answers, its record and the name server, as an operator would.

#![expect(clippy::unwrap_used, reason = "a test that cannot look has failed")]

use std::process::Command;
use std::time::Duration;

use lifeboat_chaos::{AgentOptions, Lab, LabOptions, Region};
use serde_json::Value;

use crate::binary;

/// How long anything that should happen may take on a slow machine. Never a bar: those are in `make bench`.
pub const SOON: Duration = Duration::from_secs(60);

/// A lab with its agent, once the agent sees everything as healthy.
pub async fn lab(agent: AgentOptions) -> Lab {
    lab_of(LabOptions { agent: Some(agent), ..LabOptions::default() }).await
}

/// The same, made as told.
pub async fn lab_of(options: LabOptions) -> Lab {
    let options = LabOptions {
        agent: options.agent.or_else(|| Some(AgentOptions::default())),
        lifeboat: Some(binary("lifeboat").unwrap()),
        chaos: Some(binary("chaos").unwrap()),
        ..options
    };
    let lab = Lab::start(options).await.unwrap();
    lab.until_status("everything is healthy", SOON, |status| {
        verdict(status, Region::East) == "healthy"
            && verdict(status, Region::West) == "healthy"
            && status["connectivity"]["proven"] == true
    })
    .await
    .unwrap();
    lab
}

/// What the status says of the lab's workload.
pub fn shop(status: &Value) -> &Value {
    &status["workloads"]["shop"]
}

/// What is going on, in one word.
pub fn phase(status: &Value) -> &str {
    shop(status)["phase"].as_str().unwrap_or_default()
}

/// How a region looks.
pub fn verdict(status: &Value, region: Region) -> &str {
    shop(status)["regions"][region.name()]["verdict"].as_str().unwrap_or_default()
}

/// The gate of that name, as `(holds, reason)`.
pub fn gate<'a>(status: &'a Value, name: &str) -> (bool, &'a Value) {
    let conditions = shop(status)["conditions"].as_array().unwrap();
    let gate = conditions.iter().find(|condition| condition["gate"] == name).unwrap();
    (gate["holds"].as_bool().unwrap(), &gate["reason"])
}

/// All runs, oldest first.
pub async fn runs(lab: &Lab) -> Vec<Value> {
    let said = lab.lifeboat(&["history", "--json"]).await;
    said.json().unwrap_or_else(|| panic!("history: {said:?}")).as_array().unwrap().clone()
}

/// Waits until the newest run is in that state, and returns it with its records.
pub async fn until_run(lab: &Lab, state: &str) -> Value {
    let wait = async {
        loop {
            if let Some(run) = runs(lab).await.last()
                && run["state"] == state
            {
                let id = run["run"].as_str().unwrap().to_owned();
                return lab.lifeboat(&["explain", &id, "--json"]).await.json().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(SOON, wait).await {
        Ok(run) => run,
        Err(_) => panic!("no run became {state}; runs: {:#?}\n{}", runs(lab).await, agent_log(lab)),
    }
}

/// The records of that kind.
pub fn records<'a>(run: &'a Value, kind: &str) -> Vec<&'a Value> {
    let all = run["records"].as_array().unwrap().iter().map(|stamped| &stamped["record"]);
    all.filter(|record| record["kind"] == kind).collect()
}

/// The steps that were started, in order, each once.
pub fn steps(run: &Value) -> Vec<&str> {
    let mut steps: Vec<&str> =
        records(run, "step-started").iter().map(|record| record["step"].as_str().unwrap()).collect();
    steps.dedup();
    steps
}

/// The agent's log.
pub fn agent_log(lab: &Lab) -> String {
    std::fs::read_to_string(lab.agent_log()).unwrap_or_default()
}

/// What the name server says, asked by `dig`.
pub fn shop_address(lab: &Lab) -> String {
    let server = lab.network().authority();
    let (at, port) = (format!("@{}", server.ip()), server.port().to_string());
    let dig =
        Command::new("dig").args([&at, "-p", &port, "shop.lab.test.", "A", "+short", "+tries=3"]).output();
    String::from_utf8(dig.unwrap().stdout).unwrap().trim().to_owned()
}

/// Whether the name server says that the shop lives there.
pub fn says(lab: &Lab, region: Region) -> bool {
    shop_address(lab) == lab.network().host(region).to_string()
}

/// Waits until it is so; a minute at most.
pub async fn until(what: &str, met: impl AsyncFn() -> bool) {
    let wait = async {
        while !met().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// The record that a step of a run succeeded with; the last one, if it did more than once.
pub fn gave<'a>(run: &'a Value, step: &str) -> Option<&'a Value> {
    let ended = records(run, "step-ended").into_iter().filter(|record| record["step"] == step);
    ended.map(|record| &record["outcome"]["succeeded"]).rfind(|output| !output.is_null())
}

/// Waits until a record after `sequence` is of that kind and, when a step is named, about that step.
pub async fn until_record(lab: &Lab, sequence: u64, kind: &str, step: &str) -> Value {
    let wait = async {
        loop {
            let records = lab.records_after(sequence).await;
            let fits = |stamped: &&Value| {
                stamped["record"]["kind"] == kind && (step.is_empty() || stamped["record"]["step"] == step)
            };
            if let Some(stamped) = records.iter().find(fits) {
                return stamped.clone();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(SOON, wait).await;
    waited.unwrap_or_else(|_| panic!("no {kind} {step} on record\n{}", agent_log(lab)))
}

/// Waits until everything is calm: guarding, `primary` healthy, the other region's database streaming from it.
pub async fn until_calm(lab: &Lab, primary: Region) -> Value {
    let calm = |status: &Value| {
        let standby = &shop(status)["regions"][primary.other().name()];
        phase(status) == "guarding"
            && shop(status)["primary"] == primary.name()
            && verdict(status, primary) == "healthy"
            && standby["verdict"] == "healthy"
            && standby["databases"]["orders"]["sample"]["state"]["streaming"] == true
            && status["connectivity"]["proven"] == true
    };
    let status = lab.until_status("all is calm", SOON, calm).await;
    status.unwrap_or_else(|late| panic!("{late}\n{}", agent_log(lab)))
}

/// The timeline that a region's primary writes.
pub async fn timeline(lab: &Lab, region: Region) -> i32 {
    let of_file = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int";
    sql(lab, region, of_file).await
}

/// One number from a region's database.
pub async fn sql(lab: &Lab, region: Region, sql: &str) -> i32 {
    let server = lab.server(region).connect("lifeboat").await.unwrap();
    server.query_one(sql, &[]).await.unwrap().get(0)
}
