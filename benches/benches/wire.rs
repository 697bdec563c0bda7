//! What the protocol costs per message: once to write it, once to read it.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use scale0_benches::{
    REQUEST_FIELDS, criterion, fields, request, request_head, response, response_head,
};
use scale0_wire::{Fields, Kind, Message, RequestHead, RoutingHeader, limits};

fn main() {
    let mut criterion = criterion();
    messages(&mut criterion);
    heads(&mut criterion);
    criterion.final_summary();
}

/// Whole messages, to and from frames.
fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Elements(1));
    let kinds = [
        (
            "header_alone",
            Message::new(RoutingHeader::new(Kind::Credit)),
        ),
        ("request", request(request_head().encode())),
        ("response_1k", response(response_head().encode())),
        ("chunk_1k", chunk(1024)),
        ("chunk_64k", chunk(limits::CONTENT)),
    ];
    for (name, message) in kinds {
        let mut frame = Vec::new();
        group.bench_function(BenchmarkId::new("encode", name), |bencher| {
            bencher.iter(|| {
                frame.clear();
                black_box(&message).encode(&mut frame)
            });
        });
        frame.clear();
        let content = message.encode(&mut frame).expect("within every limit");
        let frame = Bytes::from(frame);
        group.bench_function(BenchmarkId::new("decode", name), |bencher| {
            bencher.iter(|| Message::decode(black_box(&frame), content.clone()));
        });
    }
    group.finish();
}

/// The metadata of a REQUEST, and the fields in it.
fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Elements(1));
    let head = request_head();
    let metadata = head.encode();
    group.bench_function("encode/request_head", |bencher| {
        bencher.iter(|| black_box(&head).encode());
    });
    group.bench_function("decode/request_head", |bencher| {
        bencher.iter(|| RequestHead::decode(black_box(&metadata)));
    });
    group.bench_function("encode/fields", |bencher| {
        bencher.iter(|| fields(black_box(REQUEST_FIELDS)));
    });
    group.bench_function("decode/fields", |bencher| {
        let each = |fields: &Fields| fields.iter().map(|(name, value)| name.len() + value.len());
        bencher.iter(|| each(black_box(&head.fields)).sum::<usize>());
    });
    group.finish();
}

fn chunk(length: usize) -> Message {
    let header = RoutingHeader {
        correlation: 1,
        ..RoutingHeader::new(Kind::Chunk)
    };
    Message::new(header).with_content(vec![7; length].into())
}
