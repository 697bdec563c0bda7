//! What every store must keep.

use scale0_cache::store::{FileStore, conformance};

use crate::world::MIB;

#[test]
fn the_file_store_keeps_the_contract_of_stores() {
    conformance::check_durable(|directory| FileStore::open(directory, 64 * MIB).unwrap());
}

#[test]
fn the_file_store_keeps_to_its_capacity_as_stores_must() {
    conformance::check_capacity(8 * MIB, |directory| {
        FileStore::open(directory, 8 * MIB).unwrap()
    });
}
