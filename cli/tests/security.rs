//! Keys between nodes: who has the right one is served, and nobody else comes in; with the real binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use http::Response as Answer;
use rustix::process::Signal;
use support::{Origin, Scale0, soon, text};
use tempfile::TempDir;

const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n";

/// A folder with keys made by `scale0 keygen`.
struct Keys(TempDir);

impl Keys {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Where a node's secret key is, and its public one.
    fn of(&self, node: &str) -> (PathBuf, String) {
        let file = self.0.path().join(node);
        if !file.exists() {
            let made = scale0(&["keygen", "--out", file.to_str().unwrap()], &[]);
            assert!(made.status.success(), "{made:?}");
            std::fs::write(file.with_extension("public"), &made.stdout).unwrap();
        }
        let public = std::fs::read_to_string(file.with_extension("public")).unwrap();
        (file, public.trim().to_owned())
    }

    fn security(&self, node: &str, allow: &str) -> String {
        let (file, _) = self.of(node);
        format!("[security]\nsecret_key_file = {file:?}\n{allow}\n")
    }

    /// The entry of an allow list for this node.
    fn allow(&self, node: &str, may: &str) -> String {
        let (_, public) = self.of(node);
        format!("{{ name = \"{node}\", public_key = \"{public}\", {may} }}, ")
    }

    fn broker(&self, allow: &str) -> String {
        let mut file = "[node]\nname = \"broker\"\n[broker]\n".to_owned();
        for whom in ["frontends", "backends", "peers"] {
            writeln!(file, "{whom} = \"tcp://127.0.0.1:0\"").unwrap();
        }
        let security = self.security("broker", &format!("allow = [{allow}]"));
        file + ADMIN + &security
    }

    /// Where a broker is, with its key.
    fn address(&self, broker: &Scale0, whom: &str) -> String {
        let (_, public) = self.of("broker");
        let endpoint = broker.broker(whom);
        format!("{{ endpoint = \"{endpoint}\", public_key = \"{public}\" }}")
    }

    /// A bridge for a service, whatever it proves itself with.
    fn bridge(&self, broker: &Scale0, service: &str, origin: &Origin, security: &str) -> String {
        let (url, broker) = (origin.url(), self.address(broker, "backends"));
        format!(
            "{ADMIN}[[bridge]]\nservice = \"{service}\"\nupstream = \"{url}\"\nbrokers = {broker}\n{security}"
        )
    }

    fn frontend(&self, broker: &Scale0) -> String {
        let broker = self.address(broker, "frontends");
        let security = self.security("page", "");
        format!(
            "{ADMIN}[frontend]\nhttp = \"127.0.0.1:0\"\nbrokers = {broker}\n[limits]\nhold = \"100ms\"\n{security}\
             [[route]]\nservice = \"shop\"\ncache = \"off\"\n[cache]\nstore = \"none\"\n"
        )
    }
}

const BACKEND: &str = "may = \"backend\", services = \"shop\"";

fn scale0(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scale0"));
    command.args(arguments).envs(variables.iter().copied());
    command.output().unwrap()
}

async fn origin() -> Origin {
    Origin::start(|_| async { Answer::new(text("here")) }).await
}

async fn until_registered(broker: &Scale0, backends: f64) {
    broker
        .until_metric("scale0_broker_backends", |value| value == backends)
        .await;
}

fn refused(reason: &str) -> String {
    format!("scale0_broker_handshakes_refused_total{{reason=\"{reason}\"")
}

#[tokio::test]
async fn who_has_the_right_key_is_served_and_nobody_else_comes_in() {
    let (keys, origin) = (Keys::new(), origin().await);
    let allow = keys.allow("shop", BACKEND) + &keys.allow("page", "may = \"frontend\"");
    let broker = Scale0::start(&keys.broker(&allow)).await;

    // A strange key, a frontend's key, none at all, and no encryption either.
    let strange = keys.bridge(&broker, "shop", &origin, &keys.security("stranger", ""));
    let _strange = Scale0::launch(&strange).await;
    broker
        .until_metric(&refused("unknown-key"), |it| 0.0 < it)
        .await;
    let page = keys.bridge(&broker, "shop", &origin, &keys.security("page", ""));
    let _page = Scale0::launch(&page).await;
    broker
        .until_metric(&refused("wrong-port"), |it| 0.0 < it)
        .await;
    let none = keys.bridge(&broker, "shop", &origin, "");
    let _none = Scale0::launch(&none).await;
    let clear = none.replace("public_key", "#").replace("{ endpoint = ", "");
    let clear = clear.replace(", #", "\n#");
    let _clear = Scale0::launch(&clear).await;
    broker
        .until_metric(&refused("unencrypted"), |it| 0.0 < it)
        .await;
    until_registered(&broker, 0.0).await;

    let shop = keys.bridge(&broker, "shop", &origin, &keys.security("shop", ""));
    let _shop = Scale0::start(&shop).await;
    let front = Scale0::start(&keys.frontend(&broker)).await;
    until_registered(
        &broker,
        broker.metrics("scale0_broker_backends").await.max(1.0),
    )
    .await;
    assert_eq!(front.get("/").await.text(), "here");
}

#[tokio::test]
async fn a_right_key_for_another_service_registers_nothing_and_is_shown() {
    let (keys, origin) = (Keys::new(), origin().await);
    let allow = keys.allow("blog", "may = \"backend\", services = [\"blog\"]");
    let broker = Scale0::start(&keys.broker(&allow)).await;
    let security = keys.security("blog", "");
    let _thief = Scale0::launch(&keys.bridge(&broker, "shop", &origin, &security)).await;
    broker
        .until_metric("scale0_broker_sessions_not_allowed_total", |it| 0.0 < it)
        .await;
    assert_eq!(broker.metrics("scale0_broker_backends").await, 0.0);

    let half = keys.bridge(&broker, "shop", &origin, &security);
    let half = half.replace("service = \"shop\"", "services = [\"shop\", \"blog\"]");
    let _half = Scale0::launch(&half).await;
    broker
        .until_metric("scale0_broker_backends", |it| 0.0 < it)
        .await;
    let admin = format!("http://{}", broker.admin());
    let status = scale0(&["status", "--admin", &admin], &[]);
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("key blog  not allowed shop"), "{status}");
    assert!(!status.contains("service shop  backends"), "{status}");
}

#[tokio::test]
async fn a_list_is_read_again_without_a_restart_or_not_at_all() {
    let (keys, origin) = (Keys::new(), origin().await);
    let page = keys.allow("page", "may = \"frontend\"");
    let both = page.clone() + &keys.allow("shop", BACKEND);
    let broker = Scale0::start(&keys.broker(&both)).await;
    let security = keys.security("shop", "");
    let _shop = Scale0::start(&keys.bridge(&broker, "shop", &origin, &security)).await;
    let front = Scale0::start(&keys.frontend(&broker)).await;
    assert_eq!(front.get("/").await.text(), "here");

    let file = broker.folder().join("scale0.toml");
    let admin = format!("http://{}", broker.admin());
    let reload = || scale0(&["reload", "--admin", &admin], &[]);
    let write = |text: &str| std::fs::write(&file, text).unwrap();

    // A typo anywhere changes nothing, and is told.
    let without = keys.broker(&page);
    write(&without.replace("may = ", "mya = "));
    let told = reload();
    let errors = String::from_utf8(told.stderr).unwrap();
    assert_eq!(told.status.code(), Some(1));
    assert!(
        errors.contains("did you mean `may`?") && errors.contains("scale0.toml:"),
        "{errors}"
    );
    broker.signal(Signal::HUP);
    soon(async {
        while !broker.stderr().contains("nothing was taken over") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(front.get("/").await.text(), "here");

    // Its living sessions end, and its next handshake is refused.
    write(&(without.clone() + "[limits]\nhold = \"3s\"\n"));
    let told = reload();
    let said = String::from_utf8(told.stdout).unwrap();
    assert_eq!(
        said,
        "1 keys may come in\nchanged, and not taken over before a restart: [limits]\n"
    );
    until_registered(&broker, 0.0).await;
    assert_eq!(front.get("/").await.status(), 503);
    broker
        .until_metric("scale0_broker_sessions_not_allowed_total", |it| 0.0 < it)
        .await;

    // SIGHUP does the same the other way round; the bridge has stayed as it was.
    write(&keys.broker(&both));
    broker.signal(Signal::HUP);
    until_registered(&broker, broker_lanes()).await;
    assert_eq!(front.get("/").await.text(), "here");

    // To run without keys is not what a list says.
    write(&both_gone(&keys));
    let told = reload();
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    assert_eq!(front.get("/").await.text(), "here");
}

/// A bridge has a session for each thread.
fn broker_lanes() -> f64 {
    let threads = std::thread::available_parallelism().unwrap().get();
    f64::from(u32::try_from(threads).unwrap())
}

fn both_gone(keys: &Keys) -> String {
    let file = keys.broker("");
    let at = file.find("[security]").unwrap();
    file[..at].to_owned()
}

#[tokio::test]
async fn a_bridge_from_the_command_line_proves_itself_by_the_environment() {
    let (keys, origin) = (Keys::new(), origin().await);
    let broker = Scale0::start(&keys.broker(&keys.allow("shop", BACKEND))).await;
    let secret = std::fs::read_to_string(keys.of("shop").0).unwrap();
    let (endpoint, key) = (broker.broker("backends").to_owned(), keys.of("broker").1);
    let mut bridge = tokio::process::Command::new(env!("CARGO_BIN_EXE_scale0"))
        .args(["bridge", "--service", "shop", "--upstream", &origin.url()])
        .args(["--broker", &endpoint, "--broker-key", &key])
        .env("SCALE0_SECRET_KEY", secret.trim())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    broker
        .until_metric("scale0_broker_backends", |it| 0.0 < it)
        .await;
    bridge.kill().await.unwrap();
}

#[test]
fn keygen_writes_for_its_owner_alone_and_never_over_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.key");
    let path = file.to_str().unwrap();
    let made = scale0(&["keygen", "--out", path], &[]);
    assert!(made.status.success());
    let secret = std::fs::read_to_string(&file).unwrap();
    let public = String::from_utf8(made.stdout).unwrap();
    assert_eq!((secret.trim().len(), public.trim().len()), (40, 40));
    assert_ne!(secret, public);
    assert!(made.stderr.is_empty());
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let again = scale0(&["keygen", "--out", path], &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        String::from_utf8(again.stderr)
            .unwrap()
            .contains("is there already")
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), secret);
    let nowhere = scale0(&["keygen", "--out", "/nowhere/at/all"], &[]);
    assert_eq!(nowhere.status.code(), Some(1));
}

/// What `scale0 check` says of a broker with this file as its key.
fn check(keys: &Keys, secret: &Path, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scale0.toml");
    let allow = keys.allow("shop", BACKEND);
    let text = format!(
        "[broker]\nfrontends = \"tcp://10.0.0.1:5701\"\n[security]\nsecret_key_file = {secret:?}\nallow = [{allow}]\n"
    );
    std::fs::write(&file, text).unwrap();
    let output = scale0(&["check", "--config", file.to_str().unwrap()], variables);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code(), said)
}

#[test]
fn a_key_file_that_others_can_read_or_that_holds_no_key_starts_nothing() {
    let keys = Keys::new();
    let (file, _) = keys.of("broker");
    let secret = std::fs::read_to_string(&file).unwrap();
    let (code, said) = check(&keys, &file, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains(secret.trim()), "{said}");

    let mode = |mode| std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
    for open in [0o640, 0o604, 0o644] {
        mode(open);
        let (code, said) = check(&keys, &file, &[]);
        assert_eq!(code, Some(2));
        assert!(
            said.contains("that only its owner can read") && said.contains(&format!("{open:04o}")),
            "{said}"
        );
    }
    mode(0o600);
    // The key itself in the place of the file's name, a truncated key, and a wrong variable: none of it is repeated.
    let (code, said) = check(&keys, Path::new(secret.trim()), &[]);
    assert!(code == Some(2) && !said.contains(secret.trim()), "{said}");
    std::fs::write(&file, &secret[..39]).unwrap();
    let (code, said) = check(&keys, &file, &[]);
    assert!(code == Some(2) && !said.contains(&secret[..20]), "{said}");
    assert!(said.contains("40 characters of Z85"), "{said}");
    let (code, said) = check(&keys, &file, &[("SCALE0_SECRET_KEY", &secret[..39])]);
    assert!(code == Some(2) && !said.contains(&secret[..20]), "{said}");
    assert!(
        said.contains("environment variable SCALE0_SECRET_KEY"),
        "{said}"
    );
    // A right variable goes before a wrong file.
    let (code, said) = check(&keys, &file, &[("SCALE0_SECRET_KEY", secret.trim())]);
    assert!(code == Some(0) && !said.contains(secret.trim()), "{said}");
}

#[tokio::test]
async fn no_secret_key_is_in_a_log_a_status_or_a_metric() {
    let (keys, origin) = (Keys::new(), origin().await);
    let allow = keys.allow("shop", BACKEND);
    let loud = "[log]\nlevel = \"trace\"\naccess = \"off\"\n";
    let quiet = "[log]\naccess = \"off\"\n";
    let broker = Scale0::start(&keys.broker(&allow).replace(quiet, loud)).await;
    let security = keys.security("shop", "");
    let shop = keys
        .bridge(&broker, "shop", &origin, &security)
        .replace(quiet, loud);
    let shop = Scale0::start(&shop).await;
    broker
        .until_metric("scale0_broker_backends", |it| 0.0 < it)
        .await;
    for (process, node) in [(&broker, "broker"), (&shop, "shop")] {
        let secret = std::fs::read_to_string(keys.of(node).0).unwrap();
        let admin = process.admin();
        for page in ["/status", "/metrics", "/"] {
            let shown = support::get(admin, page).await.text();
            assert!(!shown.contains(secret.trim()), "{page}");
        }
        assert!(!process.stderr().contains(secret.trim()));
    }
}

/// The block of the page that holds this, between its fences.
fn block(page: &str, holds: &str) -> String {
    let block = page
        .split("```")
        .skip(1)
        .step_by(2)
        .find(|it| it.contains(holds));
    let (_language, text) = block.unwrap().split_once('\n').unwrap();
    text.to_owned()
}

#[tokio::test]
async fn the_page_on_security_sets_up_a_site_that_serves() {
    let (keys, origin) = (Keys::new(), origin().await);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security.md");
    let page = std::fs::read_to_string(page).unwrap();
    let folder = keys.0.path().display().to_string();
    let socket = |name: &str| format!("ipc://{folder}/{name}.sock");
    // Ports that may be taken are sockets here, and keys are what `scale0 keygen` has made.
    let here = |text: String| {
        let mut text = text
            .replace("tcp://127.0.0.1:5701", &socket("frontends"))
            .replace("tcp://127.0.0.1:5702", &socket("backends"))
            .replace("http://127.0.0.1:3000", &origin.url())
            .replace("127.0.0.1:8080", "127.0.0.1:0");
        for node in ["broker", "frontend", "shop"] {
            let (file, public) = keys.of(node);
            text = text
                .replace(&format!("{}_KEY", node.to_uppercase()), &public)
                .replace(&format!("{node}.key"), file.to_str().unwrap());
        }
        text
    };
    let broker = here(block(&page, "# broker.toml")).replace("[admin]\n", ADMIN);
    let peers = format!("[broker]\npeers = {:?}\n", socket("peers"));
    let broker = Scale0::start(&broker.replace("[broker]\n", &peers)).await;
    let front = here(block(&page, "# frontend.toml"));
    let front = Scale0::start(&format!("{front}{ADMIN}[cache]\nstore = \"none\"\n")).await;

    let command = here(block(&page, "--broker-key 'BROKER_KEY'"));
    let command = command.replace("    scale0 bridge", "    exec \"$SCALE0\" bridge");
    let mut bridge = tokio::process::Command::new("sh")
        .args(["-c", &command])
        .env("SCALE0", env!("CARGO_BIN_EXE_scale0"))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    broker
        .until_metric("scale0_broker_backends", |it| 0.0 < it)
        .await;
    assert_eq!(front.get("/").await.text(), "here");
    bridge.kill().await.unwrap();
}

#[tokio::test]
async fn garbage_from_an_allowed_key_is_muted_and_shown_and_its_key_refused() {
    let keys = Keys::new();
    let broker = Scale0::start(&keys.broker(&keys.allow("shop", BACKEND))).await;
    let decoded = |key: &str| zmq::z85_decode(key.trim()).unwrap();
    let (file, public) = keys.of("shop");
    let secret = std::fs::read_to_string(file).unwrap();
    let context = zmq::Context::new();
    let dial = || {
        let socket = context.socket(zmq::DEALER).unwrap();
        socket.set_linger(0).unwrap();
        socket
            .set_curve_serverkey(&decoded(&keys.of("broker").1))
            .unwrap();
        socket.set_curve_publickey(&decoded(&public)).unwrap();
        socket.set_curve_secretkey(&decoded(&secret)).unwrap();
        socket.connect(broker.broker("backends")).unwrap();
        socket
    };
    let socket = dial();
    for _ in 0..100 {
        socket.send("garbage", 0).unwrap();
    }
    broker
        .until_metric("scale0_broker_quarantines_total", |it| it == 1.0)
        .await;
    broker
        .until_metric("scale0_broker_dropped_malformed_total", |it| 8.0 <= it)
        .await;
    // Each quarantine is longer than the one before: there is time to look.
    soon(async {
        loop {
            let another = dial();
            socket.send("garbage", 0).unwrap();
            another.send("garbage", 0).unwrap();
            if 0.0 < broker.metrics(&refused("quarantined")).await {
                break;
            }
        }
    })
    .await;
    soon(async {
        loop {
            for _ in 0..20 {
                socket.send("garbage", 0).unwrap();
            }
            let status = support::get(broker.admin(), "/status").await.text();
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            if status["broker"]["quarantined"][0].is_object() {
                break;
            }
        }
    })
    .await;
}
