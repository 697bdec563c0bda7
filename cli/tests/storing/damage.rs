//! What a disk gives back that is not what was written.

use std::path::{Path, PathBuf};

use super::support::{Origin, Scale0};
use super::{STORES, content, is_hit, length_of, line, page, stop, stored};

/// Of each length a body lies elsewhere: among others, or in a file of its own.
const SMALL: &[&str] = &["/3000/a", "/100000/b"];
const LARGE: &[&str] = &["/2000000/c"];

#[tokio::test]
async fn a_flipped_byte_is_fetched_again_and_never_served() {
    // In the first block of a body, and in a later one.
    for (targets, damaged_line) in [(SMALL, 10), (LARGE, 10), (LARGE, 10_000)] {
        for store in STORES {
            let folder = tempfile::tempdir().unwrap();
            let origin = Origin::start(|request| async move {
                let target = request.uri().to_string();
                page(&target, length_of(&target))
            })
            .await;
            let config = stored(&origin, store, folder.path(), "");
            let mut scale0 = Scale0::start(&config).await;
            for target in targets {
                scale0.get(target).await;
            }
            stop(&mut scale0).await;
            for target in targets {
                assert!(flip(folder.path(), &line(target, damaged_line)));
            }

            let scale0 = Scale0::start(&config).await;
            for target in targets {
                let expected = content(target, length_of(target));
                let mut client = scale0.client().await;
                client.ask("GET", target, "").await;
                match client.try_response().await {
                    Ok(response) => assert!(response.body == expected, "{store} {target}"),
                    // It shows only when the response is half sent.
                    Err(_) => assert_eq!(damaged_line, 10_000, "{store} {target}"),
                }
                let again = scale0.get(target).await;
                assert!(again.body == expected, "{store} {target}");
                assert_eq!(origin.gets(target), 2, "{store} {target}");
                assert!(is_hit(&scale0.get(target).await));
            }
            // Where a database is damaged sled throws it away as a whole, before any record is asked for.
            if store == "file" || targets == LARGE {
                let damaged = scale0.metrics("scale0_cache_store_damaged_total").await;
                assert!(0.0 < damaged, "{store} {targets:?}");
            }
        }
    }
}

/// Flips a bit of the first place below `folder` where `text` stands. Whether there is one.
fn flip(folder: &Path, text: &[u8]) -> bool {
    for file in files_below(folder) {
        let mut bytes = std::fs::read(&file).unwrap();
        let place = bytes.windows(text.len()).position(|bytes| bytes == text);
        if let Some(place) = place {
            bytes[place + text.len() / 2] ^= 4;
            std::fs::write(&file, bytes).unwrap();
            return true;
        }
    }
    false
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}
