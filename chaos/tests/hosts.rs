//! The hosts of a lab, on real servers: what runs there dies with its region, goes on without its caller, and
//! a region comes back as it was.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lifeboat_chaos::{Fault, From, Lab, LabOptions, Region, To, power, process};

fn chaos() -> Command {
    Command::new(env!("CARGO_BIN_EXE_chaos"))
}

async fn lab() -> Lab {
    let chaos = Some(PathBuf::from(env!("CARGO_BIN_EXE_chaos")));
    Lab::start(LabOptions { chaos, ..LabOptions::default() }).await.unwrap()
}

async fn until(what: &str, met: impl AsyncFn() -> bool) {
    let wait = async {
        while !met().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

fn exec(lab: &Lab, region: Region, argv: &[&str]) -> Command {
    let mut command = chaos();
    command.args(["host", "exec", "--lab"]).arg(lab.folder()).args([region.name(), "--"]).args(argv);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Off the runtime's threads: the lab's proxies, which carry it, run there.
async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn server_pid(lab: &Lab, region: Region) -> Option<i32> {
    let lock = std::fs::read_to_string(lab.server(region).data().join("postmaster.pid")).ok()?;
    lock.lines().next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_on_a_host_has_its_callers_pipes_and_dies_with_the_region_alone() {
    let lab = lab().await;
    let (folder, place) = (lab.folder().to_owned(), Region::East.folder(lab.folder()));

    // Input, output, errors and the exit code are passed on; it works in the region's folder, not as root.
    let mut child = exec(&lab, Region::East, &["sh", "-c", "cat; pwd; id -u >&2; exit 7"]);
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    let said = tokio::task::spawn_blocking(move || {
        child.stdin.take().unwrap().write_all(b"hello ").unwrap();
        child.wait_with_output().unwrap()
    });
    let said = said.await.unwrap();
    assert_eq!(said.status.code(), Some(7));
    assert_eq!(String::from_utf8(said.stdout).unwrap(), format!("hello {}\n", place.display()));
    assert_ne!(String::from_utf8(said.stderr).unwrap().trim(), "0");

    // A caller that is killed leaves the program running to its end.
    let script = "echo begun; while [ ! -e go ]; do sleep 0.05; done; touch done";
    let mut caller = exec(&lab, Region::East, &["sh", "-c", script]).spawn().unwrap();
    let programs = || process::within(&place).unwrap();
    let mut first = [0; 6];
    let mut output = caller.stdout.take().unwrap();
    tokio::task::spawn_blocking(move || std::io::Read::read_exact(&mut output, &mut first).unwrap())
        .await
        .unwrap();
    caller.kill().unwrap();
    caller.wait().unwrap();
    std::fs::write(place.join("go"), "").unwrap();
    until("the program reached its end", async || place.join("done").exists()).await;

    // A path that is cut refuses, whatever the host does.
    lab.proxy(From::Agent, To::Host(Region::East)).set(Fault::Refuse);
    assert_eq!(run(exec(&lab, Region::East, &["true"])).await.status.code(), Some(255));
    lab.proxy(From::Agent, To::Host(Region::East)).set(Fault::None);
    until("the path is back", async || run(exec(&lab, Region::East, &["true"])).await.status.success()).await;

    // The region is lost with all that runs in it, and its caller learns that.
    let caller = exec(&lab, Region::East, &["sh", "-c", "sleep 600"]).spawn().unwrap();
    let sleeping = || programs().into_iter().any(|pid| command_of(pid).contains("sleep 600"));
    until("the program runs", async || sleeping()).await;
    power::off(&folder, Region::East, 3).unwrap();
    assert_eq!(programs(), Vec::<i32>::new());
    let ended = tokio::task::spawn_blocking(move || caller.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(ended.status.code(), Some(255));

    // While it is off nothing runs and nothing starts.
    let refused = run(exec(&lab, Region::East, &["true"])).await;
    assert_eq!(refused.status.code(), Some(255));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("powered off"));
    let mut start = chaos();
    start.args(["host", "start", "east", "--lab"]).arg(&folder).stderr(Stdio::piped());
    assert_eq!(run(start).await.status.code(), Some(5));
    assert!(lab.boot(Region::East).await.is_err());
    assert_eq!(programs(), Vec::<i32>::new());
}

fn command_of(pid: i32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_stops_and_starts_its_server_and_two_starts_make_one() {
    let lab = lab().await;
    // As the database's user does it, from a program on the host.
    let order = |verb: &'static str| {
        let folder = lab.folder().display().to_string();
        let argv = [env!("CARGO_BIN_EXE_chaos"), "host", verb, "--lab", &folder, "west"];
        run(exec(&lab, Region::West, &argv))
    };
    let before = server_pid(&lab, Region::West).unwrap();
    let (stopped, again) = (order("stop").await, order("stop").await);
    assert!(stopped.status.success() && again.status.success(), "{stopped:?} {again:?}");
    assert!(!process::alive(before) && server_pid(&lab, Region::West).is_none());
    let (one, two) = tokio::join!(order("start"), order("start"));
    assert!(one.status.success() && two.status.success(), "{one:?} {two:?}");
    assert_eq!(one.stdout, two.stdout);
    let after = server_pid(&lab, Region::West).unwrap();
    assert!(process::alive(after) && after != before);
    lab.server(Region::West).answers().await.unwrap();
    lab.replicated().await.unwrap();

    // One that cannot start says why.
    order("stop").await;
    let conf = lab.server(Region::West).data().join("lab.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, format!("{text}no_such_setting = 1\n")).unwrap();
    let failed = order("start").await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8(failed.stderr).unwrap().contains("no_such_setting"));
    std::fs::write(&conf, text).unwrap();
    assert!(order("start").await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_comes_back_believes_what_it_did_before() {
    let lab = lab().await;
    let timeline = "SELECT timeline_id || ':' || pg_is_in_recovery() FROM pg_control_checkpoint()";
    let ask = async |region, sql: &str| -> String {
        let server = lab.server(region).connect("lifeboat").await.unwrap();
        server.query_one(sql, &[]).await.unwrap().get(0)
    };
    let shop = lab.server(Region::East).connect("shop").await.unwrap();
    let insert = "INSERT INTO orders (id, sent_ms, region) VALUES ('old', 1, 'east')";
    shop.execute(insert, &[]).await.unwrap();
    lab.replicated().await.unwrap();
    let old = server_pid(&lab, Region::East).unwrap();
    lab.freeze(Region::East).unwrap();
    power::off(lab.folder(), Region::East, 2).unwrap();
    lab.promote(Region::West).await.unwrap();

    lab.bring_back(Region::East).await.unwrap();
    assert_eq!(power::state(lab.folder(), Region::East), None);
    assert_ne!(server_pid(&lab, Region::East).unwrap(), old);
    assert_eq!(ask(Region::East, timeline).await, "1:false");
    assert!(lab.orders(Region::East).await.unwrap().contains("old"));
    assert_eq!(lab.proxy(From::Region(Region::West), To::Postgres(Region::East)).fault(), Fault::None);
    assert!(run(exec(&lab, Region::East, &["true"])).await.status.success());
    assert!(tokio::net::TcpStream::connect(lab.network().door(To::Shop(Region::East))).await.is_ok());

    // Either can be the other's standby: who replicates is known on both sides, over both paths.
    for region in Region::ALL {
        let path = lab.network().path(From::Region(region), To::Postgres(region.other()));
        let host = format!("--host={}", path.ip());
        let port = format!("--port={}", path.port());
        let receive = lab.server(region).programs().join("pg_receivewal");
        let passfile = format!("PGPASSFILE={}/replica.pgpass", region.folder(lab.folder()).display());
        let program = receive.display().to_string();
        let probe =
            ["env", &passfile, &program, "--user=replica", &host, &port, "--slot=probe", "--create-slot"];
        let said = run(exec(&lab, region, &probe)).await;
        assert!(said.status.success(), "{region}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_lab_that_is_killed() {
    // No agent program: `chaos up` would need one; the lab's own process is this test's child instead.
    let mut holder = Command::new(std::env::current_exe().unwrap());
    holder.args(["--exact", "holds_a_lab_until_it_is_killed", "--nocapture"]).env(HOLD, "1");
    let mut holder = holder.stdout(Stdio::piped()).spawn().unwrap();
    let output = holder.stdout.take().unwrap();
    let folder = tokio::task::spawn_blocking(move || {
        let lines = std::io::BufRead::lines(std::io::BufReader::new(output));
        lines
            .map_while(Result::ok)
            .find_map(|line| line.split_once("LAB=").map(|(_, path)| PathBuf::from(path)))
    });
    let folder = folder.await.unwrap().unwrap();
    let programs = process::within(&folder).unwrap();
    let grandchild = programs.iter().any(|pid| command_of(*pid).starts_with("sleep 601"));
    assert!(programs.len() >= 10 && grandchild, "{programs:?}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    until("processes and folder are gone", async || {
        process::within(&folder).unwrap().is_empty() && !folder.exists()
    })
    .await;
}

const HOLD: &str = "CHAOS_TEST_HOLDS_A_LAB";

/// Not a test of its own: the process that the test above kills, with one region frozen and, in the other, a
/// program whose child no signal of a dying parent reaches.
#[tokio::test(flavor = "multi_thread")]
async fn holds_a_lab_until_it_is_killed() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let lab = lab().await;
    let mut caller = exec(&lab, Region::West, &["sh", "-c", "sleep 601; true"]).spawn().unwrap();
    let place = Region::West.folder(lab.folder());
    until("the grandchild runs", async || {
        process::within(&place).unwrap().into_iter().any(|pid| command_of(pid).starts_with("sleep 601"))
    })
    .await;
    lab.freeze(Region::East).unwrap();
    let mut said = std::io::stdout().lock();
    writeln!(said, "\nLAB={}", lab.folder().display()).unwrap();
    said.flush().unwrap();
    drop(said);
    caller.wait().unwrap();
}
