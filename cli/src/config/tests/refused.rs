//! What is refused, and in which words.

use super::*;

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
            "[cache]\nstore = \"files\"\n",
            "2:9: expected \"file\", \"sled\" or \"none\", found \"files\"",
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
            "[security]\nallow = { name = \"a\", site = \"nyc\" }\n",
            "2:9: `site` in `allow` is not in this version",
        ),
        (
            "[[service]]\nspill = \"on\"\n",
            "2:1: `spill` in [[service]] is not in this version",
        ),
        (
            "[[service]]\nshare = 0.5\n",
            "2:9: expected a percentage from \"1%\" to \"100%\", found floating point `0.5`",
        ),
        (
            "[[service]]\nshare = \"0%\"\n",
            "2:9: expected a percentage from \"1%\" to \"100%\", found \"0%\"",
        ),
        (
            "[[service]]\npriority = \"normal\"\n",
            "2:1: unknown key `priority` in [[service]]",
        ),
        (
            "[[route]]\npriority = \"high\"\n",
            "2:12: expected \"interactive\", \"normal\" or \"background\", found \"high\"",
        ),
        (
            "[[route]]\naffinity = \"header\"\n",
            "2:12: expected \"off\", \"path\", \"client\", \"header:NAME\" or \"cookie:NAME\", found \"header\": \
             behind a colon it says which one",
        ),
        (
            "[[route]]\naffinity = \"header:X-Real-IP\"\n",
            "2:12: expected \"off\", \"path\", \"client\", \"header:NAME\" or \"cookie:NAME\", found \"header:X-Real-IP\": \
             this field stays behind at the frontend, and is not looked at",
        ),
        (
            "[[route]]\nhedge = true\n",
            "2:9: expected \"on\" or \"off\", found boolean `true`",
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
            "[broker]\n[limits]\nqueued_bytes = \"1KiB\"\n",
            "3:16: expected at least 1MiB, found 1KiB".to_owned(),
        ),
        (
            "[broker]\nheartbeat = \"500ms\"\n",
            "2:13: expected a time from 1s to 30s, which frontends and backends agree to, found 500ms".to_owned(),
        ),
        (
            "[broker]\n[frontend]\n[cache]\ncapacity = \"1MiB\"\n",
            "4:12: expected at least 16MiB, found 1MiB".to_owned(),
        ),
        (
            "[broker]\n[frontend]\nhandover = \"next\"\n",
            "3:12: `handover` with a [broker] in the same process".to_owned(),
        ),
        (
            &format!("[frontend]\nbrokers = \"ipc:///a\"\nhandover = \"{}\"\n", "n".repeat(104)),
            "3:12: expected at most 103, the most bytes that the name of a Unix socket may have, found 104".to_owned(),
        ),
    ] {
        assert_eq!(problems(load(text)), [expected], "{text}");
    }
}

#[test]
fn an_allow_list_that_means_nothing_or_nobody_is_refused() {
    let key = |digit: char| digit.to_string().repeat(40);
    let entry = |name: &str, digit, may: &str| {
        format!(
            "{{ name = \"{name}\", public_key = \"{}\", {may} }}",
            key(digit)
        )
    };
    let page = entry("page", '1', "may = \"frontend\"");
    let with = |allow: &str| {
        format!("[broker]\n[security]\nsecret_key_file = \"./key\"\nallow = [{allow}]\n")
    };
    let full = "{ name = \"shop-1\", public_key = \"…\", may = \"backend\", services = [\"www.example.com\"] }";
    for (text, expected) in [
        (
            with(""),
            "3:19: a [broker] with a secret key and an empty `allow`: nobody could come in"
                .to_owned(),
        ),
        (
            format!("[broker]\n[security]\nallow = {page}\n"),
            "3:9: `allow` without a secret key: nobody could prove who they are".to_owned(),
        ),
        (
            format!(
                "[frontend]\nbrokers = \"ipc:///a\"\n[security]\nsecret_key_file = \"./key\"\nallow = {page}\n"
            ),
            "5:9: `allow` without a [broker]".to_owned(),
        ),
        (
            with(&format!(
                "{page}, {}",
                entry("page", '2', "may = \"frontend\"")
            )),
            "4:84: \"page\" twice".to_owned(),
        ),
        (
            with(&format!(
                "{page}, {}",
                entry("post", '1', "may = \"frontend\"")
            )),
            format!("4:84: \"{}\" twice", key('1')),
        ),
        (
            with(&entry("shop", '1', "may = \"backend\"")),
            "4:9: \"shop\" may be a backend, and no `services` say of what".to_owned(),
        ),
        (
            with(&entry(
                "page",
                '1',
                "may = \"frontend\", services = \"shop\"",
            )),
            "4:9: \"page\" has `services`, which only a backend offers, and may not be one"
                .to_owned(),
        ),
        (
            with(&entry("page", '1', "may = []")),
            format!("4:9: expected {full}, found no `may`"),
        ),
        (
            with(&entry("page", '1', "mya = 1")),
            format!("4:9: expected {full}, found the key `mya`; did you mean `may`?"),
        ),
        (
            with("{ name = \"a\", may = \"frontend\" }"),
            format!("4:9: expected {full}, found no `public_key`"),
        ),
    ] {
        let told = problems(load(&text));
        let message = |told: &str| told.split_once(": ").map(|it| it.1.to_owned());
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(message(&told[0]), message(&expected), "{told:?}\n{text}");
    }
    let bound = "[broker]\nfrontends = \"tcp://10.0.0.1:5701\"\n";
    assert!(load(&with(&page).replace("[broker]\n", bound)).is_ok());
}

#[test]
fn another_broker_that_nobody_could_dial_is_refused() {
    let full = "{ node = \"fra-2\", frontends = \"tcp://10.0.0.6:5701\", backends = \"tcp://10.0.0.6:5702\", public_key = \"…\" }";
    let local = "frontends = \"ipc:///f\"";
    for (others, expected) in [
        (
            format!("{{ {local} }}"),
            format!("expected {full}, found no `node`"),
        ),
        (
            "{ node = \"b\" }".to_owned(),
            format!("expected {full}, found neither `frontends` nor `backends`"),
        ),
        (
            "{ node = \"b\", frontend = \"ipc:///f\" }".to_owned(),
            format!("expected {full}, found the key `frontend`; did you mean `frontends`?"),
        ),
        (
            "\"ipc:///f\"".to_owned(),
            format!("expected {full}, found string \"ipc:///f\""),
        ),
        (
            "{ node = \"b\", backends = \"tcp://*:5702\" }".to_owned(),
            "expected a host and a port to connect to, found \"tcp://*:5702\"".to_owned(),
        ),
        (
            "{ node = \"b\", backends = \"tcp://10.0.0.1:5702\" }".to_owned(),
            "\"tcp://10.0.0.1:5702\" is dialled beyond this machine without encryption".to_owned(),
        ),
        (
            format!("[{{ node = \"b\", {local} }}, {{ node = \"b\", backends = \"ipc:///b\" }}]"),
            "\"b\" twice".to_owned(),
        ),
        (
            format!(
                "[{}]",
                (0..17)
                    .map(|node| format!("{{ node = \"b{node}\", {local} }}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            "expected at most 16, the most a message can name, found 17".to_owned(),
        ),
    ] {
        let told = problems(load(&format!("[broker]\nothers = {others}\n")));
        let [told] = &told[..] else {
            panic!("{told:?}")
        };
        assert!(told.starts_with("2:"), "{told}");
        assert!(told.ends_with(&format!(": {expected}")), "{told}");
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
fn a_line_with_a_secret_is_shown_without_it() {
    assert_eq!(
        load("[broker]\n[admin]\ntoken = \"s3cret\"\n").unwrap_err().to_string(),
        "\
error: unknown key `token` in [admin]
  --> scale0.toml:3:1
  |
3 | token = …
  = key: admin.token
  = help: did you mean `token_file`? The file whose content a request has to present as `Authorization: Bearer`
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
            .contains("larger than 1 MiB")
    );
}
