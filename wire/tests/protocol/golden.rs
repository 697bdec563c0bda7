//! The golden messages: at least one of each kind of this version, and the edges.

use std::time::Duration;

use bytes::Bytes;
use scale0_wire::{
    Announce, Bye, Cancel, End, Explain, Fields, Flags, FlightKey, Heartbeat, Hello, Hop, Kind,
    Message, OLDEST_VERSION, OtherBroker, Priority, Reason, Redirect, Reject, RequestHead,
    ResponseHead, RoutingHeader, Scope, ServiceId, SpillMode, TraceContext, Unsupported, VERSION,
    Wanted, Welcome, What, Window, limits,
};

const EPOCH: u64 = 0x1122_3344_5566_7788;

/// A public key of 32 bytes.
const KEY: &[u8; 32] = b"\x00\x01\xfe\xff\"\\ 26 bytes more, of a key.\n";

/// A message with the name of its file and what it shows.
pub(crate) struct Golden {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) message: Message,
}

/// All of them, sorted as a reader may best take them in.
pub(crate) fn golden() -> Vec<Golden> {
    let mut all = sessions();
    all.extend(requests());
    all.extend(responses());
    all.extend(edges());
    all
}

fn sessions() -> Vec<Golden> {
    let of = |kind| Message::new(session(kind));
    vec![
        one(
            "hello-frontend",
            "A frontend's second lane opens a session: no services, no capacity.",
            of(Kind::Hello).with_metadata(hello(&[], 0).encode()),
        ),
        one(
            "hello-backend",
            "A backend offers two services.",
            of(Kind::Hello).with_metadata(hello(&["shop.example", "*"], 64).encode()),
        ),
        one(
            "hello-older",
            "A frontend that speaks version 1 alone.",
            of(Kind::Hello).with_metadata(
                Hello {
                    newest: OLDEST_VERSION,
                    ..hello(&[], 0)
                }
                .encode(),
            ),
        ),
        one(
            "hello-draining",
            "A backend that drains already: the broker knows it, and sends it nothing.",
            Message::new(RoutingHeader {
                flags: Flags::DRAINING,
                ..session(Kind::Hello)
            })
            .with_metadata(hello(&["shop.example"], 1).encode()),
        ),
        one(
            "welcome",
            "The broker accepts.",
            of(Kind::Welcome).with_metadata(welcome(VERSION).encode()),
        ),
        one(
            "welcome-older",
            "The broker accepts one who speaks version 1 alone.",
            of(Kind::Welcome).with_metadata(welcome(OLDEST_VERSION).encode()),
        ),
        one(
            "announce",
            "A backend offers two services more, and one not any more.",
            Message::new(RoutingHeader {
                credit: 4096,
                ..session(Kind::Announce)
            })
            .with_metadata(
                Announce {
                    added: vec!["img.example".into(), "api.example".into()],
                    withdrawn: vec!["shop.example".into()],
                }
                .encode(),
            ),
        ),
        one(
            "redirect",
            "Two other brokers: one whose key is known, and one on this machine.",
            of(Kind::Redirect).with_metadata(
                Redirect {
                    brokers: vec![
                        other("tcp://192.0.2.7:5701", Some(*KEY), "broker-2"),
                        other("ipc:///run/scale0/frontends", None, "broker-3"),
                    ],
                }
                .encode(),
            ),
        ),
        one(
            "heartbeat",
            "A backend lives, and says how loaded it is and what it has granted.",
            Message::new(RoutingHeader {
                credit: 4096,
                ..session(Kind::Heartbeat)
            })
            .with_metadata(
                Heartbeat {
                    sequence: 3,
                    echo: 2,
                    echo_delay_us: 250_000,
                    outstanding: 17,
                    capacity: 64,
                    service_time_us: 1_500,
                    queue_time_us: 20,
                    cpu_permille: 1_250,
                }
                .encode(),
            ),
        ),
        one(
            "credit",
            "A backend has granted 4160 requests since the session began.",
            Message::new(RoutingHeader {
                credit: 4160,
                ..session(Kind::Credit)
            }),
        ),
        one(
            "demand",
            "12 requests wait at the broker for this backend's credit.",
            of(Kind::Demand).with_metadata(Wanted(12).encode()),
        ),
        one(
            "reclaim",
            "A backend wants 5 back for another broker.",
            of(Kind::Reclaim).with_metadata(Wanted(5).encode()),
        ),
        one(
            "return",
            "A broker has given 9 back since the session began.",
            Message::new(RoutingHeader {
                credit: 9,
                ..session(Kind::Return)
            }),
        ),
        one(
            "drain",
            "Its sender takes no new work: a header alone.",
            of(Kind::Drain),
        ),
        one(
            "bye",
            "The session is not known: say HELLO again.",
            of(Kind::Bye).with_metadata(Bye::UnknownSession.encode()),
        ),
        one(
            "bye-lost",
            "What a transport puts in the place of a peer that is gone: without an epoch.",
            Message::new(RoutingHeader::new(Kind::Bye)).with_metadata(Bye::Lost.encode()),
        ),
        one(
            "bye-not-allowed",
            "The key of a backend gives no right to a service of its HELLO.",
            of(Kind::Bye).with_metadata(Bye::NotAllowed.encode()),
        ),
        one(
            "bye-quarantined",
            "A peer that broke the protocol too often is not heard for 8 s.",
            of(Kind::Bye).with_metadata(Bye::Quarantined(8_000).encode()),
        ),
        one(
            "unsupported",
            "Kind 200 on stream 7 is not spoken here.",
            Message::new(stream(Kind::Unsupported))
                .with_metadata(Unsupported(Kind::Unknown(200)).encode()),
        ),
    ]
}

fn requests() -> Vec<Golden> {
    let get = RequestHead {
        method: "GET".into(),
        secure: true,
        authority: "shop.example".into(),
        target: "/cart?item=1".into(),
        fields: fields(&[
            (b"accept", b"text/html"),
            (b"x-empty", b""),
            (b"x-latin-1", b"caf\xe9 \"quoted\" \\"),
        ]),
    };
    let post = RequestHead {
        method: "POST".into(),
        secure: false,
        authority: "shop.example".into(),
        target: "/orders".into(),
        fields: fields(&[(b"content-type", b"application/json")]),
    };
    let final_ = Flags::FINAL.with(Flags::IDEMPOTENT, true);
    vec![
        one(
            "request-get",
            "A GET, whole and repeatable, as a frontend sends it.",
            Message::new(RoutingHeader {
                flags: final_,
                ..request()
            })
            .with_metadata(get.encode()),
        ),
        one(
            "request-post",
            "A POST, whole in its message, second attempt, from a broker to a backend.",
            Message::new(RoutingHeader {
                flags: Flags::FINAL,
                attempt: 1,
                ..request()
            })
            .with_metadata(post.encode())
            .with_content(Bytes::from_static(br#"{"item":1}"#)),
        ),
        one(
            "request-upload",
            "A POST whose content follows in CHUNKs, with its first 5000 bytes in a frame of their own.",
            Message::new(request())
                .with_metadata(post.encode())
                .with_content(vec![b'u'; 5000].into()),
        ),
        one(
            "request-options",
            "The shortest head: no fields, no authority, the server itself as target.",
            Message::new(RoutingHeader {
                flags: final_,
                ..request()
            })
            .with_metadata(
                RequestHead {
                    method: "OPTIONS".into(),
                    secure: false,
                    authority: Bytes::new(),
                    target: "*".into(),
                    fields: Fields::default(),
                }
                .encode(),
            ),
        ),
        one(
            "request-explained",
            "A GET that may be hedged, prefers a backend, and whose account is wanted.",
            Message::new(RoutingHeader {
                flags: final_.with(Flags::HEDGE, true).with(Flags::EXPLAIN, true),
                affinity: 0x5ca1_e000_5ca1_e000,
                ..request()
            })
            .with_metadata(get.encode()),
        ),
        one(
            "cancel",
            "Nobody wants the answer any more.",
            Message::new(stream(Kind::Cancel)).with_metadata(Cancel(Reason::Cancelled).encode()),
        ),
        one(
            "update",
            "Three requests wait now, and the longest can wait 12.5 s more.",
            Message::new(RoutingHeader {
                deadline_ms: 12_500,
                waiters: 3,
                ..stream(Kind::Update)
            }),
        ),
    ]
}

fn responses() -> Vec<Golden> {
    let head = |status, fields| ResponseHead { status, fields }.encode();
    let plain = || {
        fields(&[
            (b"content-type", b"text/plain"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
        ])
    };
    vec![
        one(
            "interim",
            "103 with a link.",
            Message::new(stream(Kind::Interim))
                .with_metadata(head(103, fields(&[(b"link", b"</s.css>; rel=preload")]))),
        ),
        one(
            "response",
            "A whole response, with the backend's credit riding along.",
            Message::new(RoutingHeader {
                flags: Flags::FINAL,
                credit: 4161,
                ..stream(Kind::Response)
            })
            .with_metadata(head(200, plain()))
            .with_content("hello, world\n".into()),
        ),
        one(
            "response-app-error",
            "The application failed, and says so in full.",
            Message::new(RoutingHeader {
                flags: Flags::FINAL.with(Flags::APP_ERROR, true),
                ..stream(Kind::Response)
            })
            .with_metadata(head(500, plain())),
        ),
        one(
            "response-events",
            "An event stream begins.",
            Message::new(RoutingHeader {
                flags: Flags::EVENT_STREAM,
                ..stream(Kind::Response)
            })
            .with_metadata(head(
                200,
                fields(&[(b"content-type", b"text/event-stream")]),
            )),
        ),
        one(
            "upgrade",
            "A WebSocket opens, and its first bytes came with it.",
            Message::new(stream(Kind::Upgrade))
                .with_metadata(head(101, fields(&[(b"upgrade", b"websocket")])))
                .with_content(Bytes::from_static(&[0x81, 0x02, b'h', b'i'])),
        ),
        one(
            "chunk",
            "Content of a stream: always a frame of its own, however short.",
            Message::new(stream(Kind::Chunk)).with_content("some".into()),
        ),
        one(
            "window-stream",
            "262144 bytes of content may be sent on stream 7 in all.",
            Message::new(stream(Kind::Window)).with_metadata(Window(262_144).encode()),
        ),
        one(
            "window-connection",
            "More than 32 bits of content may be sent on this connection in all.",
            Message::new(session(Kind::Window)).with_metadata(Window(1 << 40).encode()),
        ),
        one(
            "end",
            "Complete, without trailers.",
            Message::new(stream(Kind::End))
                .with_metadata(End::Complete(Fields::default()).encode()),
        ),
        one(
            "end-trailers",
            "Complete, with a trailer field.",
            Message::new(stream(Kind::End))
                .with_metadata(End::Complete(fields(&[(b"server-timing", b"db;dur=53")])).encode()),
        ),
        one(
            "end-failed",
            "What came before is not whole, in words that are not ASCII.",
            Message::new(stream(Kind::End)).with_metadata(
                End::Failed {
                    reason: Reason::AppFailed,
                    detail: "Verbindung abgerissen – 3 of 7 bytes".into(),
                }
                .encode(),
            ),
        ),
        one(
            "reject",
            "Not started; ask again in 1.5 s.",
            Message::new(stream(Kind::Reject)).with_metadata(
                Reject {
                    reason: Reason::QueueFull,
                    retry_after_ms: 1_500,
                    detail: String::new(),
                }
                .encode(),
            ),
        ),
        one(
            "reject-too-late",
            "It would wait longer than its deadline; a reason that version 1 has no number for.",
            Message::new(stream(Kind::Reject)).with_metadata(
                Reject {
                    reason: Reason::TooLate,
                    retry_after_ms: 2_000,
                    detail: "2 s behind 4000 others".into(),
                }
                .encode(),
            ),
        ),
        one(
            "explain",
            "A request came, waited in third place, was chosen for a backend, and answered; the last hop is of a later sender.",
            Message::new(stream(Kind::Explain)).with_metadata(
                Explain {
                    hops: vec![
                        hop(What::ARRIVED, 0, 0, 0, "broker-1"),
                        hop(What::QUEUED, 15, 1, 3, ""),
                        hop(What::CHOSEN, 1_250, 1, 2, "shop-1"),
                        hop(What::RESPONDED, 9_000, 0, 0, "shop-1"),
                        hop(What(200), u32::MAX, 7, 8, ""),
                    ],
                }
                .encode(),
            ),
        ),
    ]
}

fn edges() -> Vec<Golden> {
    let head = ResponseHead {
        status: 200,
        fields: fields(&[(b"x-padding", &[b'p'; 100])]),
    }
    .encode();
    let filling = limits::ONE_FRAME - RoutingHeader::LENGTH - head.len();
    let response = |content: usize| {
        Message::new(stream(Kind::Response))
            .with_metadata(head.clone())
            .with_content(vec![b'c'; content].into())
    };
    let long = ResponseHead {
        status: 200,
        fields: fields(&[(b"x-long", &[b'l'; 5000])]),
    };
    vec![
        one(
            "edge-chunk-empty",
            "A CHUNK without content is one frame: there is nothing to put into a second.",
            Message::new(stream(Kind::Chunk)),
        ),
        one(
            "edge-one-frame-largest",
            "4096 bytes in all, the most that one frame holds together with content.",
            response(filling),
        ),
        one(
            "edge-two-frames-smallest",
            "4097 bytes in all: the content has a frame of its own.",
            response(filling + 1),
        ),
        one(
            "edge-metadata-long",
            "More than 4096 bytes, but no content: one frame.",
            Message::new(stream(Kind::Response)).with_metadata(long.encode()),
        ),
        one(
            "edge-metadata-long-content-short",
            "A long head moves the shortest content into a frame of its own.",
            Message::new(stream(Kind::Response))
                .with_metadata(long.encode())
                .with_content("c".into()),
        ),
        one(
            "edge-header-all-set",
            "No field of the header is zero, no two are alike, and flags without a name are set.",
            Message::new(full_header()).with_metadata(Wanted(1).encode()),
        ),
        one(
            "edge-header-largest-numbers",
            "All bits of all numbers are set.",
            Message::new(RoutingHeader {
                correlation: u64::MAX,
                epoch: u64::MAX,
                flags: Flags(u16::MAX),
                hops: u8::MAX,
                attempt: u8::MAX,
                deadline_ms: u32::MAX,
                hold_ms: u32::MAX,
                max_round_trip_ms: u32::MAX,
                waiters: u32::MAX,
                origin_site: u32::MAX,
                window: u32::MAX,
                flight: FlightKey(u128::MAX),
                affinity: u64::MAX,
                service: ServiceId([u8::MAX; 16]),
                trace: TraceContext {
                    trace: [u8::MAX; 16],
                    parent: [u8::MAX; 8],
                    flags: u8::MAX,
                },
                credit: u64::MAX,
                ..RoutingHeader::new(Kind::Window)
            })
            .with_metadata(Window(u64::MAX).encode()),
        ),
        one(
            "edge-extension",
            "A later version's header is longer by 8 bytes, which this one passes on.",
            Message {
                extension: Bytes::from_static(&[1, 2, 3, 4, 5, 6, 7, 8]),
                ..Message::new(stream(Kind::Window)).with_metadata(Window(5).encode())
            },
        ),
        one(
            "edge-extension-longest",
            "The longest header, 512 bytes, before metadata and a second frame.",
            Message {
                extension: vec![0xee; limits::HEADER - RoutingHeader::LENGTH].into(),
                ..response(4096)
            },
        ),
        one(
            "edge-kind-unknown-ignored",
            "Kind 100 means nothing yet: below 128 it is dropped, whatever it carries.",
            Message::new(session(Kind::Unknown(100)))
                .with_metadata(Bytes::from_static(&[9, 9]))
                .with_content("content".into()),
        ),
        one(
            "edge-kind-unknown-answered",
            "Kind 200 means nothing yet: from 128 on the answer is UNSUPPORTED.",
            Message::new(stream(Kind::Unknown(200))),
        ),
        one(
            "edge-kind-zero",
            "Kind 0 is no kind: unknown like any other.",
            Message::new(RoutingHeader::new(Kind::Unknown(0))),
        ),
        one(
            "edge-version-older",
            "A message of a session of version 1.",
            Message::new(RoutingHeader {
                version: OLDEST_VERSION,
                ..stream(Kind::Window)
            })
            .with_metadata(Window(5).encode()),
        ),
        one(
            "edge-kind-reserved",
            "A kind of a later version, with metadata that only it can read.",
            Message::new(stream(Kind::Verdict)).with_metadata(Bytes::from_static(&[1, 0])),
        ),
    ]
}

/// A header in which every field differs from zero and from its neighbours.
pub(crate) fn full_header() -> RoutingHeader {
    RoutingHeader {
        version: VERSION,
        kind: Kind::Demand,
        flags: Flags(0x8421),
        correlation: 0x0807_0605_0403_0201,
        epoch: 0x1817_1615_1413_1211,
        hops: 0x21,
        attempt: 0x22,
        priority: Priority::Background,
        scope: Scope::Global,
        spill: SpillMode::Failover,
        deadline_ms: 0x3433_3231,
        hold_ms: 0x3837_3635,
        max_round_trip_ms: 0x4443_4241,
        waiters: 0x4847_4645,
        origin_site: 0x5453_5251,
        window: 0x5857_5655,
        flight: FlightKey(0x706f_6e6d_6c6b_6a69_6867_6665_6463_6261),
        affinity: 0x7877_7675_7473_7271,
        service: ServiceId(*b"0123456789abcdef"),
        trace: TraceContext {
            trace: *b"ABCDEFGHIJKLMNOP",
            parent: *b"QRSTUVWX",
            flags: 0x23,
        },
        credit: 0x9897_9695_9493_9291,
    }
}

fn one(name: &'static str, about: &'static str, message: Message) -> Golden {
    Golden {
        name,
        about,
        message,
    }
}

fn session(kind: Kind) -> RoutingHeader {
    RoutingHeader {
        epoch: EPOCH,
        ..RoutingHeader::new(kind)
    }
}

fn stream(kind: Kind) -> RoutingHeader {
    RoutingHeader {
        correlation: 7,
        ..session(kind)
    }
}

fn request() -> RoutingHeader {
    RoutingHeader {
        priority: Priority::Normal,
        scope: Scope::Frontend,
        deadline_ms: 30_000,
        hold_ms: 10_000,
        waiters: 1,
        window: limits::STREAM_WINDOW,
        flight: FlightKey(0x00ff_00ff_0102_0304_0506_0708_090a_0b0c),
        // The first 16 bytes of the blake3 hash of `shop.example`.
        service: ServiceId(0x1305_16a6_6e10_e39f_a896_c262_3bd0_cabe_u128.to_be_bytes()),
        // The example of W3C's Trace Context: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.
        trace: TraceContext {
            trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes(),
            parent: 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes(),
            flags: 1,
        },
        ..stream(Kind::Request)
    }
}

fn hello(services: &[&str], capacity: u32) -> Hello {
    Hello {
        oldest: OLDEST_VERSION,
        newest: VERSION,
        node: "node-1".into(),
        instance: 0xfedc_ba98_7654_3210,
        lane: 1,
        heartbeat: Duration::from_millis(1000),
        window: limits::CONNECTION_WINDOW,
        capacity,
        services: services.iter().map(|&service| service.into()).collect(),
    }
}

fn welcome(version: u8) -> Welcome {
    Welcome {
        version,
        node: "broker-1".into(),
        instance: 0x0102_0304_0506_0708,
        site: "fra".into(),
        heartbeat: Duration::from_secs(1),
        window: limits::CONNECTION_WINDOW,
    }
}

fn other(endpoint: &str, key: Option<[u8; 32]>, node: &str) -> OtherBroker {
    OtherBroker {
        endpoint: endpoint.into(),
        key,
        node: node.into(),
    }
}

fn hop(what: What, at_us: u32, a: u32, b: u32, node: &str) -> Hop {
    let node = node.into();
    Hop {
        what,
        at_us,
        a,
        b,
        node,
    }
}

fn fields(fields: &[(&[u8], &[u8])]) -> Fields {
    Fields::new(fields.iter().copied()).unwrap()
}
