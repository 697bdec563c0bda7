//! The listening sockets go from a process to its successor, which is started beside it.
//!
//! The old process waits on a Unix socket. The new one connects and is *offered* descriptors of the listening sockets; when it is
//! *ready* to serve it says so and which of them it uses; the old one stops to accept, and says that it is the new one's *turn*.
//! So at each moment one of them accepts, and nobody's connection is reset, as the sockets are never closed. Until it is ready,
//! the new one may die and nothing has happened; after that the old one may, and the new one goes on alone.
//!
//! Each message is a line of JSON. What a version does not know it leaves alone, so both sides may be of different ones.

use std::fs::Permissions;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::geteuid;
use scale0_frontend::Listener;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::sockets::{Given, Whose};

/// How long an offer, or the word that it is the new one's turn, may take a process that has nothing else to do first.
const ANSWER: Duration = Duration::from_secs(10);

/// How long the old process waits for the new one to be ready: somewhat longer than that gives itself.
const READY: Duration = Duration::from_secs(75);

/// How long the old process rests when the system has no descriptor for a connection.
const REST: Duration = Duration::from_millis(500);

/// Sockets in one hand-over: more than any node listens on, and less than Linux takes in one message (253).
const SOCKETS: usize = 128;

/// The longest line: that of an offer, with room for what later versions add.
const LINE: usize = 64 * 1024;

/// What the old process offers.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    /// One for each descriptor that comes along, in their order.
    sockets: Vec<Offered>,
}

/// A socket on offer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Offered {
    whose: Whose,
    /// Whether a service manager keeps it open as well.
    held: bool,
}

/// The new process is ready.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    /// It uses these sockets, by their places in the offer.
    uses: Vec<usize>,
}

/// Nobody else accepts on those sockets any more.
#[derive(Debug, Serialize, Deserialize)]
struct Turn {}

/// Where a process waits for its successor.
#[derive(Debug)]
pub(super) struct Post {
    listener: UnixListener,
    path: PathBuf,
    /// The file that is this process's, to be removed.
    file: Option<PathBuf>,
}

impl Post {
    /// Makes the socket, under another name until [`Post::publish`]: only this user's processes may connect.
    ///
    /// # Errors
    /// When it cannot be made, or something else is there.
    pub(super) fn prepare(path: &Path) -> anyhow::Result<Self> {
        let prepare = || {
            match std::fs::symlink_metadata(path) {
                Ok(there) if !there.file_type().is_socket() => {
                    return Err(io::Error::new(ErrorKind::AlreadyExists, "it is no socket"));
                }
                Ok(_) | Err(_) => {}
            }
            let new = new_name(path);
            match std::fs::remove_file(&new) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let listener = UnixListener::bind(&new)?;
            // Whoever was quicker than this is found out by its user id.
            std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let listener = prepare().with_context(|| in_file(path))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: Some(new_name(path)),
        })
    }

    /// Takes the place of whoever waited there before.
    ///
    /// # Errors
    /// When the file cannot be renamed.
    pub(super) fn publish(&mut self) -> anyhow::Result<()> {
        std::fs::rename(new_name(&self.path), &self.path).with_context(|| in_file(&self.path))?;
        self.file = Some(self.path.clone());
        Ok(())
    }

    /// The successor has published its own, or is about to.
    pub(super) fn leave_to_successor(&mut self) {
        self.file = None;
    }

    /// Waits for a process that is ready to take these sockets over. Those that turn out not to be are no matter.
    pub(super) async fn successor(
        &self,
        sockets: impl Fn() -> anyhow::Result<Vec<(Whose, Listener)>>,
    ) -> Successor {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match Successor::prepare(stream, &sockets).await {
                    Ok(successor) => return successor,
                    Err(error) => tracing::warn!(
                        error = format!("{error:#}"),
                        "nothing was handed over, and this process goes on"
                    ),
                },
                Err(error) => {
                    tracing::warn!(%error, "a successor's connection could not be accepted");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // If it cannot be removed, the next process finds nobody behind it.
            _ = std::fs::remove_file(file);
        }
    }
}

/// A process that is ready to take over.
#[derive(Debug)]
pub(super) struct Successor {
    stream: UnixStream,
    /// The sockets it uses, by their places among those it was offered.
    pub(super) uses: Vec<usize>,
}

impl Successor {
    async fn prepare(
        stream: UnixStream,
        sockets: impl Fn() -> anyhow::Result<Vec<(Whose, Listener)>>,
    ) -> anyhow::Result<Self> {
        let pid = trusted(&stream)?;
        let sockets = sockets()?;
        ensure!(
            sockets.len() <= SOCKETS,
            "{} sockets are more than can be handed over at once, {SOCKETS}",
            sockets.len()
        );
        let offered = sockets.iter().map(|(whose, listener)| Offered {
            whose: *whose,
            held: listener.is_held(),
        });
        let offer = Offer {
            sockets: offered.collect(),
        };
        let sockets: Vec<TcpListener> = sockets
            .into_iter()
            .map(|(_, listener)| listener.into_socket())
            .collect();
        timeout(ANSWER, send(&stream, &offer, &sockets))
            .await
            .context("the successor does not read")??;
        let count = sockets.len();
        tracing::info!(pid, sockets = count, "a successor was offered the sockets");
        let said = timeout(READY, receive::<Ready>(&stream)).await;
        let said = said.with_context(|| format!("process {pid} was not ready within {READY:?}"))?;
        let (ready, _) =
            said.with_context(|| format!("process {pid} has gone before it was ready"))?;
        ensure!(
            ready.uses.iter().all(|&index| index < sockets.len()),
            "process {pid} wants sockets that there are not"
        );
        Ok(Self {
            stream,
            uses: ready.uses,
        })
    }

    /// Tells it that nobody else accepts any more.
    pub(super) async fn take_turn(self) {
        let told = timeout(ANSWER, send(&self.stream, &Turn {}, &[])).await;
        if !matches!(told, Ok(Ok(()))) {
            tracing::error!("the successor has died after it was ready; it has the sockets");
        }
    }
}

/// A process that accepts until this one is ready.
#[derive(Debug)]
pub(super) struct Predecessor {
    stream: UnixStream,
    pid: i32,
}

impl Predecessor {
    /// Asks whoever waits at this path for its sockets; `None`: nobody does.
    ///
    /// # Errors
    /// When somebody does who must not be believed, or does not answer: its sockets cannot be bound either.
    pub(super) async fn find(path: &Path) -> anyhow::Result<Option<(Self, Vec<Given>)>> {
        let stream = match UnixStream::connect(path).await {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| in_file(path)),
        };
        let pid = trusted(&stream).with_context(|| in_file(path))?;
        let offer = timeout(ANSWER, receive::<Offer>(&stream)).await;
        let offer = offer.with_context(|| {
            format!("process {pid} offers nothing: it is stopped, or another successor is starting")
        })?;
        let (offer, sockets) = match offer {
            Ok(offer) => offer,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                tracing::info!(pid, "a process that was to hand over is ending");
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("the offer of process {pid}")),
        };
        ensure!(
            sockets.len() == offer.sockets.len(),
            "process {pid} offers {} sockets, and {} have come: `ulimit -n` may be too low",
            offer.sockets.len(),
            sockets.len()
        );
        let given = sockets.into_iter().zip(offer.sockets).enumerate();
        let given = given.map(|(index, (socket, offered))| {
            Ok(Given {
                listener: Listener::inherited(socket.into(), offered.held)
                    .with_context(|| format!("socket {index} of process {pid}"))?,
                whose: Some(offered.whose),
                label: format!("socket {index} of process {pid}"),
            })
        });
        let given = given.collect::<anyhow::Result<Vec<_>>>()?;
        tracing::info!(
            pid,
            sockets = given.len(),
            "takes over from a running process"
        );
        Ok(Some((Self { stream, pid }, given)))
    }

    /// Says that this process is ready, and which of the sockets it uses; returns when the other accepts no more, or is no more.
    pub(super) async fn relieve(self, uses: Vec<usize>) {
        let pid = self.pid;
        let relieved = async {
            send(&self.stream, &Ready { uses }, &[]).await?;
            receive::<Turn>(&self.stream).await
        };
        match timeout(ANSWER, relieved).await {
            Ok(Ok(_)) => tracing::info!(pid, "has taken over"),
            Ok(Err(error)) => {
                tracing::warn!(pid, %error, "the process before this one is gone: goes on alone");
            }
            // A stopped one accepts nothing; should it go on, both accept, and it hears that it is to leave.
            Err(_) => tracing::warn!(pid, "the process before this one does not answer: goes on"),
        }
    }
}

/// The process at the other end, which must be of the same user, or root's.
fn trusted(stream: &UnixStream) -> anyhow::Result<i32> {
    let (peer, own) = (stream.peer_cred()?, geteuid().as_raw());
    if peer.uid() != own && peer.uid() != 0 {
        bail!(
            "user {} is at the other end, and this process is of user {own}",
            peer.uid()
        );
    }
    Ok(peer.pid().unwrap_or_default())
}

fn new_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn in_file(path: &Path) -> String {
    format!("frontend.handover = {path:?}")
}

/// Sends a line, and with it these descriptors.
async fn send(
    stream: &UnixStream,
    message: &impl Serialize,
    sockets: &[TcpListener],
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let mut sent = 0;
    while sent < line.len() {
        sent += stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                // With the first byte, and never again.
                if sent == 0 && !sockets.is_empty() {
                    control.push(SendAncillaryMessage::ScmRights(&sockets));
                }
                let rest = [IoSlice::new(&line[sent..])];
                Ok(sendmsg(stream, &rest, &mut control, SendFlags::NOSIGNAL)?)
            })
            .await?;
    }
    Ok(())
}

/// Receives a line, and the descriptors that come with it.
async fn receive<T: for<'de> Deserialize<'de>>(
    stream: &UnixStream,
) -> io::Result<(T, Vec<OwnedFd>)> {
    let (mut line, mut sockets) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; LINE];
    while line.last() != Some(&b'\n') {
        let received = stream
            .async_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let into = &mut [IoSliceMut::new(&mut buffer)];
                let received = recvmsg(stream, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(received) = message {
                        sockets.extend(received);
                    }
                }
                Ok(received.bytes)
            })
            .await?;
        if received == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(&buffer[..received]);
        if LINE < line.len() {
            return Err(io::Error::new(ErrorKind::InvalidData, "it does not end"));
        }
    }
    Ok((serde_json::from_slice(&line)?, sockets))
}
