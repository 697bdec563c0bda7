//! Stories about whole configurations.

mod properties;
mod refused;

use std::path::Path;
use std::time::Duration;

use super::address::{Endpoint, Upstream};
use super::choices::{AccessLog, Affinity, Coalesce, Priority};
use super::units::Percent;
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
priority = "background"
affinity = "header:X-User"
hedge = "on"
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
queued_bytes = "32MiB"

[broker]
frontends = "tcp://127.0.0.1:5701"
others = [
    { node = "fra-2", frontends = "tcp://10.0.0.6:5701", backends = "tcp://10.0.0.6:5702", public_key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7" },
    { node = "fra-3", backends = "ipc:///run/fra-3" },
]
heartbeat = "5s"
[[service]]
name = "API"
queue = 10
queue_bytes = "1MiB"
min_backends = 3
outstanding = 40
share = "50%"
[[service]]
name = "blog"

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
secret_key_file = "./node.key"
allow = [
    { name = "shop-1", public_key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", may = "backend", services = ["shop", "*"] },
    { name = "page-1", public_key = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6", may = ["frontend"] },
]
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
    Config::parse("scale0.toml", text, Vec::new(), &sources()).map(|(config, _)| config)
}

/// The configuration with these variables and `--set`s.
fn load_with(text: &str, variables: &[(&str, &str)], sets: &[&str]) -> Result<Config, ConfigError> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let sources = Sources {
        variables: variables.iter().map(own).collect(),
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
        ..sources()
    };
    Config::parse("scale0.toml", text, Vec::new(), &sources).map(|(config, _)| config)
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
        remote[0]
            .public_key
            .as_ref()
            .map(|key| key.to_string().len()),
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
    let by_user = Affinity("header:x-user".parse().unwrap());
    assert_eq!(
        (api.priority, &api.affinity, api.hedge),
        (Priority::Background, &by_user, true)
    );
    let nobody = Affinity(scale0_frontend::Affinity::Off);
    assert_eq!(
        (rest.priority, &rest.affinity, rest.hedge),
        (Priority::Interactive, &nobody, false)
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
    let [api, blog] = &broker.services[..] else {
        panic!("two services")
    };
    assert_eq!((&*api.name, api.queue), ("api", 10));
    assert_eq!(
        (api.min_backends, api.outstanding, api.share),
        (3, Some(40), Percent(50))
    );
    assert_eq!(
        (blog.min_backends, blog.outstanding, blog.share),
        (1, None, Percent(75))
    );
    assert_eq!(broker.heartbeat, Duration::from_secs(5));
    let [two, three] = &broker.others[..] else {
        panic!("two others")
    };
    assert_eq!((&*two.node, &*three.node), ("fra-2", "fra-3"));
    assert!(two.public_key.is_some() && two.frontends.is_some());
    assert_eq!(three.backends, Some(Endpoint::Ipc("/run/fra-3".into())));
    assert_eq!(config.limits.queued_bytes, ByteCount::mib(32));
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
    assert_eq!(
        frontend.cache.path,
        Path::new("scale0-demo"),
        "not where one's own site stores"
    );
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
    let flags = BridgeArguments {
        services: vec!["a".into(), "b".into()],
        upstreams: vec!["http://127.0.0.1:3000".into()],
        brokers: vec!["tcp://127.0.0.1:1".into(), "tcp://127.0.0.1:2".into()],
        broker_keys: Vec::new(),
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
    assert_eq!(bridge.brokers.addresses().len(), 2);
    assert!(config.frontend.is_none() && config.broker.is_none() && config.admin.is_none());

    let far = BridgeArguments {
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
    let key = "1".repeat(40);
    let proved = |brokers: usize, keys: usize| BridgeArguments {
        brokers: vec!["tcp://10.0.0.1:1".into(), "tcp://10.0.0.2:1".into()][..brokers].to_vec(),
        broker_keys: vec![key.clone(); keys],
        ..flags.clone()
    };
    for (brokers, keys) in [(1, 1), (2, 1), (2, 2)] {
        let config = Config::of_bridge(&proved(brokers, keys), &sources()).unwrap();
        let addresses = config.bridges[0].brokers.addresses();
        let known = addresses.iter().filter(|it| it.public_key.is_some());
        assert_eq!(known.count(), brokers);
    }
    assert_eq!(
        problems(Config::of_bridge(&proved(1, 2), &sources())),
        [
            "command line, --broker-key: expected one --broker-key for all brokers, or one for each of the 1, found 2"
        ]
    );
    let insecure = Sources {
        variables: vec![("SCALE0__SECURITY__INSECURE".into(), "true".into())],
        ..sources()
    };
    assert!(Config::of_bridge(&far, &insecure).is_ok());

    let wrong = BridgeArguments {
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
