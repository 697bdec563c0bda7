//! Sites in which one thing goes wrong, told to the end.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::fuzz::Trace;
use crate::node::Ask;
use crate::site::FRONTENDS;
use crate::weather::Weather;
use crate::world::World;

/// The length of a seed; the last message in it may be cut short.
const SEED: usize = 12_000;

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

/// After a change of the protocol: `cargo test -p scale0-simulation --lib seeds -- --ignored`.
#[test]
#[ignore = "writes the seeds of the broker's fuzzer"]
fn what_happens_to_a_broker_is_written_down_as_seeds() {
    for seed in 1..4 {
        let mut world = World::new(seed * 2 - 1, Weather::storm());
        // As many peers as a script knows.
        for node in 6..world.nodes.len() {
            world.crash_node(node);
        }
        world.script = Some(Trace::new(0, Duration::ZERO));
        world.start_broker(0);
        let mut end = Duration::ZERO;
        let script = loop {
            end += Duration::from_millis(10);
            world.run_until(end);
            let script = world.script.as_ref().expect("it is written").script();
            if SEED < script.len() || SECOND * 10 < end {
                break &script[..script.len().min(SEED)];
            }
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/broker");
        fs::write(folder.join(format!("trace-{seed}")), script).unwrap();
    }
}
