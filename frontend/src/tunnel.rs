//! Bytes both ways between a client and a backend that have switched protocols.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use scale0_wire::{End, Fields, Reason, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use crate::clock;
use crate::dispatch::Stream;
use crate::session::Delivery;

/// Moves bytes until the backend has ended, one side has failed, or nothing moved for `idle_timeout`.
///
/// Neither direction waits for the other: a client that only sends while its answers pile up is still read.
pub(crate) async fn run(on_upgrade: OnUpgrade, stream: Stream, idle_timeout: Duration) {
    let reason = match on_upgrade.await {
        Ok(client) => match relay(TokioIo::new(client), &stream, idle_timeout).await {
            Ok(reason) => reason,
            Err(_client_broke_off) => Reason::ClientGone,
        },
        Err(_) => Reason::ClientGone,
    };
    stream.cancel(reason);
}

/// Returns why the stream is no longer wanted; nothing hears of it if the stream is over.
async fn relay<C: tokio::io::AsyncRead + tokio::io::AsyncWrite>(
    client: C,
    stream: &Stream,
    idle_timeout: Duration,
) -> io::Result<Reason> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let next_idle = || Instant::from_std(clock::now()) + idle_timeout;
    let mut idle = std::pin::pin!(sleep_until(next_idle()));
    let mut incoming = BytesMut::new();
    let mut outgoing = Bytes::new();
    let (mut client_sends, mut may_upload) = (true, false);
    loop {
        incoming.reserve(limits::CONTENT);
        tokio::select! {
            () = poll_fn(|cx| stream.poll_ready(cx)), if client_sends && !may_upload => may_upload = true,
            count = from_client.read_buf(&mut incoming), if client_sends && may_upload => {
                if count? == 0 {
                    client_sends = false;
                    stream.end_upload(&End::Complete(Fields::default()));
                } else {
                    may_upload = false;
                    stream.upload(incoming.split().freeze());
                }
            }
            written = to_client.write(&outgoing), if !outgoing.is_empty() => {
                let written = written?;
                outgoing.advance(written);
                // A client that does not read holds the backend back through the stream's window.
                stream.consume(written);
                if outgoing.is_empty() {
                    to_client.flush().await?;
                }
            }
            delivery = poll_fn(|cx| stream.poll_next(cx)), if outgoing.is_empty() => match delivery {
                Delivery::Content(content) => outgoing = content,
                // The backend's end is the stream's: there is no half of it left to send to.
                Delivery::End(_) => {
                    to_client.shutdown().await?;
                    return Ok(Reason::Cancelled);
                }
                Delivery::Failed(failure) => return Ok(failure.reason),
                Delivery::Ready | Delivery::Told(_) | Delivery::Interim(_) | Delivery::Head { .. } => return Ok(Reason::ProtocolError),
            },
            () = &mut idle => return Ok(Reason::IdleTimeout),
        }
        idle.as_mut().reset(next_idle());
    }
}
