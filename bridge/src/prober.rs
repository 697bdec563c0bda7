//! Watches over the upstreams: probes them, and drops idle connections past their time.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::future;
use http::header::{CONNECTION, HOST};
use http::uri::PathAndQuery;
use http::{Request, Uri, uri};

use crate::clock;
use crate::condition::Condition;
use crate::config::{Health, Upstream};
use crate::connection::{Connection, Lost};
use crate::error::BoxError;
use crate::forward::Shared;
use crate::origin::Origin;
use crate::upload::{RequestBody, Upload};

/// How often idle connections are looked through. What the application has closed meanwhile holds a descriptor so long.
const SWEEP: Duration = Duration::from_secs(1);

impl<B: RequestBody> Shared<B> {
    /// Asks every upstream once. One that is not well before its first request is given none.
    pub(crate) async fn probe_all(&self) {
        let probes = self.origins.iter().map(async |origin| {
            if !self.is_well(origin).await {
                self.origins.judge(origin, Condition::refused);
            }
        });
        future::join_all(probes).await;
    }

    /// Keeps watch until dropped.
    pub(crate) async fn watch(&self) -> Infallible {
        let probing = self.origins.iter().map(|origin| self.keep_probing(origin));
        tokio::select! {
            never = self.keep_sweeping() => never,
            _ = future::join_all(probing) => future::pending().await,
        }
    }

    async fn keep_probing(&self, origin: &Arc<Origin<Box<Connection<B>>>>) -> Infallible {
        let health = &self.config.health;
        loop {
            let next = |condition: &mut Condition| condition.next_probe(health, jitter());
            let delay = self.origins.judge(origin, next);
            let probe_is_due = async {
                match delay {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                () = probe_is_due => {
                    let well = self.is_well(origin).await;
                    self.origins.judge(origin, |condition| condition.probed(well, health));
                }
                // The next probe is due by another measure now.
                () = origin.went_down.notified() => {}
            }
        }
    }

    async fn is_well(&self, origin: &Origin<Box<Connection<B>>>) -> bool {
        self.counters.probes.add_one();
        let health = &self.config.health;
        let answer = ask::<B>(&origin.upstream, health);
        let error = match tokio::time::timeout(health.timeout, answer).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error,
            Err(elapsed) => elapsed.into(),
        };
        self.counters.probes_failed.add_one();
        if origin.is_up() {
            tracing::warn!(upstream = %origin.upstream, %error, "the application fails a probe");
        } else {
            tracing::debug!(upstream = %origin.upstream, %error, "probe failed");
        }
        false
    }

    async fn keep_sweeping(&self) -> Infallible {
        loop {
            tokio::time::sleep(SWEEP).await;
            let mut silent = Context::from_waker(Waker::noop());
            for origin in self.origins.iter() {
                origin.idle.sweep(clock::now(), |connection| {
                    connection.poll(&mut silent).is_pending() && connection.is_idle()
                });
            }
        }
    }
}

/// A connect, and where there is a path a request for it on a connection of its own.
async fn ask<B: RequestBody>(upstream: &Upstream, health: &Health) -> Result<(), BoxError> {
    let mut connection = Connection::<B>::open(upstream, health.timeout).await?;
    let Some(path) = &health.path else {
        return Ok(());
    };
    let host = match upstream {
        Upstream::Tcp { .. } => upstream.to_string().split_off("http://".len()),
        Upstream::Unix(_) => "localhost".to_owned(),
    };
    let request = Request::builder()
        .uri(origin_form(path)?)
        .header(HOST, host)
        .header(CONNECTION, "close")
        .header("user-agent", "scale0-bridge")
        .body(Upload::Whole(None))?;
    match connection.exchange(request).await {
        Ok(response) if response.status().is_success() || response.status().is_redirection() => {
            Ok(())
        }
        Ok(response) => Err(format!("{path} answers {}", response.status()).into()),
        Err(Lost::Unsent(_)) => Err("closed the connection at once".into()),
        Err(Lost::Sent { error, .. }) => Err(error.into()),
    }
}

fn origin_form(path: &PathAndQuery) -> Result<Uri, http::Error> {
    let mut parts = uri::Parts::default();
    parts.path_and_query = Some(path.clone());
    Ok(Uri::from_parts(parts)?)
}

/// Between 0 and 1, a different one each time. Nobody's security hangs on it.
fn jitter() -> f64 {
    let random = RandomState::new().hash_one(()) >> 32;
    random as f64 / f64::from(u32::MAX)
}
