//! The command line, as `--help` teaches it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The layer in front of a website that is meant to outgrow one machine.
///
/// Backends dial out to a broker and pull work as they have room for it;
/// frontends answer HTTP, from a cache where they can, and fold identical
/// requests into one.
#[derive(Debug, Parser)]
#[command(
    name = "scale0",
    version,
    verbatim_doc_comment,
    after_help = "\
Examples:
  scale0 up                              everything in one process on loopback, with a demo
  scale0 up --config scale0.toml         the roles the file has
  scale0 check --config scale0.toml      is the file right, and what does it come to?

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."
)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What there is to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the roles a file has; without a file everything, on loopback, with a demo backend
    Up(UpArguments),
    /// Make an application that speaks HTTP a backend
    Bridge(BridgeArguments),
    /// Say whether a configuration is right, and print it with all its defaults
    Check(CheckArguments),
    /// Show sites, brokers, services, backends, load and cache of a running process
    Status(StatusArguments),
    /// Let a running process, or one role of it, finish its work and take no more
    Drain(DrainArguments),
    /// Make what a running process has stored count as stale, or as gone, in its own cache
    Purge(PurgeArguments),
    /// Let a running process read its allow list again
    Reload(ReloadArguments),
    /// Make a pair of keys for a node
    Keygen(KeygenArguments),
    /// Not in this version
    #[command(hide = true, disable_help_flag = true)]
    Top(Later),
    /// Not in this version
    #[command(hide = true, disable_help_flag = true)]
    Completions(Later),
}

/// Whatever is said to a subcommand of a later version.
#[derive(Debug, Args)]
pub(crate) struct Later {
    /// Taken in so that the answer is "not in this version", not a complaint about a flag.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) rest: Vec<OsString>,
}

const SET: &str = "\
Set one setting, over the file and over variables; may be repeated.

KEY is SECTION.KEY, or SECTION.POSITION.KEY for a section that may stand several
times, counted from 0: limits.timeout, bridge.0.concurrency. VALUE needs no quotes;
a list is [\"a\", \"b\"]. SCALE0__SECTION__KEY=VALUE in the environment says the same
and gives way to --set. Which sections there are is said by the file alone.";

/// `--set`, where it is accepted.
#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// Set one setting, over the file and over variables; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", long_help = SET)]
    pub(crate) sets: Vec<String>,
}

/// Run the roles a file has; without a file everything, on loopback, with a demo backend
#[derive(Args, Debug)]
#[command(after_help = "\
Without a file: pages on http://127.0.0.1:8080, admin on http://127.0.0.1:8081, a broker, a cache (its store in the
folder scale0-demo) and a demo backend. With a file the store is in scale0-cache, unless the file says otherwise.
Relative file names in the configuration start at the working directory.

Examples:
  scale0 up
  scale0 up --config scale0.toml --set limits.drain_timeout=5m
  scale0 up --config scale0.toml --set bridge.0.concurrency=8
  SCALE0__LOG__LEVEL=debug scale0 up

Stop it with SIGTERM or Ctrl-C: what is in flight ends first. A second one ends at once.")]
pub(crate) struct UpArguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Settings on top of it
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// Make an application that speaks HTTP a backend
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  scale0 bridge --service www.example.com --upstream http://127.0.0.1:3000 --broker tcp://127.0.0.1:5702
  scale0 bridge --service '*' --upstream unix:/run/app.sock --broker tcp://127.0.0.1:5702 --concurrency 16 --health /healthz

A broker on another machine is proved by its key, and this bridge by its own, which the broker's allow list names:
  SCALE0__SECURITY__SECRET_KEY_FILE=./bridge.key scale0 bridge --service www.example.com \
      --upstream http://127.0.0.1:3000 --broker tcp://10.0.0.5:5702 --broker-key KEY
SCALE0_SECRET_KEY holds the key itself instead. On a trusted network without keys: SCALE0__SECURITY__INSECURE=true")]
pub(crate) struct BridgeArguments {
    /// A service the application answers for; "*" for whatever nobody else answers; may be repeated
    #[arg(long = "service", value_name = "NAME", required = true)]
    pub(crate) services: Vec<String>,
    /// Where the application listens, http://host:port or unix:/path; several are balanced
    #[arg(long = "upstream", value_name = "URL", required = true)]
    pub(crate) upstreams: Vec<String>,
    /// A broker's endpoint for backends; name all brokers of the site
    #[arg(long = "broker", value_name = "ENDPOINT", required = true)]
    pub(crate) brokers: Vec<String>,
    /// The broker's public key, for encryption; one for all brokers, or one for each in their order
    #[arg(long = "broker-key", value_name = "KEY", allow_hyphen_values = true)]
    pub(crate) broker_keys: Vec<String>,
    /// The most requests the application is given at once [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<i64>,
    /// The path that answers 2xx or 3xx while the application is well [default: a TCP connect]
    #[arg(long, value_name = "PATH")]
    pub(crate) health: Option<String>,
}

/// Say whether a configuration is right, and print it with all its defaults
#[derive(Args, Debug)]
#[command(after_help = "\
What is printed is itself a configuration of the same meaning. Variables (SCALE0__SECTION__KEY) and --set count, so
that it shows what `scale0 up` would run here and now. The files it names are looked at; nothing is bound, dialled or
started.

Examples:
  scale0 check --config scale0.toml
  scale0 check --config scale0.toml --format json | jq .limits")]
pub(crate) struct CheckArguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Toml)]
    pub(crate) format: Format,
    /// Settings on top of it
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// How `check` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// With a line on each setting.
    Toml,
    /// For programs.
    Json,
}

/// Where a running process answers for itself.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminUrl {
    /// The admin interface of the process; where it wants a token, SCALE0_ADMIN_TOKEN has it
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub(crate) admin: String,
}

/// Show sites, brokers, services, backends, load and cache of a running process
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  scale0 status
  scale0 status --admin http://127.0.0.1:9081 --json | jq .broker.services")]
pub(crate) struct StatusArguments {
    /// Whom to ask
    #[command(flatten)]
    pub(crate) admin: AdminUrl,
    /// Print the answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Let a running process, or one role of it, finish its work and take no more
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  scale0 drain --wait                      exit 0 once nothing is in flight
  scale0 drain --role bridge --timeout 5m")]
pub(crate) struct DrainArguments {
    /// Whom to ask
    #[command(flatten)]
    pub(crate) admin: AdminUrl,
    /// Only this role
    #[arg(long, value_enum)]
    pub(crate) role: Option<Role>,
    /// How long work in flight may take to end [default: the process's limits.drain_timeout]
    #[arg(long, value_name = "TIME", value_parser = crate::config::time)]
    pub(crate) timeout: Option<std::time::Duration>,
    /// Return only when it has ended
    #[arg(long)]
    pub(crate) wait: bool,
}

/// Make what a running process has stored count as stale, or as gone, in its own cache
#[derive(Args, Debug)]
#[command(
    group = clap::ArgGroup::new("target").required(true),
    after_help = "\
A purge is for the cache of the node that is asked: with several frontends, ask each by its --admin. A purged
response is never served again by that node; with --soft it is stale: it may be served while one request fetches it
anew, or while the backends are away. What is being fetched when a purge comes is not stored.

URLs are normalised as those of requests are. Whether https or http is of no account. A prefix ends where a segment
of the path ends: https://www.example.com/shop is about /shop, /shop/ and /shop/shoes?size=9, and not about /shopping.
A port that is not the default belongs to the URL, as it does to that of a request. A tag is a word of the
responses' own Surrogate-Key (separated by blanks) or Cache-Tag (by commas) field; each has a --tag of its own.

Examples:
  scale0 purge --url 'https://www.example.com/news?page=2'
  scale0 purge --prefix https://www.example.com/shop --soft
  scale0 purge --tag product-17 --tag product-18

  for node in 10.0.0.7 10.0.0.8; do scale0 purge --tag product-17 --admin http://$node:8081; done

Exit codes: 0 confirmed by the node that is asked, and then a restart does not bring back what was purged either;
1 not, and the reason is told; 2 wrong usage. Repeating a purge is safe."
)]
pub(crate) struct PurgeArguments {
    /// Whom to ask
    #[command(flatten)]
    pub(crate) admin: AdminUrl,
    /// The responses of this URL, all variants; may be repeated
    #[arg(long = "url", value_name = "URL", group = "target")]
    pub(crate) urls: Vec<String>,
    /// Those of this path and all below it, whatever their query; may be repeated
    #[arg(long = "prefix", value_name = "URL", group = "target")]
    pub(crate) prefixes: Vec<String>,
    /// Those with this tag; may be repeated
    #[arg(long = "tag", value_name = "TAG", group = "target")]
    pub(crate) tags: Vec<String>,
    /// Everything
    #[arg(long, group = "target")]
    pub(crate) all: bool,
    /// They may be served, as stale, while they are fetched anew
    #[arg(long)]
    pub(crate) soft: bool,
    /// Print the answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Let a running process read its allow list again
#[derive(Args, Debug)]
#[command(after_help = "\
The process reads its whole configuration again, the file, variables and --set as when it was started, and takes over
`allow` of [security], all of it at once: new keys come in, those that are gone are sent away with their services. If
anything is wrong, nothing changes, and the reason is told. What else has changed is named and waits for a restart.
SIGHUP does the same.

Example:
  scale0 reload && scale0 status

Exit codes: 0 done, 1 not, and the reason is told; 2 wrong usage.")]
pub(crate) struct ReloadArguments {
    /// Whom to ask
    #[command(flatten)]
    pub(crate) admin: AdminUrl,
}

/// Make a pair of keys for a node
#[derive(Args, Debug)]
#[command(after_help = "\
The secret key goes into the file, which only its owner can read, and is never shown; `secret_key_file` in [security]
names it. The public key is printed: it goes into the `allow` list of brokers, or, if it is a broker's, into `brokers`
of frontends and bridges. A file that is there already is not touched.

Example:
  scale0 keygen --out /etc/scale0/node.key")]
pub(crate) struct KeygenArguments {
    /// The file to write the secret key to; it must not be there yet
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Answers HTTP.
    Frontend,
    /// Brings requests and backends together.
    Broker,
    /// Makes applications backends.
    Bridge,
}

impl Role {
    /// As it stands on command lines and in URLs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Frontend => "frontend",
            Self::Broker => "broker",
            Self::Bridge => "bridge",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[derive(Debug, Parser)]
    enum Every {
        Up(UpArguments),
        Bridge(BridgeArguments),
        Status(StatusArguments),
        Drain(DrainArguments),
        Purge(PurgeArguments),
    }

    fn parse(line: &str) -> Result<Every, clap::Error> {
        Every::try_parse_from(["scale0"].into_iter().chain(line.split(' ')))
    }

    #[test]
    fn the_definitions_do_not_contradict_themselves() {
        Arguments::command().debug_assert();
        Every::command().debug_assert();
    }

    #[test]
    fn the_command_lines_of_the_public_interface_are_understood() {
        assert!(
            matches!(parse("up --set a.b=1 -c x.toml --set c.d=2"), Ok(Every::Up(up)) if up.settings.sets.len() == 2 && up.config.is_some())
        );
        assert!(
            matches!(parse("bridge --service a --service b --upstream http://x --broker tcp://y:1 --broker-key k --concurrency 8 --health /h"),
            Ok(Every::Bridge(bridge)) if bridge.services == ["a", "b"] && bridge.broker_keys == ["k"] && bridge.concurrency == Some(8)
                && bridge.upstreams == ["http://x"] && bridge.brokers == ["tcp://y:1"] && bridge.health.as_deref() == Some("/h"))
        );
        assert!(
            matches!(parse("status --json"), Ok(Every::Status(status)) if status.json && status.admin.admin == "http://127.0.0.1:8081")
        );
        assert!(
            matches!(parse("drain --role broker --timeout 30s --wait --admin http://h:1"),
            Ok(Every::Drain(drain)) if drain.role == Some(Role::Broker) && drain.timeout.unwrap().as_secs() == 30 && drain.wait && drain.admin.admin == "http://h:1")
        );
    }

    #[test]
    fn a_key_that_begins_with_a_hyphen_is_one() {
        let line =
            "bridge --service a --upstream http://x --broker tcp://y:1 --broker-key -k --health /h";
        assert!(
            matches!(parse(line), Ok(Every::Bridge(bridge)) if bridge.broker_keys == ["-k"] && bridge.health.is_some())
        );
    }

    #[test]
    fn a_purge_is_by_one_kind_of_name() {
        assert!(
            matches!(parse("purge --tag a --tag b --soft --json"), Ok(Every::Purge(purge)) if purge.tags == ["a", "b"] && purge.soft && purge.json)
        );
        assert!(
            matches!(parse("purge --all --admin http://h:1"), Ok(Every::Purge(purge)) if purge.all && !purge.soft)
        );
        for wrong in [
            "purge",
            "purge --soft",
            "purge --url a/b --tag c",
            "purge --all --prefix a",
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn a_time_without_a_unit_and_a_bridge_without_a_broker_are_wrong_usage() {
        assert!(
            parse("drain --timeout 30")
                .unwrap_err()
                .to_string()
                .contains("the unit is missing")
        );
        assert_eq!(
            parse("bridge --service a --upstream http://x")
                .unwrap_err()
                .exit_code(),
            2
        );
    }
}
