//! Where the exploration begins: a quiet day, and each kind of run just opened.

use lifeboat_core::FaultKind;
use lifeboat_core::order::Order;

use crate::moves::Move;
use crate::server::Condition;
use crate::setting::{PERSON, Side, Variant, shop};
use crate::world::World;

pub(crate) const SENTRIES: Variant = Variant { sentries: true, hosts: false };
pub(crate) const HOSTS: Variant = Variant { sentries: true, hosts: true };
pub(crate) const BARE: Variant = Variant { sentries: false, hosts: false };

/// A quiet day: the agent in west decides, all is well.
pub(crate) fn quiet(variant: Variant) -> World {
    let mut world = World::new(variant);
    for _ in 0..10 {
        world.step(&Move::Turn(3_000, [1, 0]));
    }
    assert_eq!(world.decider(), Some(1), "{}", world.story());
    world
}

impl World {
    fn step(&mut self, what: &Move) {
        self.happen(what);
        assert!(self.flaw.is_none(), "{:?}: {}", self.flaw, self.story());
    }

    /// Follows the course until it is over.
    fn follow(&mut self) {
        for _ in 0..200 {
            let Some(what) = self.course() else { return };
            self.step(&what);
        }
        panic!("the course does not end: {}", self.story());
    }

    fn order(&mut self, order: Order) {
        self.step(&Move::Order(order));
    }
}

/// The primary's machine is gone.
pub(crate) fn dead(variant: Variant) -> World {
    let mut world = quiet(variant);
    world.step(&Move::Kill(Side::East));
    world
}

/// The primary's machine stands still, and will go on.
pub(crate) fn halted(variant: Variant) -> World {
    let mut world = quiet(variant);
    world.step(&Move::Halt(Side::East, 30_000));
    world
}

/// The primary's machine is gone, and its log did not reach the standby before.
pub(crate) fn lossy(variant: Variant) -> World {
    let mut world = quiet(variant);
    world.step(&Move::Unlink);
    for _ in 0..21 {
        world.step(&Move::Turn(3_000, [1, 0]));
    }
    world.step(&Move::Kill(Side::East));
    world
}

/// The witness froze with its word unsaid that the primary is lost, and is about to say it; the primary was well again,
/// and stands still once more, which one agent alone has seen.
pub(crate) fn late_word(variant: Variant) -> World {
    let mut world = quiet(variant);
    world.step(&Move::Halt(Side::East, 8_500));
    for place in 0..2 {
        world.step(&Move::Blind(place));
    }
    for _ in 0..2 {
        world.step(&Move::Turn(4_000, [1, 0]));
    }
    world.step(&Move::WitnessFreezes);
    for turn in 0..9 {
        if turn == 6 {
            assert_eq!(world.servers[0].condition, Condition::Up);
            world.step(&Move::Crash(0, 40_000));
            world.step(&Move::Halt(Side::East, 30_000));
        }
        world.step(&Move::Turn(3_000, [1, 0]));
    }
    assert!(world.eyes[1][0].lost() && world.witness.unsaid.is_some() && !world.ran);
    world
}

/// A planned move was ordered.
pub(crate) fn planned(variant: Variant) -> World {
    let mut world = quiet(variant);
    world.order(Order::Switchover { workload: shop(), to: Side::West.name(), by: PERSON.to_owned() });
    world.ran = true;
    assert!(world.shared.ledger.phase.run().is_some(), "{}", world.story());
    world
}

/// A planned move that is stranded behind its promotion: the names refuse to be switched.
pub(crate) fn stranded() -> World {
    let mut world = planned(SENTRIES);
    while !world.stranded() {
        let switch = world.flights.iter().position(|flight| flight.command.step.as_str() == "switch-dns");
        let what = switch.map(|index| Move::Fail(index, FaultKind::Refused)).or_else(|| world.course());
        world.step(&what.expect("it is not over"));
    }
    world
}

/// After a failover, the old primary's machine is back.
pub(crate) fn returned(variant: Variant) -> World {
    let mut world = dead(variant);
    world.follow();
    assert!(world.servers[1].acknowledges() && world.names.0 == Side::West, "not moved: {}", world.story());
    world.step(&Move::Return(Side::East));
    world.ran = false;
    world
}

/// After a failover and a rejoin, the way home was ordered.
pub(crate) fn homeward() -> World {
    let mut world = returned(HOSTS);
    world.follow();
    for _ in 0..4 {
        world.step(&Move::Turn(3_000, [1, 0]));
    }
    world.order(Order::Failback { workload: shop(), by: PERSON.to_owned() });
    world.ran = true;
    assert!(world.shared.ledger.phase.run().is_some(), "{}", world.story());
    world
}
