//! Messages as text: the lines of the files in `vectors/`.

use std::fmt::Write as _;

use bytes::Bytes;
use scale0_wire::{
    Announce, Bye, Cancel, DecodeError, End, Explain, Fields, Heartbeat, Hello, Kind, Message,
    Redirect, Reject, RequestHead, ResponseHead, Unsupported, Wanted, Welcome, Window,
};

use crate::malformed::encoded;

/// What the file of this message says.
pub(crate) fn described(about: &str, message: &Message) -> String {
    let mut file = format!("# {about}\n");
    let header = &message.header;
    let kind = match header.kind {
        Kind::Unknown(number) => number.to_string(),
        known => known.name().to_owned(),
    };
    let bytes = |bytes: &[u8]| {
        if bytes.iter().all(|&byte| byte == 0) {
            String::new()
        } else {
            hex(bytes)
        }
    };
    let lines = [
        ("version", header.version.to_string()),
        ("kind", kind),
        ("correlation", number(header.correlation)),
        ("epoch", number(header.epoch)),
        ("flags", number(header.flags.0)),
        ("hops", number(header.hops)),
        ("attempt", number(header.attempt)),
        ("priority", number(header.priority as u8)),
        ("scope", number(header.scope as u8)),
        ("spill", number(header.spill as u8)),
        ("trace_flags", number(header.trace.flags)),
        ("deadline_ms", number(header.deadline_ms)),
        ("hold_ms", number(header.hold_ms)),
        ("max_round_trip_ms", number(header.max_round_trip_ms)),
        ("waiters", number(header.waiters)),
        ("origin_site", number(header.origin_site)),
        ("window", number(header.window)),
        ("flight", number(header.flight.0)),
        ("affinity", number(header.affinity)),
        ("service", bytes(&header.service.0)),
        ("trace", bytes(&header.trace.trace)),
        ("parent", bytes(&header.trace.parent)),
        ("credit", number(header.credit)),
        ("extension", hex(&message.extension)),
    ];
    for (key, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(file, "{key} = {value}").unwrap();
    }
    for (key, value) in metadata_lines(message).unwrap() {
        writeln!(file, "metadata.{key} = {value}").unwrap();
    }
    if !message.content.is_empty() {
        writeln!(file, "content = {}", quoted(&message.content)).unwrap();
    }
    write_frames(&mut file, &encoded(message));
    file
}

/// The parts of a message's metadata, as far as this version knows its kind.
pub(crate) fn metadata_lines(
    message: &Message,
) -> Result<Vec<(&'static str, String)>, DecodeError> {
    let metadata = &message.metadata;
    Ok(match message.header.kind {
        Kind::Hello => {
            let hello = Hello::decode(metadata)?;
            let mut lines = vec![
                ("oldest", hello.oldest.to_string()),
                ("newest", hello.newest.to_string()),
                ("node", quoted(hello.node.as_bytes())),
                ("instance", hello.instance.to_string()),
                ("lane", hello.lane.to_string()),
                ("heartbeat_ms", hello.heartbeat.as_millis().to_string()),
                ("window", hello.window.to_string()),
                ("capacity", hello.capacity.to_string()),
            ];
            lines.extend(
                hello
                    .services
                    .iter()
                    .map(|service| ("service", quoted(service.as_bytes()))),
            );
            lines
        }
        Kind::Welcome => {
            let welcome = Welcome::decode(metadata)?;
            vec![
                ("version", welcome.version.to_string()),
                ("node", quoted(welcome.node.as_bytes())),
                ("instance", welcome.instance.to_string()),
                ("site", quoted(welcome.site.as_bytes())),
                ("heartbeat_ms", welcome.heartbeat.as_millis().to_string()),
                ("window", welcome.window.to_string()),
            ]
        }
        Kind::Heartbeat => {
            let heartbeat = Heartbeat::decode(metadata)?;
            vec![
                ("sequence", heartbeat.sequence.to_string()),
                ("echo", heartbeat.echo.to_string()),
                ("echo_delay_us", heartbeat.echo_delay_us.to_string()),
                ("outstanding", heartbeat.outstanding.to_string()),
                ("capacity", heartbeat.capacity.to_string()),
                ("service_time_us", heartbeat.service_time_us.to_string()),
                ("queue_time_us", heartbeat.queue_time_us.to_string()),
                ("cpu_permille", heartbeat.cpu_permille.to_string()),
            ]
        }
        Kind::Demand | Kind::Reclaim => vec![("wanted", Wanted::decode(metadata)?.0.to_string())],
        Kind::Announce => {
            let Announce { added, withdrawn } = Announce::decode(metadata)?;
            let named = |key, names: &[String]| -> Vec<_> {
                let lines = names.iter().map(|name| (key, quoted(name.as_bytes())));
                lines.collect()
            };
            let mut lines = named("service", &added);
            lines.extend(named("withdrawn", &withdrawn));
            lines
        }
        Kind::Redirect => {
            let brokers = Redirect::decode(metadata)?.brokers;
            let lines = brokers.iter().map(|broker| {
                let key = broker.key.as_ref().map_or(&[][..], |key| key);
                let parts = [broker.endpoint.as_bytes(), key, broker.node.as_bytes()];
                ("broker", parts.map(quoted).join(" "))
            });
            lines.collect()
        }
        Kind::Explain => {
            let hops = Explain::decode(metadata)?.hops;
            let lines = hops.iter().map(|hop| {
                let numbers = [hop.what.0.into(), hop.at_us, hop.a, hop.b].map(|it| it.to_string());
                let node = quoted(hop.node.as_bytes());
                ("hop", format!("{} {node}", numbers.join(" ")))
            });
            lines.collect()
        }
        Kind::Bye => {
            let bye = Bye::decode(metadata)?;
            let mut lines = vec![("reason", bye.number().to_string())];
            if let Bye::Quarantined(milliseconds) = bye {
                lines.push(("milliseconds", milliseconds.to_string()));
            }
            lines
        }
        Kind::Unsupported => vec![(
            "kind",
            Unsupported::decode(metadata)?.0.number().to_string(),
        )],
        Kind::Window => vec![("limit", Window::decode(metadata)?.0.to_string())],
        Kind::Cancel => vec![("reason", (Cancel::decode(metadata)?.0 as u8).to_string())],
        Kind::Reject => {
            let reject = Reject::decode(metadata)?;
            vec![
                ("reason", (reject.reason as u8).to_string()),
                ("retry_after_ms", reject.retry_after_ms.to_string()),
                ("detail", quoted(reject.detail.as_bytes())),
            ]
        }
        Kind::End => match End::decode(metadata)? {
            End::Complete(trailers) => with_fields(vec![("outcome", "0".into())], &trailers),
            End::Failed { reason, detail } => vec![
                ("outcome", (reason as u8).to_string()),
                ("detail", quoted(detail.as_bytes())),
            ],
        },
        Kind::Request => {
            let head = RequestHead::decode(metadata)?;
            let lines = vec![
                ("method", quoted(&head.method)),
                ("secure", u8::from(head.secure).to_string()),
                ("authority", quoted(&head.authority)),
                ("target", quoted(&head.target)),
            ];
            with_fields(lines, &head.fields)
        }
        Kind::Interim | Kind::Response | Kind::Upgrade => {
            let head = ResponseHead::decode(metadata)?;
            with_fields(vec![("status", head.status.to_string())], &head.fields)
        }
        _ if metadata.is_empty() => Vec::new(),
        _ => vec![("bytes", hex(metadata))],
    })
}

fn with_fields(
    mut lines: Vec<(&'static str, String)>,
    fields: &Fields,
) -> Vec<(&'static str, String)> {
    lines.extend(
        fields
            .iter()
            .map(|(name, value)| ("field", format!("{} {}", quoted(&name), quoted(&value)))),
    );
    lines
}

/// A number of the header; zero is not worth a line.
fn number<N: Copy + ToString + Default + PartialEq>(number: N) -> String {
    if number == N::default() {
        String::new()
    } else {
        number.to_string()
    }
}

/// Bytes between quotes, as Python and Rust write them; many equal ones as a product.
fn quoted(bytes: &[u8]) -> String {
    match bytes {
        [first, rest @ ..] if 32 < bytes.len() && rest.iter().all(|byte| byte == first) => {
            format!("\"{}\" * {}", first.escape_ascii(), bytes.len())
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

pub(crate) fn write_frames(file: &mut String, frames: &[Bytes]) {
    for (frame, at) in frames.iter().zip(1..) {
        if frame.is_empty() {
            writeln!(file, "frame.{at} =").unwrap();
        }
        for line in frame.chunks(64) {
            writeln!(file, "frame.{at} = {}", hex(line)).unwrap();
        }
    }
}

/// The frames that a file gives in hex.
pub(crate) fn frames(file: &str) -> Vec<Bytes> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for line in file.lines() {
        let Some((key, value)) = line.split_once(" =") else {
            continue;
        };
        let Some(at) = key.strip_prefix("frame.") else {
            continue;
        };
        let at: usize = at.parse().unwrap();
        frames.resize(at, Vec::new());
        let digits = value.trim().as_bytes().chunks(2);
        frames[at - 1].extend(
            digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()),
        );
    }
    frames.into_iter().map(Bytes::from).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
