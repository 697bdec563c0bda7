//! Responses too large for the memory tier.

use super::support::{Origin, Scale0};
use super::{STORES, content, is_hit, page, stored, until_written};

const LENGTH: usize = 12_000_000;

/// The memory tier and the flight's window hold next to nothing of it.
const SMALL: &str = "memory = \"1MiB\"\nmemory_max_object = \"64KiB\"\nflight_buffer = \"256KiB\"";

#[tokio::test]
async fn a_large_response_streams_to_the_disk_and_a_slow_reader_has_it_whole_from_there() {
    for store in STORES {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::start(|_| async { page("/large", LENGTH) }).await;
        let scale0 = Scale0::start(&stored(&origin, store, folder.path(), SMALL)).await;
        let expected = content("/large", LENGTH);

        let mut slow = scale0.client().await;
        slow.ask("GET", "/large", "").await;
        assert_eq!(slow.head().await.unwrap().status, 200);
        // It reads nothing until all of it has gone by.
        let fast = scale0.get("/large").await;
        assert!(fast.body == expected, "{store}");
        until_written(&scale0, 1).await;
        let mut body = Vec::new();
        while let Some(piece) = slow.some().await.unwrap() {
            body.extend_from_slice(&piece);
        }
        assert!(body == expected, "{store}");
        let from_disk = scale0.metrics("scale0_cache_read_from_store_total").await;
        assert!(0.0 < from_disk, "{store}");

        let later = scale0.get("/large").await;
        assert!(is_hit(&later) && later.body == expected, "{store}");
        assert_eq!(origin.gets("/large"), 1);
    }
}
