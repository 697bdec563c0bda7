//! Settings with few answers, each named; and the two of `[log]` that are nearly so.

use std::fmt;
use std::path::PathBuf;

use super::text::{Text, deserialize_text, serialize_text};

/// Which requests share one fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coalesce {
    /// Every request goes to a backend by itself.
    Off,
    /// Identical requests in flight in this frontend are one fetch.
    Frontend,
}

impl Text for Coalesce {
    const EXPECTED: &'static str = "\"frontend\" or \"off\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        match text {
            "off" => Ok(Self::Off),
            "frontend" => Ok(Self::Frontend),
            "site" | "global" => Err("not in this version"),
            _ => Err(""),
        }
    }
}

impl fmt::Display for Coalesce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Frontend => "frontend",
        })
    }
}

/// Whether a response that sets a cookie may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetCookie {
    /// With explicit freshness it is stored, cookie and all (RFC 9111 §7.3).
    Store,
    /// It is never stored, whatever its freshness says.
    Refuse,
}

impl Text for SetCookie {
    const EXPECTED: &'static str = "\"store\" or \"refuse\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        match text {
            "store" => Ok(Self::Store),
            "refuse" => Ok(Self::Refuse),
            _ => Err(""),
        }
    }
}

impl fmt::Display for SetCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "store",
            Self::Refuse => "refuse",
        })
    }
}

/// Who goes first where requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Somebody waits for the answer.
    Interactive,
    /// Ordinary.
    Normal,
    /// Takes what is left.
    Background,
}

impl Text for Priority {
    const EXPECTED: &'static str = "\"interactive\", \"normal\" or \"background\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        match text {
            "interactive" => Ok(Self::Interactive),
            "normal" => Ok(Self::Normal),
            "background" => Ok(Self::Background),
            _ => Err(""),
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interactive => "interactive",
            Self::Normal => "normal",
            Self::Background => "background",
        })
    }
}

/// Which requests go to one backend, in the words of those who say it on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Affinity(pub(crate) scale0_frontend::Affinity);

impl Text for Affinity {
    const EXPECTED: &'static str =
        "\"off\", \"path\", \"client\", \"header:NAME\" or \"cookie:NAME\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where responses are stored behind the memory tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// Nowhere: a restart begins with an empty cache.
    None,
    /// In append-only files.
    File,
    /// In a sled database, and files beside it for what is large.
    Sled,
}

impl Text for Store {
    const EXPECTED: &'static str = "\"file\", \"sled\" or \"none\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        match text {
            "none" => Ok(Self::None),
            "file" => Ok(Self::File),
            "sled" => Ok(Self::Sled),
            _ => Err(""),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::File => "file",
            Self::Sled => "sled",
        })
    }
}

/// A thing that is `"on"` or `"off"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Switch(pub(super) bool);

impl Text for Switch {
    const EXPECTED: &'static str = "\"on\" or \"off\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        match text {
            "on" => Ok(Self(true)),
            "off" => Ok(Self(false)),
            _ => Err(""),
        }
    }
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AccessLog {
    /// No line per request.
    Off,
    /// Standard output.
    Stdout,
    /// This file, appended to, and opened again on SIGUSR1.
    File(PathBuf),
}

impl Text for AccessLog {
    const EXPECTED: &'static str = "\"off\", \"stdout\" or a file such as \"./access.log\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        match text {
            "off" => Ok(Self::Off),
            "stdout" => Ok(Self::Stdout),
            // Else `access = "stdot"` would be a log nobody finds.
            file if file.contains(['/', '.']) => Ok(Self::File(file.into())),
            _ => Err("a file's name has a \"/\" or a \".\" in it"),
        }
    }
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(file) => file.display().fmt(f),
        }
    }
}

/// What is logged, in `RUST_LOG`'s syntax; `tracing-subscriber` has read it once already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogLevel(String);

impl LogLevel {
    /// What is logged where nothing is said.
    pub(super) fn info() -> Self {
        Self("info".to_owned())
    }

    /// The directives as they were written.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for LogLevel {
    const EXPECTED: &'static str =
        "a level such as \"info\", or RUST_LOG's directives such as \"info,scale0_broker=debug\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        // Without a level anywhere, `inof` would be the name of a module, all of which is then logged and nothing else.
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        let is_level = |word: &str| levels.iter().any(|level| level.eq_ignore_ascii_case(word));
        if !text
            .split(',')
            .any(|directive| is_level(directive.rsplit('=').next().unwrap_or_default().trim()))
        {
            return Err("it names none of off, error, warn, info, debug and trace");
        }
        tracing_subscriber::EnvFilter::try_new(text)
            .map_err(|_| "one of its directives is wrong")?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file's name. Relative ones start at the working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileName(pub(super) PathBuf);

impl Text for FileName {
    const EXPECTED: &'static str = "the name of a file";

    fn read(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.contains('\0') {
            Err("")
        } else {
            Ok(Self(text.into()))
        }
    }
}

/// The name of a file that holds a secret. What looks like no file's name is taken for the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretFile(pub(super) PathBuf);

impl Text for SecretFile {
    const EXPECTED: &'static str =
        "the name of a file that holds the secret, such as \"./admin.token\"";
    const MAY_BE_SECRET: bool = true;

    fn read(text: &str) -> Result<Self, &'static str> {
        match FileName::read(text) {
            Ok(FileName(file)) if text.contains(['/', '.']) => Ok(Self(file)),
            _ => Err(
                "a file's name has a \"/\" or a \".\" in it, and the secret itself never stands here",
            ),
        }
    }
}

/// The value of a setting whose time has not come: only an empty list of them can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unavailable {}

impl Text for Unavailable {
    const EXPECTED: &'static str = "an empty list";

    fn read(_: &str) -> Result<Self, &'static str> {
        Err("not in this version")
    }
}

deserialize_text!(
    Affinity,
    Coalesce,
    Priority,
    SetCookie,
    Store,
    Switch,
    AccessLog,
    LogLevel,
    FileName,
    SecretFile,
    Unavailable
);
serialize_text!(
    Affinity, Coalesce, Priority, SetCookie, Store, AccessLog, LogLevel
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_destination_or_level_is_not_taken_for_a_file_or_a_module() {
        assert!(AccessLog::read("stdot").is_err());
        assert!(LogLevel::read("inof").is_err());
        assert_eq!(
            AccessLog::read("access.log"),
            Ok(AccessLog::File("access.log".into()))
        );
        assert!(LogLevel::read("warn,scale0_broker=debug").is_ok());
        assert!(LogLevel::read("INFO").is_ok());
    }

    #[test]
    fn an_answer_of_a_later_version_is_refused_as_such() {
        assert_eq!(Coalesce::read("site"), Err("not in this version"));
        assert_eq!(Coalesce::read("global"), Err("not in this version"));
    }
}
