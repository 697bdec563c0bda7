//! A file per subcommand.

mod admin_client;
pub(crate) mod bridge;
pub(crate) mod check;
pub(crate) mod drain;
pub(crate) mod keygen;
pub(crate) mod purge;
pub(crate) mod reload;
pub(crate) mod status;
pub(crate) mod up;
