//! A link between machines, played by a relay: what comes in goes out so much later, in order; and it can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Bytes read at a time.
const PIECE: usize = 64 * 1024;

/// Pieces on their way in one direction; beyond them the sender is not read, as on a link that is full.
const ON_THE_WAY: usize = 1024;

/// Relays connections to one address. It ends when dropped, its connections with it.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    /// Counts the cuts.
    cut: watch::Sender<usize>,
    relayed: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Accepts on a port of its own and relays to `to`, each direction late by `delay`.
    pub(crate) async fn start(to: SocketAddr, delay: Duration) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (cut, cuts) = watch::channel(0);
        let relayed = Arc::default();
        let accepting = tokio::spawn(accept(listener, to, delay, cuts, Arc::clone(&relayed)));
        Ok(Self {
            address,
            cut,
            relayed,
            accepting,
        })
    }

    /// Where it accepts.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection; new ones are accepted.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// How many connections it has made.
    pub(crate) fn relayed(&self) -> usize {
        self.relayed.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    to: SocketAddr,
    delay: Duration,
    cuts: watch::Receiver<usize>,
    relayed: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let (mut cuts, relayed) = (cuts.clone(), Arc::clone(&relayed));
        cuts.mark_unchanged();
        connections.spawn(async move {
            // Nobody there: the dialler finds its connection closed.
            let Ok(far) = TcpStream::connect(to).await else {
                return;
            };
            relayed.fetch_add(1, Ordering::Relaxed);
            for stream in [&near, &far] {
                let _ = stream.set_nodelay(true);
            }
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            tokio::select! {
                () = pass(near_in, far_out, delay) => {}
                () = pass(far_in, near_out, delay) => {}
                _ = cuts.changed() => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Passes on what comes until either end is closed.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Duration) {
    let (send, mut receive) = mpsc::channel::<(Instant, Bytes)>(ON_THE_WAY);
    let read = async {
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            let due = Instant::now() + delay;
            let piece = Bytes::copy_from_slice(&piece[..length]);
            if send.send((due, piece)).await.is_err() {
                break;
            }
        }
        drop(send);
    };
    let write = async {
        while let Some((due, piece)) = receive.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
        drop(receive);
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener, a relay to it that is late by 30 ms, and both ends of a connection through it.
    async fn relayed() -> (Relay, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let delay = Duration::from_millis(30);
        let relay = Relay::start(listener.local_addr().unwrap(), delay)
            .await
            .unwrap();
        let near = TcpStream::connect(relay.address()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        (relay, near, far)
    }

    #[tokio::test]
    async fn what_is_said_arrives_whole_and_late() {
        let (relay, mut near, mut far) = relayed().await;
        let begun = Instant::now();
        near.write_all(b"how do you do").await.unwrap();
        let mut heard = [0; 13];
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"how do you do");
        assert!(Duration::from_millis(30) <= begun.elapsed());
        assert_eq!(relay.relayed(), 1);
    }

    #[tokio::test]
    async fn a_cut_ends_what_is_there_and_nothing_later() {
        let (relay, mut near, mut far) = relayed().await;
        relay.cut();
        let mut heard = [0; 1];
        assert!(matches!(far.read(&mut heard).await, Ok(0) | Err(_)));
        assert!(matches!(near.read(&mut heard).await, Ok(0) | Err(_)));
        // The listener in `relayed` is gone, so a new connection is accepted and then closed.
        assert!(TcpStream::connect(relay.address()).await.is_ok());
    }
}
