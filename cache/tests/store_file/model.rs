//! The store against a map.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;
use scale0_cache::store::{FileStore, Store};

use crate::world::*;

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u64),
    ReplaceHead(u8),
    Remove(u8),
    Touch(u8),
    Close,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![0..2000_u64, 60_000..70_000_u64, 250_000..400_000_u64];
    prop_oneof![
        8 => (0..12_u8, length).prop_map(|(name, length)| Step::Put(name, length)),
        4 => (0..12_u8).prop_map(Step::ReplaceHead),
        3 => (0..12_u8).prop_map(Step::Remove),
        3 => (0..12_u8).prop_map(Step::Touch),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
    ]
}

/// Runs the steps; what the store has must be what the map has, and if all of that fits, all of it.
fn run(steps: Vec<Step>, capacity: u64, all_fits: bool) {
    let directory = tempfile::tempdir().unwrap();
    let open = || FileStore::open(directory.path(), capacity).unwrap();
    let mut store = open();
    let mut model: HashMap<u8, (Bytes, Bytes)> = HashMap::new();
    for (number, step) in (0_u64..).zip(steps) {
        let head = Bytes::from(format!("head {number}"));
        match step {
            Step::Put(name, length) => {
                let body = body(number, length);
                put(&store, &key(name), &head, &body).unwrap();
                model.insert(name, (head, body));
            }
            Step::ReplaceHead(name) => {
                let replaced = store.replace_head(&key(name), &head).unwrap();
                assert!(replaced <= model.contains_key(&name));
                assert!(replaced || !all_fits || !model.contains_key(&name));
                if replaced {
                    model.get_mut(&name).unwrap().0 = head;
                }
            }
            Step::Remove(name) => {
                store.remove(&key(name)).unwrap();
                model.remove(&name);
            }
            Step::Touch(name) => store.touch(&key(name)),
            Step::Close => {
                drop(store);
                store = open();
            }
            Step::Kill => {
                kill(store);
                store = open();
                assert_eq!(counter(&store, "damaged"), 0);
            }
        }
        assert!(bytes_on_disk(directory.path()) <= capacity * 11 / 10);
        for name in 0..12 {
            let expected = model.get(&name);
            match store.open(&key(name)).unwrap() {
                None => assert!(!all_fits || expected.is_none(), "{name} is lost"),
                Some(record) => {
                    let (head, body) = expected.expect("it was removed");
                    assert_eq!(record.head(), head);
                    assert!(whole_body(&*record).unwrap() == *body);
                    assert!(store.may_hold(&key(name)));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn what_was_put_is_there_until_it_is_removed(steps in prop::collection::vec(step(), 1..40)) {
        run(steps, 64 * MIB, true);
    }

    #[test]
    fn with_little_room_it_is_there_or_gone(steps in prop::collection::vec(step(), 1..60)) {
        run(steps, 3300 * KIB, false);
    }
}
