//! Listening sockets: bound by this process, or open since before it began.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

/// Connections that the kernel keeps for us until they are accepted; it may cut this down (`net.core.somaxconn`).
pub(crate) const BACKLOG: u16 = 4096;

/// A TCP socket that listens, and whose it is when this process has left it.
///
/// The kernel has one queue of connections per socket, however many processes and descriptors share it. It is reset when the last
/// descriptor is closed; so a socket that outlives the process loses nobody.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    is_held: bool,
}

impl Listener {
    /// Binds an address so that as many connections can wait as may come at once. Port 0 takes any that is free.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )?;
        if address.is_ipv6() {
            // "[::]" is for those who mean both; IPv4 has an address of its own.
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(i32::from(BACKLOG))?;
        let socket = TcpListener::from(socket);
        Ok(Self {
            address: socket.local_addr()?,
            socket,
            is_held: false,
        })
    }

    /// Takes a socket that listens already. `is_held`: whoever gave it keeps it open for who comes next, as a service manager
    /// does.
    ///
    /// # Errors
    /// When it is no TCP socket, or does not listen.
    pub fn inherited(socket: TcpListener, is_held: bool) -> io::Result<Self> {
        let is_listening = {
            let socket = SockRef::from(&socket);
            let is_tcp = socket.r#type()? == Type::STREAM
                && matches!(socket.domain()?, Domain::IPV4 | Domain::IPV6);
            is_tcp && socket.is_listener()?
        };
        if !is_listening {
            let kind = io::ErrorKind::InvalidInput;
            return Err(io::Error::new(kind, "not a TCP socket that listens"));
        }
        socket.set_nonblocking(true)?;
        // Where a process before us has let nobody in any more; as a rule there is nothing to remove.
        _ = SockRef::from(&socket).detach_filter();
        Ok(Self {
            address: socket.local_addr()?,
            socket,
            is_held,
        })
    }

    /// Where it listens; with the port that was found for port 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether somebody else keeps it open when this process has left it.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.is_held
    }

    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// When there is no descriptor to be had.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            ..*self
        })
    }

    /// The socket alone, which does not block.
    #[must_use]
    pub fn into_socket(self) -> TcpListener {
        self.socket
    }
}

/// Who has a socket when this process leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    /// Nobody: closing it resets who waits in its queue.
    Nobody,
    /// Whoever gave it to us. Who waits is accepted when the next process comes, or never.
    Holder,
    /// A process that accepts from now on.
    Successor,
}

/// A socket that is accepted from, as the rest of the process sees it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    /// For a successor; none once this process leaves it, as the socket is open until its last descriptor is closed.
    spare: Mutex<Option<Listener>>,
    others: Mutex<Others>,
    is_open: AtomicBool,
    is_left: AtomicBool,
}

impl Place {
    /// Of a socket that is about to be accepted from.
    ///
    /// # Errors
    /// When there is no descriptor to be had.
    pub(crate) fn of(listener: &Listener) -> io::Result<Self> {
        Ok(Self {
            address: listener.address(),
            spare: Mutex::new(Some(listener.try_clone()?)),
            others: Mutex::new(if listener.is_held() {
                Others::Holder
            } else {
                Others::Nobody
            }),
            is_open: AtomicBool::new(false),
            is_left: AtomicBool::new(false),
        })
    }

    /// From now on it is this process that accepts here.
    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::Release);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// A descriptor for another process; none once this one leaves it.
    ///
    /// # Errors
    /// When there is no descriptor to be had.
    pub(crate) fn spare(&self) -> io::Result<Option<Listener>> {
        self.spare
            .lock()
            .as_ref()
            .map(Listener::try_clone)
            .transpose()
    }

    /// Another process accepts here as soon as this one does not.
    pub(crate) fn has_successor(&self) {
        *self.others.lock() = Others::Successor;
    }

    /// This process is about to leave it; says whose it is then.
    pub(crate) fn leave(&self) -> Others {
        *self.spare.lock() = None;
        *self.others.lock()
    }

    /// Nothing is accepted here any more.
    pub(crate) fn left(&self) {
        self.is_left.store(true, Ordering::Release);
    }

    pub(crate) fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Acquire)
    }
}

/// From here on no connection begins, while handshakes under way go on: the kernel drops what has SYN without ACK. Who sent it
/// tries again a second later, and finds our successor or nobody. It is the socket that does so, not this descriptor of it: only for
/// one that nobody else has.
pub(crate) fn let_nobody_in(listener: &SockRef<'_>) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Where the flags are in a TCP header, and two of them (RFC 9293 §3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    listener.attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpStream, UdpSocket};
    use std::os::fd::OwnedFd;

    fn anywhere() -> Listener {
        Listener::bind(([127, 0, 0, 1], 0).into()).unwrap()
    }

    #[test]
    fn only_a_tcp_socket_that_listens_is_inherited() {
        let held = anywhere();
        let address = held.address();
        let inherited = Listener::inherited(held.into_socket(), true).unwrap();
        assert_eq!(inherited.address(), address);
        assert!(inherited.is_held());
        let connected = TcpStream::connect(address).unwrap();
        let datagrams = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        for other in [OwnedFd::from(connected), datagrams.into(), pair.into()] {
            Listener::inherited(other.into(), true).unwrap_err();
        }
    }

    #[test]
    fn a_socket_that_let_nobody_in_lets_its_heir_accept() {
        let left = anywhere();
        let address = left.address();
        let given = left.try_clone().unwrap();
        let_nobody_in(&SockRef::from(&left.socket)).unwrap();
        drop(left);
        let inherited = Listener::inherited(given.into_socket(), false).unwrap();
        let client = std::thread::spawn(move || TcpStream::connect(address).map(drop));
        client.join().unwrap().unwrap();
        inherited.into_socket().accept().unwrap();
    }

    #[test]
    fn a_place_that_is_left_has_nothing_to_hand_over() {
        let listener = anywhere();
        let place = Place::of(&listener).unwrap();
        assert!(place.spare().unwrap().is_some());
        assert_eq!(place.leave(), Others::Nobody);
        assert!(place.spare().unwrap().is_none());
    }
}
