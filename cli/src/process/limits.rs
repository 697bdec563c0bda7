//! What the system lets this process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes as many file descriptors as the system allows without asking: each connection is one. Warns if that is fewer than the
/// configuration needs.
pub(super) fn raise_descriptors(needed: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )
    {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
    if let Some(allowed) = getrlimit(Resource::Nofile).current
        && allowed < needed as u64
    {
        tracing::warn!(
            allowed,
            needed,
            "fewer files may be open than limits.max_connections needs: raise `ulimit -n`, or lower the setting"
        );
    }
}
