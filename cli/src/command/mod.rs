//! A file per subcommand.

pub(crate) mod check;
