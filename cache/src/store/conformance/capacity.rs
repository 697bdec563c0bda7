//! What holds of a store that is written far more than it has room for.

use std::collections::HashMap;
use std::path::Path;

use super::folder;
use super::sample::{Sample, done, key, open, verify_or_fails, write};
use crate::store::{BLOCK, Store};

/// The disk is looked at so often.
const LOOKS: u64 = 100;

/// Writes ten times `bound` bytes.
pub(super) fn fill(bound: u64, store: &dyn Store, directory: &Path) {
    let mut newest = HashMap::new();
    let (mut written, mut looked) = (0, 0);
    let (mut refused, mut missing) = (0, 0);
    for number in 0.. {
        if 10 * bound <= written {
            break;
        }
        // Every fourth takes the place of an older one.
        let name = if number % 4 == 3 { number / 2 } else { number };
        let sample = sample(number);
        match write(store, &key(name), &sample) {
            Err(_) => {
                refused += 1;
                // Its key gives nothing, or what it gave before.
                newest.remove(&name);
            }
            Ok(()) => {
                newest.insert(name, number);
                match open(store, &key(name)) {
                    Some(record) => {
                        verify_or_fails(&*record, &sample, "while it fills up", &mut |_| {});
                    }
                    None => missing += 1,
                }
            }
        }
        written += sample.length();
        let held = store.usage().bytes;
        assert!(
            held <= bound,
            "it says to hold {held} bytes, of {bound} it may"
        );
        if looked + bound / (LOOKS / 10) <= written {
            looked = written;
            let held = folder::size(directory);
            assert!(
                held <= bound,
                "its files have {held} bytes, of {bound} they may"
            );
        }
    }
    done("sync", store.sync());
    let held = folder::size(directory);
    assert!(
        held <= bound,
        "its files have {held} bytes at the end, of {bound} they may"
    );
    let count = newest.len() as u64;
    assert!(
        refused * 10 <= count,
        "it refused {refused} records beside {count} it took"
    );
    assert!(
        missing * 10 <= count,
        "it had {missing} of {count} no more when they were committed"
    );

    let mut served = 0;
    for (&name, &number) in &newest {
        if let Some(record) = open(store, &key(name)) {
            assert!(
                store.may_hold(&key(name)),
                "may_hold denies a record that is there"
            );
            verify_or_fails(&*record, &sample(number), "in a full store", &mut |_| {});
            served += record.length();
        }
    }
    // What can be asked of a store that may drop half of what it has at once.
    assert!(
        bound / 16 <= served,
        "of {bound} bytes it may hold, it serves {served}"
    );
}

fn sample(number: u64) -> Sample {
    const LENGTHS: [usize; 7] = [300, 1000, 5000, 16 * 1024, 20_000, BLOCK + 1, 3 * BLOCK];
    let index = usize::try_from(number % 7).unwrap_or(0);
    Sample::new(number, 250, LENGTHS[index])
}
