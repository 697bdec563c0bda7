//! Sites in which one thing goes wrong, told to the end.

use std::time::Duration;

use crate::node::Ask;
use crate::site::FRONTENDS;
use crate::weather::Weather;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// A site that nobody asks anything, after so long.
fn idle(seed: u64) -> World {
    let mut world = World::new(seed, Weather::calm());
    world.is_calm = true;
    for node in 0..FRONTENDS {
        world.with_node(node, |it, context| it.settle(context));
    }
    world.run_until(SECOND * 5);
    world
}

#[test]
fn a_site_that_nobody_asks_says_little() {
    idle(1).check_idle();
}

#[test]
fn a_broker_that_drains_beside_a_tunnel_says_no_more_than_before() {
    for seed in 1..4 {
        let mut world = idle(seed);
        world.is_calm = false;
        let tunnel = Ask {
            is_tunnel: true,
            ..Ask::get(SECOND * 10)
        };
        world.with_node(0, |it, context| it.ask(tunnel, context));
        world.run_until(SECOND * 6);
        for broker in 0..3 {
            world.drain_broker(broker, SECOND * 60);
        }
        world.run_until(SECOND * 7);
        let before = world.messages;
        world.run_until(SECOND * 17);
        let said = world.messages - before;
        assert!(said < 1500, "{said} messages in ten seconds");
    }
}
