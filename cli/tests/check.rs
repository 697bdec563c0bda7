//! `scale0 check` and the manners of the command line, with the real binary.

use std::path::Path;
use std::process::{Command, Output};

const FILE: &str = r#"
[frontend]
http = "127.0.0.1:0"
[broker]
[[bridge]]
service = "*"
upstream = "http://127.0.0.1:3000"
[admin]
token_file = "./admin.token"
"#;

fn scale0(arguments: &[&str], variables: &[(&str, &str)], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scale0"));
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SCALE0__"))
    {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .envs(variables.iter().copied())
        .current_dir(folder);
    command.output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// A folder with `text` as its `scale0.toml`, and the token that [`FILE`] names.
fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("scale0.toml"), text).expect("room for a file");
    std::fs::write(folder.path().join("admin.token"), "s3cret\n").expect("room for a file");
    folder
}

#[test]
fn what_check_prints_is_a_configuration_that_checks_to_the_same() {
    let folder = folder(FILE);
    let first = scale0(&["check", "--config", "scale0.toml"], &[], folder.path());
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    assert!(
        text(&first.stdout)
            .contains("# The largest response kept in memory\nmemory_max_object = \"16MiB\"")
    );

    std::fs::write(folder.path().join("again.toml"), &first.stdout).unwrap();
    for format in ["toml", "json"] {
        let one = scale0(
            &["check", "--config", "scale0.toml", "--format", format],
            &[],
            folder.path(),
        );
        let two = scale0(
            &["check", "--config", "again.toml", "--format", format],
            &[],
            folder.path(),
        );
        let without_title = |output: &Output| {
            text(&output.stdout)
                .lines()
                .filter(|line| !line.starts_with("# What "))
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert_eq!(without_title(&one), without_title(&two));
    }
}

#[test]
fn json_is_for_programs_and_shows_what_variables_and_sets_come_to() {
    let folder = folder(FILE);
    let variables = [
        ("SCALE0__LIMITS__HOLD", "1s"),
        ("SCALE0__LIMITS__TIMEOUT", "1s"),
    ];
    let arguments = [
        "check",
        "-c",
        "scale0.toml",
        "--format",
        "json",
        "--set",
        "limits.timeout=2m",
        "--set",
        "bridge.0.concurrency=8",
    ];
    let output = scale0(&arguments, &variables, folder.path());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&json["limits"]["hold"], &json["limits"]["timeout"]),
        (&"1s".into(), &"2m".into())
    );
    assert_eq!(json["bridge"][0]["concurrency"], 8);
}

#[test]
fn a_wrong_configuration_exits_with_2_and_names_file_line_and_key() {
    let folder = folder("[broker]\nfrontend = \"tcp://127.0.0.1:1\"\n");
    let output = scale0(&["check", "--config", "scale0.toml"], &[], folder.path());
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    let expected = "error: unknown key `frontend` in [broker]\n  --> scale0.toml:2:1\n  |\n2 | frontend = \"tcp://127.0.0.1:1\"\n  | ^^^^^^^^ broker.frontend\n  \
                    = help: did you mean `frontends`? Where frontends connect\n";
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn a_file_that_is_named_and_cannot_be_used_is_wrong_for_check_and_for_up() {
    let folder = folder(FILE);
    let token = folder.path().join("admin.token");
    let wrong = |what: &str, more: &[&str]| {
        for command in ["check", "up"] {
            let arguments = [&[command, "--config", "scale0.toml"], more].concat();
            let output = scale0(&arguments, &[], folder.path());
            assert_eq!(output.status.code(), Some(2), "{command}: {what}");
            let told = text(&output.stderr);
            assert!(told.contains(what), "{told}\ndoes not say {what}");
        }
    };
    std::fs::write(&token, " \n").unwrap();
    wrong("token in \"./admin.token\", found nothing\n", &[]);
    std::fs::write(&token, "s".repeat(10_000)).unwrap();
    wrong("at most 8192 bytes", &[]);
    std::fs::remove_file(&token).unwrap();
    wrong("at \"./admin.token\", which cannot be read: No such", &[]);
    wrong("scale0.toml:9:14", &[]);
    let of_log = [
        "--set",
        "log.access=none/access.log",
        "--set",
        "admin.token_file=./scale0.toml",
    ];
    wrong("at \"none/access.log\", which cannot be opened", &of_log);
    wrong("--> --set log.access", &of_log);
}

#[test]
fn an_access_log_that_check_looks_at_is_not_begun() {
    let folder = folder(FILE);
    let arguments = [
        "check",
        "-c",
        "scale0.toml",
        "--set",
        "log.access=./access.log",
    ];
    let output = scale0(&arguments, &[], folder.path());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!folder.path().join("access.log").exists());
}

#[test]
fn neither_a_message_nor_the_output_shows_a_secret() {
    let folder = folder(FILE);
    for format in ["toml", "json"] {
        let output = scale0(
            &["check", "--config", "scale0.toml", "--format", format],
            &[],
            folder.path(),
        );
        assert!(
            text(&output.stdout).contains("admin.token")
                && !text(&output.stdout).contains("s3cret")
        );
    }
    let arguments = [
        "check",
        "--config",
        "scale0.toml",
        "--set",
        "admin.token=s3cret",
    ];
    let output = scale0(
        &arguments,
        &[("SCALE0__ADMIN__TOKEN_FILE", "s3cret")],
        folder.path(),
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(
        !text(&output.stderr).contains("s3cret"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn subcommands_of_later_versions_are_refused_as_such() {
    let folder = tempfile::tempdir().unwrap();
    for line in ["top", "completions bash", "top --help", "top -- x"] {
        let output = scale0(&line.split(' ').collect::<Vec<_>>(), &[], folder.path());
        let name = line.split(' ').next().unwrap_or_default();
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert_eq!(
            text(&output.stderr),
            format!("error: `scale0 {name}` is not in this version\n")
        );
    }
}

#[test]
fn wrong_usage_exits_with_2_and_help_teaches() {
    let folder = tempfile::tempdir().unwrap();
    for line in [
        "",
        "chek",
        "check",
        "check --config x --format yaml",
        "check --confg x",
    ] {
        let arguments: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        assert_eq!(
            scale0(&arguments, &[], folder.path()).status.code(),
            Some(2),
            "{line}"
        );
    }
    let version = scale0(&["--version"], &[], folder.path());
    assert_eq!(
        text(&version.stdout),
        format!("scale0 {}\n", env!("CARGO_PKG_VERSION"))
    );
    for arguments in [&["--help"][..], &["check", "--help"]] {
        let help = scale0(arguments, &[], folder.path());
        assert_eq!(help.status.code(), Some(0));
        assert!(text(&help.stdout).contains("Examples:\n  scale0 "));
        assert!(!text(&help.stdout).contains("ot in this version"));
    }
}
