//! A wrong configuration starts nothing, and says where and what.

use std::net::TcpListener;
use std::process::Command;

/// Runs `up` with a file until it ends; its exit code and what it said.
fn up(text: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("scale0.toml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_scale0"));
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SCALE0__"))
    {
        command.env_remove(name);
    }
    let output = command
        .args(["up", "--config", "scale0.toml"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "",
        "it has started nothing"
    );
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_wrong_file_names_its_line_its_key_and_what_would_be_right() {
    for (text, parts) in [
        (
            "[frontend]\nhttps_port = 1\n",
            &["scale0.toml:2:1", "https_port"][..],
        ),
        (
            "[frontend]\nhtpp = \"127.0.0.1:0\"\n",
            &["scale0.toml:2:1", "htpp", "did you mean `http`?"],
        ),
        (
            "[fronted]\n[broker]\n",
            &["scale0.toml:1:2", "fronted", "did you mean [frontend]?"],
        ),
        (
            "[broker]\n[frontend]\nhttp = 8080\n",
            &["scale0.toml:3:8", "frontend.http", "127.0.0.1:8080"],
        ),
        (
            "[broker]\n[limits]\nhold = 10\n",
            &["scale0.toml:3:8", "limits.hold", "30s"],
        ),
        (
            "[broker]\n[limits]\nbody_bytes = \"1MIB\"\n",
            &["scale0.toml:3:14", "limits.body_bytes", "MiB"],
        ),
        (
            "[broker]\n[[route]]\nservice = \"a\"\ncoalesce = \"site\"\n",
            &["scale0.toml:4:12", "coalesce", "not in this version"],
        ),
        (
            "[broker]\n[frontend]\n[cache]\nstore = \"rocks\"\n",
            &["scale0.toml:4:9", "\"file\", \"sled\" or \"none\""],
        ),
        (
            "[broker]\n[[broker.peer]]\nsite = \"nyc\"\n",
            &["scale0.toml:2", "peer", "not in this version"],
        ),
        ("[frontend]\nhttp = \"127.0.0.1:0\"\n", &["brokers"]),
        (
            "[[bridge]]\nservice = \"a\"\nbrokers = \"tcp://127.0.0.1:1\"\n",
            &["scale0.toml:1", "upstream"],
        ),
        (
            "[broker]\nfrontends = \"tcp://0.0.0.0:5701\"\n",
            &["scale0.toml:2:13", "insecure"],
        ),
        ("[broker]\n[broker]\n", &["scale0.toml:2", "broker"]),
        ("[broker\n", &["scale0.toml:1"]),
        ("", &["scale0.toml"]),
    ] {
        let (code, said) = up(text);
        assert_eq!(code, Some(2), "{text}\n{said}");
        for part in parts {
            assert!(
                said.contains(part),
                "{part:?} is missing for\n{text}\n{said}"
            );
        }
        assert_eq!(said.matches("error:").count(), 1, "{said}");
    }
}

#[test]
fn an_address_in_use_is_named_and_nothing_stays() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let free = "127.0.0.1:0";
    let broker = |frontends: &str| {
        format!(
            "[broker]\nfrontends = \"tcp://{frontends}\"\nbackends = \"tcp://{free}\"\npeers = \"tcp://{free}\"\n"
        )
    };
    let taken = taken.to_string();
    let frontend = |http: &str| format!("[frontend]\nhttp = \"{http}\"\n");
    let admin = |listen: &str| format!("[admin]\nlisten = \"{listen}\"\n");
    for (what, text) in [
        (
            "frontend",
            format!("{}{}{}", broker(free), frontend(&taken), admin(free)),
        ),
        (
            "admin",
            format!("{}{}{}", broker(free), frontend(free), admin(&taken)),
        ),
        (
            "broker",
            format!("{}{}{}", broker(&taken), frontend(free), admin(free)),
        ),
    ] {
        let (code, said) = up(&text);
        assert_eq!(code, Some(1), "{what}: {said}");
        assert!(said.contains(&taken), "{what}: {said}");
        assert!(
            said.to_ascii_lowercase().contains("address already in use") || said.contains("in use"),
            "{what}: {said}"
        );
        assert!(!said.contains("panicked"), "{what}: {said}");
    }
}
