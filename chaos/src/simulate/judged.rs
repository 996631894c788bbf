//! What a scenario expects, held against what came of it.

use super::setting::NAMES;
use super::world::World;
use crate::scenario::Scenario;

/// Before the first look at the end.
const STEP: u64 = 250;

/// Lets a scenario happen and judges it.
pub(crate) fn watch(world: &mut World, scenario: &Scenario, horizon: u64) {
    let millis = |length: std::time::Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let begins = scenario.happenings.first().map_or(0, |happening| millis(happening.at));
    let end = horizon + millis(scenario.setup.watch);
    let mut served_at = None;
    let wanted = scenario.expect.moved.map_or(0, crate::scenario::Site::index);
    while world.now < end {
        world.pass((world.now + STEP).min(end));
        let served = world.now > begins && world.acknowledges(wanted) && world.names.says == wanted;
        if served && served_at.is_none() && world.oracle.book.primary == wanted {
            served_at = Some(world.now);
        }
    }
    let expect = &scenario.expect;
    let mut wrong = Vec::new();
    let book = &world.oracle.book;
    let home = NAMES.regions[book.primary].as_str();
    match expect.moved {
        Some(site) if book.primary != site.index() => {
            wrong.push(format!("it lives in {home}, not in {site}"))
        }
        None if book.primary != 0 || world.oracle.tally.failovers > 0 => {
            wrong.push(format!("it must not move, and lives in {home}"));
        }
        _ => {}
    }
    if let Some(within) = expect.within {
        let took = served_at.map(|at| at - begins);
        if took.is_none_or(|took| took > millis(within)) {
            wrong.push(format!("served there after {took:?} ms, not within {} ms", millis(within)));
        }
    }
    for kind in expect.told.iter().filter(|kind| !world.oracle.told.contains(*kind)) {
        wrong.push(format!("nobody was told of {kind}; told were {:?}", world.oracle.told));
    }
    for kind in expect.not_told.iter().filter(|kind| world.oracle.told.contains(*kind)) {
        wrong.push(format!("people were told of {kind}"));
    }
    if world.oracle.lost > millis(expect.loss) {
        wrong.push(format!(
            "{} ms of acknowledged writes are lost, more than {}",
            world.oracle.lost,
            millis(expect.loss)
        ));
    }
    if book.stranded != expect.stranded {
        let is = if book.stranded { "is" } else { "is not" };
        wrong.push(format!("the run {is} stranded"));
    }
    if expect.rejoined && !world.replicates(1 - book.primary) {
        wrong.push("the region that was left does not follow".to_owned());
    }
    for what in wrong {
        world.oracle.violation(world.now, format!("{}: {what}", scenario.name));
    }
}
