use crate::error::TransportError;

/// libzmq's I/O threads. One per process is enough below a few hundred thousand messages a second.
///
/// A context has room for 1023 sockets: one for each link and router, three for a link while it dials.
///
/// A clone is the same context. It ends with its last clone, [`crate::Links`] and [`crate::Router`]; dropping the last waits for
/// what is to be sent yet, at most as long as the sockets linger.
#[derive(Clone)]
pub struct Context {
    raw: zmq::Context,
}

impl Context {
    /// A context with this many I/O threads.
    ///
    /// # Errors
    /// When the program is linked with a libzmq that lacks what Scale0 needs; the error says what to add.
    pub fn new(io_threads: u8) -> Result<Self, TransportError> {
        let has = |capability| zmq::has(capability).unwrap_or(false);
        check(zmq::version(), has("curve"), has("draft"))?;
        let raw = zmq::Context::new();
        raw.set_io_threads(i32::from(io_threads))
            .map_err(|error| TransportError::refused("start I/O threads", error.into()))?;
        Ok(Self { raw })
    }

    pub(crate) const fn raw(&self) -> &zmq::Context {
        &self.raw
    }

    pub(crate) fn socket(&self, kind: zmq::SocketType) -> Result<zmq::Socket, TransportError> {
        self.raw
            .socket(kind)
            .map_err(|error| TransportError::refused("open a socket", error.into()))
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

fn check(version: (i32, i32, i32), curve: bool, draft: bool) -> Result<(), TransportError> {
    let mut lacks = Vec::new();
    if version < (4, 3, 5) {
        lacks.push("version 4.3.5");
    }
    if !curve {
        lacks.push("CURVE");
    }
    if !draft {
        lacks.push("the draft interface");
    }
    if lacks.is_empty() {
        return Ok(());
    }
    let (major, minor, patch) = version;
    Err(TransportError::Libzmq {
        found: format!("{major}.{minor}.{patch}"),
        lacks: lacks.join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libzmq_of_this_build_has_what_scale0_needs() {
        Context::new(1).unwrap();
    }

    #[test]
    fn another_libzmq_is_refused_with_the_lines_to_add() {
        let error = check((4, 3, 4), false, false).unwrap_err().to_string();
        assert!(
            error
                .starts_with("libzmq 4.3.4 with version 4.3.5, CURVE, the draft interface missing"),
            "{error}"
        );
        assert!(
            error.contains("[patch.crates-io] zmq-sys = { path ="),
            "{error}"
        );
        assert!(check((4, 3, 5), true, false).is_err());
        assert!(check((4, 3, 6), true, true).is_ok());
    }
}
