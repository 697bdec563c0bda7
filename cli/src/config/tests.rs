//! Stories about whole configurations: what is merged, what is refused, and in which words.

use std::time::Duration;

use proptest::prelude::*;

use super::address::{Endpoint, Upstream};
use super::choices::{AccessLog, Coalesce};
use super::*;

/// A configuration with a bit of everything.
const FULL: &str = r#"
[node]
name = "fra-1"
[site]
name = "fra"

[frontend]
http = ["127.0.0.1:8080", "0.0.0.0:80"]
https = []
brokers = [
    "tcp://127.0.0.1:5701",
    { endpoint = "tcp://10.0.0.5:5701", public_key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7" },
]
trusted_proxies = ["127.0.0.1/32", "10.0.0.7"]

[[route]]
host = "www.example.com"
path = "/api/"
service = "api"
timeout = "120s"
idle_timeout = "250ms"
coalesce = "off"
cache = "off"
hold = "0s"
[[route]]
host = "*.example.com"
service = "*"

[cache]
memory = "1GiB"
flight_buffer = "64KiB"
set_cookie = "refuse"
store = "none"
path = "scale0-cache"
capacity = "10GiB"

[limits]
max_connections = 16000
header_timeout = "5s"
min_rate = "0B"

[broker]
frontends = "tcp://127.0.0.1:5701"
[[service]]
name = "API"
queue = 10
queue_bytes = "1MiB"

[[bridge]]
services = ["www.example.com", "api"]
upstream = ["http://127.0.0.1:3000", "unix:/run/app.sock"]
concurrency = 8
health = "/healthz"
[[bridge]]
service = "*"
upstream = "http://app.internal"
brokers = "tcp://127.0.0.1:6000"

[security]
insecure = false
[admin]
listen = "127.0.0.1:9999"
token_file = "./token"
[log]
level = "info,scale0_broker=debug"
access = "./access.log"
"#;

fn sources() -> Sources {
    Sources {
        host_name: "host-1".to_owned(),
        ..Sources::default()
    }
}

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::from_text("scale0.toml", text, Vec::new(), &sources())
}

/// The configuration with these variables and `--set`s.
fn load_with(text: &str, variables: &[(&str, &str)], sets: &[&str]) -> Result<Config, ConfigError> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let sources = Sources {
        variables: variables.iter().map(own).collect(),
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
        ..sources()
    };
    Config::from_text("scale0.toml", text, Vec::new(), &sources)
}

/// `place: message` of each problem, as it is shown.
fn problems(result: Result<Config, ConfigError>) -> Vec<String> {
    let shown = result.expect_err("this configuration is wrong").to_string();
    let mut problems = Vec::new();
    let mut message = "";
    for line in shown.lines() {
        if let Some(error) = line.strip_prefix("error: ") {
            message = error;
        } else if let Some(place) = line.strip_prefix("  --> ") {
            problems.push(format!(
                "{}: {message}",
                place.trim_start_matches("scale0.toml:")
            ));
        }
    }
    problems
}

#[test]
fn everything_the_design_writes_is_understood() {
    let config = load(FULL).unwrap_or_else(|error| panic!("{error}"));
    let frontend = config.frontend.expect("a frontend");
    assert_eq!(&*config.node.name, "fra-1");
    assert_eq!(&*config.site.name, "fra");
    assert_eq!(frontend.http.len(), 2);
    assert_eq!(frontend.trusted_proxies[1].to_string(), "10.0.0.7/32");
    assert!(
        frontend.brokers.in_process(),
        "the [broker] of this process serves too"
    );
    let remote = frontend.brokers.addresses();
    assert_eq!(remote.len(), 1, "its own endpoint is not dialled");
    assert_eq!(
        remote[0].public_key.as_ref().map(|key| key.as_str().len()),
        Some(40)
    );

    let [api, rest] = &frontend.routes[..] else {
        panic!("two routes")
    };
    assert_eq!(
        (api.timeout, api.idle_timeout),
        (Duration::from_secs(120), Duration::from_millis(250))
    );
    assert_eq!(
        (api.coalesce, api.cache, api.hold),
        (Coalesce::Off, false, Duration::ZERO)
    );
    assert_eq!(
        (rest.timeout, rest.coalesce, rest.cache),
        (Duration::from_secs(30), Coalesce::Frontend, true)
    );
    assert_eq!(
        frontend.cache.memory_max_object.bytes(),
        1 << 26,
        "a sixteenth of the memory"
    );

    let broker = config.broker.expect("a broker");
    assert_eq!(broker.backends, Endpoint::loopback(5702));
    assert_eq!(
        (&*broker.services[0].name, broker.services[0].queue),
        ("api", 10)
    );
    assert_eq!(
        config.bridges[0].upstream[1],
        Upstream::Unix("/run/app.sock".into())
    );
    assert_eq!(
        config.bridges[1].upstream[0],
        Upstream::Http {
            host: "app.internal".into(),
            port: 80
        }
    );
    assert_eq!(config.bridges[1].brokers.addresses().len(), 1);
    assert_eq!(config.log.access, AccessLog::File("./access.log".into()));
}

#[test]
fn without_a_file_every_role_runs_on_loopback() {
    let config = Config::load(&sources()).unwrap();
    let frontend = config.frontend.as_ref().expect("a frontend");
    assert_eq!(frontend.http, [([127, 0, 0, 1], 8080).into()]);
    assert_eq!(
        config.admin.as_ref().map(|admin| admin.listen),
        Some(([127, 0, 0, 1], 8081).into())
    );
    assert!(frontend.brokers.in_process() && config.broker.is_some());
    assert_eq!(frontend.cache.memory.bytes(), 256 << 20);
    assert_eq!(&*config.node.name, "host-1");
}

#[test]
fn later_sources_win_over_earlier_ones() {
    let file = "[broker]\n[limits]\ntimeout = \"1s\"\nhold = \"1s\"\nidle_timeout = \"1s\"\n";
    let variables = [
        ("SCALE0__LIMITS__HOLD", "2s"),
        ("SCALE0__LIMITS__IDLE_TIMEOUT", "2s"),
    ];
    let limits = load_with(file, &variables, &["limits.idle_timeout=3s"])
        .unwrap()
        .limits;
    let seconds = [
        limits.drain_timeout,
        limits.timeout,
        limits.hold,
        limits.idle_timeout,
    ]
    .map(|time| time.as_secs());
    assert_eq!(seconds, [30, 1, 2, 3], "default, file, variable, --set");
}

#[test]
fn a_value_from_outside_needs_no_quotes_whatever_its_type() {
    let sets = [
        "node.name=123",
        "limits.max_connections=5",
        "frontend.trusted_proxies=[\"10.0.0.0/8\", \"::1\"]",
        "frontend.http=127.0.0.1:1",
        "security.insecure=true",
        "bridge.1.concurrency=9",
        "route.0.cache=on",
        "broker.backends=tcp://*:0",
        "log.level=warn,scale0=debug",
    ];
    let variables = [
        (
            "SCALE0__BRIDGE__0__UPSTREAM",
            "[\"http://a\", \"http://b\"]",
        ),
        ("OTHER", "x"),
    ];
    let config = load_with(FULL, &variables, &sets).unwrap_or_else(|error| panic!("{error}"));
    let frontend = config.frontend.expect("a frontend");
    assert_eq!(&*config.node.name, "123");
    assert_eq!(config.limits.max_connections, 5);
    assert_eq!(
        (
            frontend.trusted_proxies.len(),
            frontend.http.len(),
            frontend.routes[0].cache
        ),
        (2, 1, true)
    );
    assert_eq!(
        (
            config.bridges[0].upstream.len(),
            config.bridges[0].concurrency,
            config.bridges[1].concurrency
        ),
        (2, 8, 9)
    );
    assert_eq!(config.log.level.as_str(), "warn,scale0=debug");
}

#[test]
fn the_flags_of_a_bridge_are_a_configuration() {
    let flags = BridgeFlags {
        services: vec!["a".into(), "b".into()],
        upstreams: vec!["http://127.0.0.1:3000".into()],
        brokers: vec!["tcp://127.0.0.1:1".into(), "tcp://127.0.0.1:2".into()],
        broker_keys: vec!["rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7".into()],
        concurrency: Some(7),
        health: Some("/up".into()),
    };
    let config = Config::of_bridge(&flags, &sources()).unwrap_or_else(|error| panic!("{error}"));
    let [bridge] = &config.bridges[..] else {
        panic!("one bridge")
    };
    assert_eq!(
        (
            bridge.services.len(),
            bridge.concurrency,
            bridge.health.as_deref()
        ),
        (2, 7, Some("/up"))
    );
    assert!(
        bridge
            .brokers
            .addresses()
            .iter()
            .all(|broker| broker.public_key.is_some()),
        "one key for all"
    );
    assert!(config.frontend.is_none() && config.broker.is_none() && config.admin.is_none());

    let far = BridgeFlags {
        brokers: vec!["tcp://10.0.0.1:1".into()],
        broker_keys: Vec::new(),
        ..flags.clone()
    };
    assert_eq!(
        problems(Config::of_bridge(&far, &sources())),
        [
            "command line, --broker: \"tcp://10.0.0.1:1\" is dialled beyond this machine without encryption"
        ]
    );
    let insecure = Sources {
        variables: vec![("SCALE0__SECURITY__INSECURE".into(), "true".into())],
        ..sources()
    };
    assert!(Config::of_bridge(&far, &insecure).is_ok());

    let wrong = BridgeFlags {
        upstreams: vec!["app:80".into()],
        concurrency: Some(0),
        ..flags
    };
    assert_eq!(
        problems(Config::of_bridge(&wrong, &sources())),
        [
            "command line, --upstream: expected an upstream such as \"http://127.0.0.1:3000\" or \"unix:/run/app.sock\", \
             found \"app:80\": it starts with http:// or unix:",
            "command line, --concurrency: expected a whole number from 1 to 1000000000, without quotes, found integer `0`",
        ]
    );
}

#[test]
fn each_wrong_key_or_value_is_named_with_its_place() {
    for (text, expected) in [
        (
            "",
            "scale0.toml: no role: there is neither a [frontend] nor a [broker] nor a [[bridge]]",
        ),
        ("[broker\n", "1:8: unclosed table, expected `]`"),
        ("[broker]\n[broker]\n", "2:2: duplicate key"),
        ("[brokr]\n", "1:2: unknown section `brokr`"),
        ("hold = \"1s\"\n", "1:1: `hold` outside of its section"),
        (
            "[limits]\nheader_byte = 1\n",
            "2:1: unknown key `header_byte` in [limits]",
        ),
        (
            "[limits]\nhold = 10\n",
            "2:8: expected a time with its unit, such as \"30s\", found integer `10`",
        ),
        (
            "[limits]\nhold = \"10\"\n",
            "2:8: expected a time with its unit, such as \"30s\", found \"10\": the unit is missing",
        ),
        (
            "[limits]\nhold = 1.5\n",
            "2:8: expected a time with its unit, such as \"30s\", found floating point `1.5`",
        ),
        (
            "[cache]\nmemory = 64\n",
            "2:10: expected a size with its unit, such as \"256MiB\", found integer `64`",
        ),
        (
            "[cache]\nmemory = \"64M\"\n",
            "2:10: expected a size with its unit, such as \"256MiB\", found \"64M\": the units are B, KiB, MiB, GiB, TiB, kB, MB, GB and TB",
        ),
        (
            "[cache]\nstore = \"file\"\n",
            "2:9: expected \"none\", found \"file\": not in this version",
        ),
        (
            "[cache]\nset_cookie = true\n",
            "2:14: expected \"store\" or \"refuse\", found boolean `true`",
        ),
        (
            "[limits]\nmax_connections = 0\n",
            "2:19: expected a whole number from 1 to 1000000000, without quotes, found integer `0`",
        ),
        (
            "[[route]]\ncoalesce = \"site\"\n",
            "2:12: expected \"frontend\" or \"off\", found \"site\": not in this version",
        ),
        (
            "[[route]]\ncoalesce = \"global\"\n",
            "2:12: expected \"frontend\" or \"off\", found \"global\": not in this version",
        ),
        (
            "[[route]]\ncache = true\n",
            "2:9: expected \"on\" or \"off\", found boolean `true`",
        ),
        (
            "[site]\nlongitude = 8.7\n",
            "2:1: `longitude` in [site] is not in this version",
        ),
        (
            "[frontend]\ntls_key = \"x\"\n",
            "2:1: `tls_key` in [frontend] is not in this version",
        ),
        (
            "[frontend]\nhttps = \"0.0.0.0:443\"\n",
            "2:9: expected an empty list, found \"0.0.0.0:443\": not in this version",
        ),
        (
            "[broker]\n[[broker.peer]]\nsite = \"nyc\"\n",
            "2:10: `peer` in [broker] is not in this version",
        ),
        (
            "[security]\nsecret_key_file = \"x\"\n",
            "2:1: `secret_key_file` in [security] is not in this version",
        ),
        (
            "[security]\nallow = []\n",
            "2:1: `allow` in [security] is not in this version",
        ),
        (
            "[[service]]\nmin_backends = 2\n",
            "2:1: `min_backends` in [[service]] is not in this version",
        ),
        (
            "[route]\n",
            "1:2: expected [[route]], found a single table; each one is written in double brackets",
        ),
        (
            "[[broker]]\n",
            "1:3: expected [broker], found a list of tables; the section stands once, in single brackets",
        ),
        ("route = 1\n", "1:1: expected [[route]], found a value"),
        (
            "[frontend]\nbrokers = [\"tcp://127.0.0.1:1\",\n  \"localhost:2\"]\n",
            "3:3: expected an endpoint such as \"tcp://127.0.0.1:5701\" or \"ipc:///run/scale0.sock\", found \"localhost:2\": \
             it starts with tcp:// or ipc://",
        ),
        (
            "[frontend]\nbrokers = { endpont = \"tcp://127.0.0.1:1\" }\n",
            "2:11: expected the keys `endpoint` and `public_key`, found `endpont`; did you mean `endpoint`?",
        ),
        (
            "[[bridge]]\nupstream = \"https://app\"\n",
            "2:12: expected an upstream such as \"http://127.0.0.1:3000\" or \"unix:/run/app.sock\", found \"https://app\": \
             https is not in this version",
        ),
        (
            "[log]\nlevel = \"inof\"\n",
            "2:9: expected a level such as \"info\", or RUST_LOG's directives such as \"info,scale0_broker=debug\", found \"inof\": \
             it names none of off, error, warn, info, debug and trace",
        ),
    ] {
        assert_eq!(problems(load(text)), [expected], "{text}");
    }
}

#[test]
fn each_contradiction_is_named_with_its_place() {
    let far = "is bound beyond this machine without encryption";
    for (text, expected) in [
        ("[frontend]\n", "1:1: a [frontend] that no broker serves: neither `brokers` nor a [broker] in this process".to_owned()),
        ("[frontend]\nhttp = []\n[broker]\n", "2:8: a [frontend] that listens nowhere".to_owned()),
        (
            "[[bridge]]\nservice = \"a\"\nupstream = \"http://a\"\n",
            "1:1: a [[bridge]] that no broker serves: neither `brokers` nor a [broker] in this process".to_owned(),
        ),
        ("[broker]\n[[bridge]]\nupstream = \"http://a\"\n", "2:1: [[bridge]] without a service".to_owned()),
        ("[broker]\n[[bridge]]\nservice = \"a\"\n", "2:1: [[bridge]] without an `upstream`".to_owned()),
        (
            "[broker]\n[[bridge]]\nservice = \"a\"\nservices = [\"b\"]\nupstream = \"http://a\"\n",
            "3:11: `service` and `services` in one [[bridge]]".to_owned(),
        ),
        ("[broker]\n[[bridge]]\nservices = [\"a\", \"A\"]\nupstream = \"http://a\"\n", "3:18: \"a\" twice".to_owned()),
        ("[broker]\n[frontend]\n[[route]]\nhost = \"a\"\n", "3:1: [[route]] to nothing".to_owned()),
        (
            "[broker]\n[frontend]\n[[route]]\nhost = \"a\"\nservice = \"b\"\n[[route]]\nhost = \"A\"\nservice = \"c\"\n",
            "6:1: two routes for the same host and path".to_owned(),
        ),
        (
            "[broker]\n[frontend]\n[[route]]\nservice = \"b\"\n[[route]]\nhost = \"a\"\npath = \"/x\"\nservice = \"c\"\n",
            "5:1: this route is never reached".to_owned(),
        ),
        ("[broker]\n[[route]]\nservice = \"a\"\n", "2:1: [[route]] without a [frontend]".to_owned()),
        ("[broker]\n[cache]\n", "2:1: [cache] without a [frontend]".to_owned()),
        ("[broker]\n[[service]]\nqueue = 5\n", "2:1: [[service]] without a `name`".to_owned()),
        (
            "[broker]\n[[service]]\nname = \"a\"\n[[service]]\nname = \"A\"\n",
            "5:8: the service \"a\" is there already".to_owned(),
        ),
        ("[broker]\n[frontend]\n[admin]\nlisten = \"127.0.0.1:8080\"\n", "4:10: \"127.0.0.1:8080\" is taken already".to_owned()),
        ("[broker]\n[frontend]\nhttp = [\"0.0.0.0:80\", \"10.0.0.1:80\"]\n", "3:23: \"10.0.0.1:80\" is taken already".to_owned()),
        ("[broker]\npeers = \"tcp://127.0.0.1:5701\"\n", "2:9: \"tcp://127.0.0.1:5701\" is taken already".to_owned()),
        ("[broker]\nfrontends = \"tcp://0.0.0.0:5701\"\n", format!("2:13: \"tcp://0.0.0.0:5701\" {far}")),
        (
            "[broker]\nfrontends = \"tcp://broker.example:5701\"\n[security]\ninsecure = true\n",
            "2:13: expected an address of this machine or `*`, found the name in \"tcp://broker.example:5701\"".to_owned(),
        ),
        (
            "[frontend]\nbrokers = [\"ipc:///a\", \"tcp://10.0.0.1:1\"]\n",
            "2:24: \"tcp://10.0.0.1:1\" is dialled beyond this machine without encryption".to_owned(),
        ),
        ("[frontend]\nbrokers = \"tcp://127.0.0.1:0\"\n", "2:11: expected a host and a port to connect to, found \"tcp://127.0.0.1:0\"".to_owned()),
        (
            "[broker]\n[frontend]\nbrokers = \"tcp://127.0.0.1:5702\"\n",
            "3:11: \"tcp://127.0.0.1:5702\" is where the backends of a broker connect; expected its `frontends` endpoint".to_owned(),
        ),
        (
            "[broker]\n[admin]\nlisten = \"0.0.0.0:9000\"\n",
            "3:10: the admin interface at 0.0.0.0:9000, beyond loopback, needs a `token_file`".to_owned(),
        ),
        ("[broker]\n[limits]\ntimeout = \"0s\"\n", "3:11: expected a time that is not zero: nothing would ever be in time".to_owned()),
        ("[broker]\n[limits]\nheader_bytes = \"1KiB\"\n", "3:16: expected at least 8KiB, found 1KiB".to_owned()),
        (
            "[broker]\n[limits]\nheader_bytes = \"1MiB\"\n",
            "3:16: expected at most 128KiB, the most the protocol carries, found 1MiB".to_owned(),
        ),
        (
            "[broker]\n[frontend]\n[cache]\nmemory = \"1MiB\"\nmemory_max_object = \"2MiB\"\n",
            "5:21: expected at most 1MiB, what `memory` holds in all, found 2MiB".to_owned(),
        ),
        (
            "[broker]\n[frontend]\n[cache]\npath = \"x\"\n",
            "4:8: `path` without a store: stores on disk are not in this version".to_owned(),
        ),
    ] {
        assert_eq!(problems(load(text)), [expected], "{text}");
    }
}

#[test]
fn everything_wrong_is_told_at_once_and_in_order() {
    let text = "[limits]\nhold = 1\n[site]\nnmae = \"x\"\n[broker]\n";
    let found = load_with(
        text,
        &[
            ("SCALE0__LIMITS__HOLD", "2"),
            ("SCALE0__FRONTEND__HTTP", "x"),
        ],
        &["x", "a.b=c", "bridge.0.concurrency=1"],
    );
    assert_eq!(
        problems(found),
        [
            "2:8: expected a time with its unit, such as \"30s\", found integer `1`",
            "4:1: unknown key `nmae` in [site]",
            "--set x: expected KEY=VALUE, such as limits.timeout=30s",
            "environment variable SCALE0__FRONTEND__HTTP: [frontend] is not in the file",
            "environment variable SCALE0__LIMITS__HOLD: expected a time with its unit, such as \"30s\", found \"2\": the unit is missing",
            "--set a.b: unknown section `a`",
            "--set bridge.0.concurrency: expected bridge.POSITION.KEY with the position of a [[bridge]], from 0, of which there are 0; \
             found `bridge.0.concurrency`",
        ]
    );
}

#[test]
fn a_message_shows_the_line_the_expectation_and_the_nearest_key() {
    let text = "[broker]\n\n[limits]\nheader_timout = \"10s\" # too short\n";
    assert_eq!(
        load(text).unwrap_err().to_string(),
        "\
error: unknown key `header_timout` in [limits]
  --> scale0.toml:4:1
  |
4 | header_timout = \"10s\" # too short
  | ^^^^^^^^^^^^^ limits.header_timout
  = help: did you mean `header_timeout`? How long a client may take to send a request's head; then 408
"
    );
    let text = "[broker]\n[frontend]\n[admin]\nlisten = \"127.0.0.1:8081\"\n";
    assert_eq!(
        load_with(text, &[], &["frontend.http=[\"127.0.0.1:8081\"]"])
            .unwrap_err()
            .to_string(),
        "\
error: \"127.0.0.1:8081\" is taken already
  --> scale0.toml:4:10
  |
4 | listen = \"127.0.0.1:8081\"
  |          ^^^^^^^^^^^^^^^^ admin.listen
  = note: `frontend.http.0` is bound there: --set frontend.http
"
    );
}

#[test]
fn no_message_repeats_a_secret() {
    for text in [
        "[admin]\ntoken = \"s3cret\"\n",
        "[admin]\ntoken = s3cret\n",
        "[admin]\ntoken_file = \"s3cret\"\n",
        "[security]\nsecret_key = \"s3cret\"\n",
        "[security]\nsecret_key_file = \"s3cret\"\n",
        "[[bridge]]\nupstream = \"http://me:s3cret@app\"\n",
        "[[bridge]]\npassword = \"s3cret\"\n",
    ] {
        let shown = load(text).unwrap_err().to_string();
        assert!(!shown.contains("s3cret"), "{shown}");
    }
    let shown = load_with(
        "[broker]\n",
        &[("SCALE0__ADMIN__TOKEN", "s3cret")],
        &["admin.tokn=s3cret"],
    )
    .unwrap_err()
    .to_string();
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn the_embedded_default_and_a_full_file_come_out_as_configurations_of_the_same_meaning() {
    for text in [FULL, EMBEDDED] {
        let config = load(text).unwrap();
        let written = config.to_toml().unwrap();
        let again = load(&written).unwrap_or_else(|error| panic!("{written}\n{error}"));
        assert_eq!(again, config);
        assert_eq!(again.to_toml().unwrap(), written);
        assert_eq!(again.to_json().unwrap(), config.to_json().unwrap());
    }
}

/// Values of all kinds, for settings of all kinds.
const VALUES: &[&str] = &[
    "\"1s\"",
    "\"0s\"",
    "\"1MiB\"",
    "\"0B\"",
    "1",
    "0",
    "-1",
    "1.5",
    "true",
    "\"on\"",
    "\"off\"",
    "\"*\"",
    "\"/a\"",
    "\"a.b\"",
    "[]",
    "[\"a\"]",
    "\"tcp://127.0.0.1:9\"",
    "\"ipc:///a\"",
    "\"http://a\"",
    "\"127.0.0.1:9\"",
    "{}",
    "{ endpoint = \"tcp://127.0.0.1:9\" }",
    "\"none\"",
    "\"info\"",
    "\"store\"",
    "false",
    "[\"10.0.0.0/8\"]",
    "\"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\"",
    "\"frontend\"",
    "\"refuse\"",
    "\"./f\"",
];

/// A setting and one of the values it takes, by their positions.
fn any_line() -> impl Strategy<Value = (usize, usize, usize)> {
    (0..settings::SECTIONS.len(), any::<usize>(), any::<usize>())
}

/// A file with these settings, on top of roles that need nothing else.
fn file_of(lines: &[(usize, usize, usize)]) -> String {
    let mut text = String::new();
    for (index, section) in settings::SECTIONS.iter().enumerate() {
        text += &format!("{}\n", section.header());
        let mut written = Vec::new();
        for (_, key, value) in lines.iter().filter(|line| line.0 == index) {
            let key = &section.keys[key % section.keys.len()];
            let fits = |value: &&&str| (key.check)(&value.parse().unwrap()).is_ok();
            let values: Vec<_> = VALUES.iter().filter(fits).collect();
            if !written.contains(&key.name) {
                text += &format!("{} = {}\n", key.name, values[value % values.len()]);
                written.push(key.name);
            }
        }
        for (key, value) in [
            ("service", "\"a\""),
            ("name", "\"a\""),
            ("upstream", "\"http://a\""),
        ] {
            if section.key(key).is_some()
                && !written.contains(&key)
                && !written.contains(&"services")
            {
                text += &format!("{key} = {value}\n");
            }
        }
    }
    text
}

proptest! {
    #[test]
    fn whatever_is_accepted_is_written_as_a_configuration_of_the_same_meaning(lines in prop::collection::vec(any_line(), 0..8)) {
        let text = file_of(&lines);
        match load(&text) {
            Ok(config) => {
                let written = config.to_toml().unwrap();
                let again = load(&written).map_err(|error| TestCaseError::fail(format!("{text}\n{written}\n{error}")))?;
                prop_assert_eq!(again, config);
            }
            Err(error) => prop_assert!(error.to_string().starts_with("error: ")),
        }
    }

    #[test]
    fn a_truncated_file_never_panics(end in 0..FULL.len()) {
        let _ = load(&FULL[..end]).map_err(|error| error.to_string());
    }

    #[test]
    fn a_damaged_file_never_panics(at in 0..FULL.len(), length in 0..8_usize, with in "\\PC{0,6}|[\\[\\]{}\"'=.,#\\n0-9]{0,6}") {
        let mut text = FULL.to_owned();
        text.replace_range(at..(at + length).min(FULL.len()), &with);
        let _ = load(&text).map_err(|error| error.to_string());
    }

    #[test]
    fn no_variable_and_no_set_makes_it_panic(key in "[a-z_.0-9]{0,20}|bridge\\.[0-9]{1,30}\\.upstream", value in "\\PC{0,20}") {
        let _ = load_with(FULL, &[(&format!("SCALE0__{key}"), &value)], &[&format!("{key}={value}")]).map_err(|error| error.to_string());
    }
}

#[test]
fn a_file_that_is_none_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Sources {
        file: Some(folder.path().join("none.toml")),
        ..sources()
    };
    let shown = Config::load(&missing).unwrap_err().to_string();
    assert!(
        shown.starts_with("error: cannot open the file: ") && shown.contains("none.toml"),
        "{shown}"
    );

    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, b"[broker]\n\xff\n").unwrap();
    let shown = Config::load(&Sources {
        file: Some(binary),
        ..sources()
    })
    .unwrap_err()
    .to_string();
    assert!(
        shown.starts_with("error: the file is not UTF-8 text; the first wrong byte is in line 2"),
        "{shown}"
    );

    let endless = Sources {
        file: Some("/dev/zero".into()),
        ..sources()
    };
    assert!(
        Config::load(&endless)
            .unwrap_err()
            .to_string()
            .contains("larger than 4 MiB")
    );
}
