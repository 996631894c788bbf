//! A store that fails, is slow, is full, or answers no more.

use std::time::Duration;

use lifeboat_archive::Trouble;
use lifeboat_archive::wal::{Got, TROUBLE_EXIT, WalOptions, get};
use lifeboat_engine::ports::StoreError;

use crate::world::{FIRST, MIB, SYSTEM, World, at_once, between, lsn, segment, stream, when_asked};

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_often_and_is_slow_gets_everything_in_the_end() {
    let world = World::seeded(5).await;
    let all = stream(5, 6 * MIB);
    let mut writer = world.writer(FIRST, at_once()).await;
    world.store.fault(|fault| {
        fault.fails = 5;
        fault.unclear = 5;
        fault.delay = Duration::from_millis(80);
    });
    let end = 7 * MIB;
    for at in (MIB..end).step_by(50_000) {
        writer.append(lsn(at), between(&all, at, (at + 50_000).min(end))).await.unwrap();
    }
    assert_eq!(writer.flush().await.unwrap(), lsn(end));
    assert_eq!(writer.pressure().trouble, None, "it is over");
    world.store.fault(|fault| *fault = Default::default());
    for at in (MIB..end).step_by(1 << 20) {
        assert_eq!(world.get(&segment(FIRST, at)).await.unwrap().unwrap(), between(&all, at, at + MIB));
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_full_store_the_one_who_brings_more_waits_and_nothing_is_dropped() {
    let world = World::new().await;
    let all = stream(6, 40 * MIB);
    let most = 4 * MIB;
    let mut writer = world.writer(FIRST, WalOptions { most_waiting: most, ..when_asked() }).await;
    world.store.fault(|fault| fault.space = Some(2 * MIB));
    let mut at = MIB;
    let stuck = loop {
        let bytes = between(&all, at, at + 128 * 1024);
        match tokio::time::timeout(Duration::from_secs(20), writer.append(lsn(at), bytes)).await {
            Ok(end) => end.unwrap(),
            Err(_) => break at,
        }
        at += 128 * 1024;
        assert!(at < 20 * MIB, "more and more is held");
    };
    let pressure = writer.pressure();
    assert!(pressure.full && pressure.waiting <= most, "{pressure:?}");
    assert!(pressure.trouble.as_ref().is_some_and(|said| said.contains("full")), "{pressure:?}");
    assert!(writer.held().lsn < lsn(stuck), "and nothing is called durable that is not");
    world.store.fault(|fault| fault.space = None);
    for at in (stuck..stuck + MIB).step_by(128 * 1024) {
        writer.append(lsn(at), between(&all, at, at + 128 * 1024)).await.unwrap();
    }
    assert_eq!(writer.flush().await.unwrap(), lsn(stuck + MIB));
    for at in (MIB..stuck).step_by(1 << 20) {
        assert_eq!(world.get(&segment(FIRST, at)).await.unwrap().unwrap()[..4], between(&all, at, at + 4));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_ends_the_writer_and_the_next_one_goes_on() {
    let world = World::new().await;
    let all = stream(8, 2 * MIB);
    let mut writer = world.writer(FIRST, WalOptions { patience: Duration::from_secs(3), ..at_once() }).await;
    writer.append(lsn(MIB), between(&all, MIB, MIB + 100)).await.unwrap();
    writer.flush().await.unwrap();
    world.store.fault(|fault| fault.gone = true);
    writer.append(lsn(MIB + 100), between(&all, MIB + 100, MIB + 200)).await.unwrap();
    let end = writer.flush().await.unwrap_err();
    assert!(matches!(end, Trouble::Store(StoreError::Unreachable(_))), "{end}");
    let again = writer.append(lsn(MIB + 200), between(&all, MIB + 200, MIB + 300)).await.unwrap_err();
    assert!(again.to_string().contains("cannot be reached"), "{again}");
    assert!(writer.watch().changed().await.is_err());
    world.store.fault(|fault| fault.gone = false);
    let mut writer = world.writer(FIRST, at_once()).await;
    assert_eq!(writer.next(), lsn(MIB + 100));
    writer.append(lsn(MIB + 100), between(&all, MIB + 100, MIB + 300)).await.unwrap();
    assert_eq!(writer.flush().await.unwrap(), lsn(MIB + 300));
}

#[tokio::test(start_paused = true)]
async fn an_archive_that_cannot_be_reached_is_never_told_as_not_there() {
    let world = World::new().await;
    let all = stream(9, MIB);
    let mut writer = world.writer(FIRST, when_asked()).await;
    writer.append(lsn(MIB), all).await.unwrap();
    writer.flush().await.unwrap();
    let target = world.path("target");
    type Fault = fn(&mut lifeboat_engine::pretend::StoreFault);
    for fault in [|fault| fault.gone = true, |fault| fault.denied = true] as [Fault; 2] {
        world.store.fault(fault);
        for name in [&segment(FIRST, MIB), &segment(FIRST, 2 * MIB), "00000002.history"] {
            let patience = Duration::from_secs(2);
            let got = get(&world.archive, SYSTEM, name, &target, None, patience).await;
            assert!(matches!(got, Err(Trouble::Store(_))), "{name}: {got:?}");
            assert!(!target.exists());
        }
        world.store.fault(|fault| *fault = Default::default());
    }
    // A store that fails one call in three is asked again.
    world.store.fault(|fault| fault.fails = 33);
    for _ in 0..20 {
        let patience = Duration::from_secs(600);
        let name = segment(FIRST, 2 * MIB);
        assert_eq!(get(&world.archive, SYSTEM, &name, &target, None, patience).await.unwrap(), Got::Missing);
    }
    assert_eq!((Got::Found.exit(), Got::Missing.exit()), (0, 1));
    const { assert!(TROUBLE_EXIT > 125, "what PostgreSQL takes as not there") };
}
