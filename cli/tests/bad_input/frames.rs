//! Bytes that are no message, and messages from those who may not send them, at each of a broker's sockets.

use std::path::Path;

use crate::raw::{in_front_of, page};
use crate::strict_origin::StrictOrigin;
use crate::support::PATIENCE;

/// The fuzzers' corpus: for each kind of message sound ones, ones at the edge, and ones with one thing wrong.
fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire/fuzz/corpus");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let corpus: Vec<_> = files.collect();
    assert!(80 <= corpus.len());
    corpus
}

/// Sends each seed over a connection of its own and over one for all, as one frame, as two, and cut in the middle.
fn send_all(endpoint: &str) -> usize {
    let context = zmq::Context::new();
    let connect = || {
        let socket = context.socket(zmq::DEALER).unwrap();
        socket
            .set_linger(i32::try_from(PATIENCE.as_millis()).unwrap())
            .unwrap();
        socket.connect(endpoint).unwrap();
        socket
    };
    let shared = connect();
    let mut sent = 0;
    for seed in corpus() {
        let half = seed.len() / 2;
        let shapes: [&[&[u8]]; 5] = [
            &[&seed],
            &[&seed, b""],
            &[&seed[..half], &seed[half..]],
            &[&seed[..half]],
            &[b"", &seed, b"x"],
        ];
        let own = connect();
        for shape in shapes {
            own.send_multipart(shape, 0).unwrap();
            shared.send_multipart(shape, 0).unwrap();
            sent += 2;
        }
    }
    sent
}

/// The reasons for which a broker drops a message.
const DROPPED: [&str; 8] = [
    "malformed",
    "metadata",
    "without_session",
    "epoch",
    "unknown_stream",
    "abandoned",
    "out_of_place",
    "unsupported",
];

#[tokio::test]
async fn the_corpus_as_frames_is_counted_and_harms_nobody() {
    let origin = StrictOrigin::start();
    let scale0 = in_front_of(origin.address, "").await;
    let counted = async || {
        let mut all = 0.0;
        for why in DROPPED {
            all += scale0
                .metrics(&format!("scale0_broker_dropped_{why}_total"))
                .await;
        }
        all + scale0.metrics("scale0_broker_foreign_total").await
    };
    for whom in ["frontends", "backends", "peers"] {
        let before = counted().await;
        let endpoint = scale0.broker(whom).to_owned();
        let sending = std::thread::spawn(move || send_all(&endpoint));
        while !sending.is_finished() {
            assert_eq!(
                page(&scale0, "/meanwhile").await.status,
                Some(200),
                "{whom}"
            );
        }
        let sent = sending.join().unwrap();
        // Every second shape is no message whatever the seed is.
        let counting = async { while counted().await - before < sent as f64 / 3.0 {} };
        tokio::time::timeout(PATIENCE, counting).await.unwrap();
        assert_eq!(
            page(&scale0, "/afterwards").await.status,
            Some(200),
            "{whom}"
        );
    }
}
