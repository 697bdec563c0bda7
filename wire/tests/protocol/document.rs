//! The tables of `PROTOCOL.md`, held against the code.

use std::collections::BTreeSet;

use bytes::Bytes;
use scale0_wire::{
    Bye, DecodeError, Flags, Kind, Message, OLDEST_VERSION, Reason, Role, RoutingHeader, Stranger,
    What, Why, limits,
};

use crate::golden::full_header;
use crate::malformed::encoded;

const DOCUMENT: &str = include_str!("../../PROTOCOL.md");

#[test]
fn the_table_of_kinds_is_the_documents() {
    let rows = table("## Kinds");
    assert_eq!(rows.len(), Kind::TABLE.len());
    for (row, kind) in rows.iter().zip(Kind::TABLE) {
        let stranger = match kind.kind.stranger() {
            Stranger::Ignores => "ignores",
            Stranger::AnswersUnsupported => "answers UNSUPPORTED",
        };
        let expected = [
            &kind.kind.number().to_string()[..],
            kind.name,
            &roles(kind.from),
            &roles(kind.to),
            stranger,
            &since(kind.since),
        ];
        assert_eq!(row[..], expected);
    }
}

#[test]
fn every_field_of_the_header_is_written_where_the_document_says() {
    let message = Message {
        extension: Bytes::from_static(&[1]),
        metadata: vec![0; 0x0102].into(),
        content: vec![0; 0x0103].into(),
        header: full_header(),
    };
    let frame = &encoded(&message)[0];
    let mut next = 0;
    for row in table("## Routing header") {
        let [offset, length]: [usize; 2] = [row[0].parse().unwrap(), row[1].parse().unwrap()];
        assert_eq!(offset, next, "{row:?}: no gap, no overlap");
        next = offset + length;
        let written = &frame[offset..next];
        assert_eq!(written, value(&row[2], &message), "{row:?}");
        assert!(
            row[2] == "reserved" || written.iter().any(|&byte| byte != 0),
            "{row:?}"
        );
    }
    assert_eq!(next, RoutingHeader::LENGTH);
}

#[test]
fn flags_have_the_bits_that_the_document_gives_them() {
    let flags = [
        ("FINAL", Flags::FINAL),
        ("IDEMPOTENT", Flags::IDEMPOTENT),
        ("UPGRADE", Flags::UPGRADE),
        ("EVENT_STREAM", Flags::EVENT_STREAM),
        ("JOINED", Flags::JOINED),
        ("DRAINING", Flags::DRAINING),
        ("HEDGE", Flags::HEDGE),
        ("EXPLAIN", Flags::EXPLAIN),
        ("APP_ERROR", Flags::APP_ERROR),
    ];
    let expected = flags.map(|(name, flag)| (flag.0.trailing_zeros().to_string(), name.to_owned()));
    let rows = table("### Flags").into_iter();
    assert_eq!(
        rows.map(|row| (row[0].clone(), row[1].clone()))
            .collect::<Vec<_>>(),
        expected
    );
    assert!(flags.iter().all(|(_, flag)| flag.0.is_power_of_two()));
}

#[test]
fn reasons_have_the_numbers_and_names_that_the_document_gives_them() {
    let rows = table("### Reasons");
    assert_eq!(rows.len(), Reason::ALL.len());
    for (row, &reason) in rows.iter().zip(Reason::ALL) {
        let older = reason.for_version(OLDEST_VERSION);
        let in_version_1 = if older == reason {
            String::new()
        } else {
            (older as u8).to_string()
        };
        assert_eq!(
            row[..3],
            [
                (reason as u8).to_string(),
                reason.name().to_owned(),
                in_version_1
            ]
        );
    }
}

#[test]
fn bye_has_the_reasons_that_the_document_gives_it() {
    // Quarantined has a number behind its own.
    let decoded = |number| {
        let metadata = [number, 1, 0, 0, 0];
        let short = Bye::decode(&Bytes::copy_from_slice(&metadata[..1]));
        short.or_else(|_| Bye::decode(&Bytes::copy_from_slice(&metadata)))
    };
    let known = (0..=u8::MAX).filter_map(|number| Some((number, decoded(number).ok()?)));
    let expected: Vec<_> = known
        .map(|(number, bye)| {
            assert_eq!(bye.number(), number);
            let older = bye.for_version(OLDEST_VERSION);
            let in_version_1 = (older != bye).then(|| older.number().to_string());
            let name = format!("{bye:?}").replace("(1)", "");
            [number.to_string(), name, in_version_1.unwrap_or_default()]
        })
        .collect();
    let rows: Vec<_> = table("**BYE**")
        .into_iter()
        .map(|row| [row[0].clone(), row[1].clone(), row[2].clone()])
        .collect();
    assert_eq!(rows, expected);
    assert_eq!(
        decoded(9),
        Err(DecodeError::Value {
            what: "reason of BYE",
            value: 9
        })
    );
}

#[test]
fn hops_have_the_numbers_and_names_that_the_document_gives_them() {
    let rows = table("### Hops").into_iter();
    let expected = What::ALL
        .iter()
        .map(|what| (what.0.to_string(), what.name().unwrap().to_owned()));
    assert_eq!(
        rows.map(|row| (row[0].clone(), row[1].clone()))
            .collect::<Vec<_>>(),
        expected.collect::<Vec<_>>()
    );
}

#[test]
fn choices_have_the_numbers_and_names_that_the_document_gives_them() {
    let rows = table("### Choices").into_iter();
    let expected = Why::ALL
        .iter()
        .map(|why| (why.0.to_string(), why.name().unwrap().to_owned()));
    assert_eq!(
        rows.map(|row| (row[0].clone(), row[1].clone()))
            .collect::<Vec<_>>(),
        expected.collect::<Vec<_>>()
    );
}

#[test]
fn limits_are_the_documents() {
    let expected = [
        ("ONE_FRAME", limits::ONE_FRAME.to_string()),
        ("CONTENT", limits::CONTENT.to_string()),
        ("METADATA", limits::METADATA.to_string()),
        ("FIELD_BYTES", limits::FIELD_BYTES.to_string()),
        ("FIELDS", limits::FIELDS.to_string()),
        ("NAME", limits::NAME.to_string()),
        ("SERVICES", limits::SERVICES.to_string()),
        ("REDIRECTS", limits::REDIRECTS.to_string()),
        ("HOPS", limits::HOPS.to_string()),
        ("TEXT", limits::TEXT.to_string()),
        ("HEADER", limits::HEADER.to_string()),
        ("FRAME", limits::FRAME.to_string()),
        ("STREAM_WINDOW", limits::STREAM_WINDOW.to_string()),
        ("CONNECTION_WINDOW", limits::CONNECTION_WINDOW.to_string()),
        (
            "CONNECTION_WINDOW_MAX",
            limits::CONNECTION_WINDOW_MAX.to_string(),
        ),
        ("REPEATABLE_CONTENT", limits::REPEATABLE_CONTENT.to_string()),
        (
            "HEARTBEAT",
            format!("{} s", limits::HEARTBEAT.as_secs_f64()),
        ),
        (
            "HEARTBEAT_MAX",
            format!("{} s", limits::HEARTBEAT_MAX.as_secs_f64()),
        ),
        ("HEARTBEAT_MISSES", limits::HEARTBEAT_MISSES.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let rows = table("## Limits").into_iter();
    assert_eq!(
        rows.map(|row| (row[0].clone(), row[1].clone()))
            .collect::<Vec<_>>(),
        expected
    );

    let source = include_str!("../../src/limits.rs").lines();
    let named = source.filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    assert_eq!(
        named.collect::<BTreeSet<_>>(),
        expected.iter().map(|(name, _)| &name[..]).collect()
    );
}

/// What a field of this name looks like in `message`.
fn value(name: &str, message: &Message) -> Vec<u8> {
    let header = &message.header;
    let length = |length: usize| u32::try_from(length).unwrap().to_le_bytes().to_vec();
    match name {
        "version" => vec![header.version],
        "kind" => vec![header.kind.number()],
        "header_length" => length(RoutingHeader::LENGTH + message.extension.len())[..2].to_vec(),
        "metadata_length" => length(message.metadata.len()),
        "content_length" => length(message.content.len()),
        "correlation" => header.correlation.to_le_bytes().to_vec(),
        "epoch" => header.epoch.to_le_bytes().to_vec(),
        "flags" => header.flags.0.to_le_bytes().to_vec(),
        "hops" => vec![header.hops],
        "attempt" => vec![header.attempt],
        "priority" => vec![header.priority as u8],
        "scope" => vec![header.scope as u8],
        "spill" => vec![header.spill as u8],
        "trace_flags" => vec![header.trace.flags],
        "deadline_ms" => header.deadline_ms.to_le_bytes().to_vec(),
        "hold_ms" => header.hold_ms.to_le_bytes().to_vec(),
        "max_round_trip_ms" => header.max_round_trip_ms.to_le_bytes().to_vec(),
        "waiters" => header.waiters.to_le_bytes().to_vec(),
        "origin_site" => header.origin_site.to_le_bytes().to_vec(),
        "window" => header.window.to_le_bytes().to_vec(),
        "reserved" => vec![0; 4],
        "flight" => header.flight.0.to_le_bytes().to_vec(),
        "affinity" => header.affinity.to_le_bytes().to_vec(),
        "service" => header.service.0.to_vec(),
        "trace" => header.trace.trace.to_vec(),
        "parent" => header.trace.parent.to_vec(),
        "credit" => header.credit.to_le_bytes().to_vec(),
        unknown => panic!("the header has no {unknown}"),
    }
}

fn since(version: Option<u8>) -> String {
    version.map_or_else(|| "reserved".to_owned(), |version| version.to_string())
}

fn roles(roles: &[Role]) -> String {
    let name = |role: &Role| format!("{role:?}").to_lowercase();
    roles.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// The cells of the first table after the line that begins like this, without its head and without back-quotes.
fn table(after: &str) -> Vec<Vec<String>> {
    let lines = DOCUMENT.lines().skip_while(|line| !line.starts_with(after));
    let rows = lines.skip_while(|line| !line.starts_with('|')).skip(2);
    rows.map_while(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|line| {
            line.split('|')
                .map(|cell| cell.trim().replace('`', ""))
                .collect()
        })
        .collect()
}
