//! What the system lets this process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside those of connections: sockets to brokers, listeners, logs, the runtime's own.
const OTHER_DESCRIPTORS: usize = 48;

/// Takes as many file descriptors as the system allows without asking.
pub(super) fn raise_descriptors() {
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
}

/// How many clients can be connected with the descriptors there are: `wanted`, or fewer, with a warning. A client's connection is
/// one, and what it asks for may be another, to an application.
pub(super) fn connections(wanted: usize) -> usize {
    let Some(allowed) = getrlimit(Resource::Nofile).current else {
        return wanted;
    };
    let room = room_for(usize::try_from(allowed).unwrap_or(usize::MAX));
    // What is nearly enough is no news.
    if room < wanted - wanted / 10 {
        tracing::warn!(
            max_connections = wanted,
            room,
            open_files = allowed,
            "so few files may be open that fewer clients are let in than limits.max_connections: raise `ulimit -n`, or lower the setting"
        );
    }
    wanted.min(room)
}

/// How many clients so many descriptors are enough for, each with a connection to an application.
fn room_for(descriptors: usize) -> usize {
    (descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_room_for_another_to_the_application() {
        assert_eq!(room_for(1_048), 500);
        assert_eq!(room_for(0), 1);
    }
}
