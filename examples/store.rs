//! You write a store of your own for the cache. You get the suite that every store is held to, in a line or two.
//!
//! Nothing else has to run for it: `cargo run -p scale0-examples --example store`. In your own crate those lines are
//! a test.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use scale0_cache::CacheKey;
use scale0_cache::store::{BLOCK, NewRecord, Record, Store, Usage, conformance};
use scale0_examples::say;

/// The bytes that the table keeps.
const CAPACITY: u64 = 16 << 20;

/// Records in a table.
#[derive(Debug, Clone, Default)]
struct Table(Arc<Mutex<HashMap<CacheKey, Kept>>>);

impl Store for Table {
    fn open(&self, key: &CacheKey) -> io::Result<Option<Arc<dyn Record>>> {
        let kept = self.0.lock().get(key).cloned();
        Ok(kept.map(|kept| Arc::new(kept) as Arc<dyn Record>))
    }

    fn create(&self, key: &CacheKey) -> io::Result<Box<dyn NewRecord>> {
        Ok(Box::new(Draft(self.clone(), *key, Vec::new())))
    }

    fn replace_head(&self, key: &CacheKey, head: &[u8]) -> io::Result<bool> {
        let mut table = self.0.lock();
        let kept = table.get_mut(key);
        Ok(kept
            .map(|kept| kept.head = Bytes::copy_from_slice(head))
            .is_some())
    }

    fn remove(&self, key: &CacheKey) -> io::Result<()> {
        self.0.lock().remove(key);
        Ok(())
    }

    fn usage(&self) -> Usage {
        let table = self.0.lock();
        let bytes = bytes(&table);
        Usage {
            records: table.len() as u64,
            bytes,
            memory: 0,
        }
    }
}

/// A record is never changed once it is open: clones share the body, and the head is replaced as a whole.
#[derive(Debug, Clone)]
struct Kept {
    head: Bytes,
    body: Bytes,
}

fn bytes(table: &HashMap<CacheKey, Kept>) -> u64 {
    let bytes = |kept: &Kept| (kept.head.len() + kept.body.len()) as u64;
    table.values().map(bytes).sum()
}

impl Record for Kept {
    fn head(&self) -> Bytes {
        self.head.clone()
    }

    fn length(&self) -> u64 {
        self.body.len() as u64
    }

    fn read(&self, block: u64) -> io::Result<Bytes> {
        let start = usize::try_from(block)
            .ok()
            .and_then(|block| block.checked_mul(BLOCK));
        match start.filter(|&start| start < self.body.len()) {
            Some(start) => Ok(self.body.slice(start..self.body.len().min(start + BLOCK))),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// What is written is nobody's but the writer's; dropped, it is gone.
#[derive(Debug)]
struct Draft(Table, CacheKey, Vec<u8>);

impl NewRecord for Draft {
    fn append(&mut self, block: &Bytes) -> io::Result<()> {
        self.2.extend_from_slice(block);
        Ok(())
    }

    fn commit(self: Box<Self>, head: &[u8]) -> io::Result<()> {
        let (head, body) = (Bytes::copy_from_slice(head), Bytes::from(self.2));
        let mut table = self.0.0.lock();
        // Whatever comes first makes room: a store may forget.
        while CAPACITY < bytes(&table) + (head.len() + body.len()) as u64 {
            let Some(&first) = table.keys().next() else {
                return Err(io::ErrorKind::FileTooLarge.into());
            };
            table.remove(&first);
        }
        table.insert(self.1, Kept { head, body });
        Ok(())
    }
}

fn main() {
    conformance::check(Table::default);
    conformance::check_capacity(CAPACITY, |_| Table::default());
    say("the table keeps the contract of a store");
}

// What you should see:
//
//     the table keeps the contract of a store
//
// Take the line out of `remove` that removes, and run it again: the suite says which rule is broken. A store on a disk is tested by
// `conformance::check_durable`, which also opens it again.
