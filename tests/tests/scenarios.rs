//! The shipped scenarios, acted out on real PostgreSQL, etcd, agents and sentries; the simulator runs the same files.

use std::sync::Mutex;

use lifeboat_chaos::enactment::{Judged, Options, enact};
use lifeboat_chaos::scenario::shipped;
use lifeboat_tests::binary;
use tokio::sync::Semaphore;

/// How many labs at a time: they wait more than they work, and yet a machine of two cores has to keep up with leases of
/// three seconds.
const AT_ONCE: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_scenarios_come_out_on_real_servers() {
    let scenarios = shipped().expect("the shipped scenarios are understood");
    assert!(scenarios.len() >= 20, "{} scenarios", scenarios.len());
    let program = |name| Some(binary(name).expect("built by `cargo build --workspace --bins`"));
    let options = Options { lifeboat: program("lifeboat"), chaos: program("chaos"), ..Options::default() };
    let (seats, told) = (Semaphore::new(AT_ONCE), Mutex::new(Vec::new()));
    let each = scenarios.iter().map(|scenario| async {
        let _seat = seats.acquire().await.expect("nobody closes it");
        let judged = enact(scenario, &options, |_| {}).await;
        let wrong = match &judged {
            Ok(judged) if judged.ok() => return,
            Ok(Judged { violations, told, .. }) => format!("{violations:#?}\npeople were told: {told:?}"),
            Err(error) => error.to_string(),
        };
        told.lock().expect("nobody panics with it").push(format!("{}: {wrong}", scenario.name));
    });
    futures::future::join_all(each).await;
    let told = told.into_inner().expect("nobody panics with it");
    assert!(told.is_empty(), "{}", told.join("\n"));
}
