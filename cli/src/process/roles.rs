//! The roles that a process plays, and how each of them ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use scale0_broker::BrokerHandle;
use scale0_frontend::Frontend;

use super::backends::Backends;
use crate::args::Role;

/// How often it is looked whether a role has ended; only while stopping.
const LOOK: Duration = Duration::from_millis(10);

/// How often it is looked whether the broker has failed.
const FAILURE_LOOK: Duration = Duration::from_secs(1);

/// What runs in this process. Clones are the same roles.
#[derive(Clone, Default)]
pub(super) struct Roles {
    pub(super) broker: Option<Arc<BrokerHandle>>,
    pub(super) backends: Vec<Arc<Backends>>,
    pub(super) frontend: Option<Arc<Frontend>>,
}

impl Roles {
    /// The role of that name.
    ///
    /// # Errors
    /// The roles this process plays, if that is none of them.
    pub(super) fn named(&self, name: &str) -> Result<Role, String> {
        let played: Vec<Role> = [Role::Frontend, Role::Bridge, Role::Broker]
            .into_iter()
            .filter(|role| match role {
                Role::Frontend => self.frontend.is_some(),
                Role::Bridge => !self.backends.is_empty(),
                Role::Broker => self.broker.is_some(),
            })
            .collect();
        let found = played.iter().find(|role| role.name() == name);
        found.copied().ok_or_else(|| {
            let played: Vec<&str> = played.iter().map(|role| role.name()).collect();
            let played = played.join(", ");
            format!("this process has no role {name:?}; it has: {played}")
        })
    }

    /// Drains one role; the others go on.
    ///
    /// # Cancel safety
    /// The drain goes on when this is dropped.
    pub(super) async fn drain(self, role: Role, within: Duration) {
        let is_done = match role {
            Role::Frontend => match &self.frontend {
                Some(frontend) => frontend.drain(within).await,
                None => true,
            },
            Role::Broker => match &self.broker {
                Some(broker) => {
                    broker.drain(within);
                    until(within, || broker.is_over()).await
                }
                None => true,
            },
            Role::Bridge => self.drain_backends(within).await,
        };
        let role = role.name();
        if is_done {
            tracing::info!(role, "drained");
        } else {
            tracing::warn!(role, "the time for draining has passed with work under way");
        }
    }

    async fn drain_backends(&self, within: Duration) -> bool {
        let started = now();
        let mut all = true;
        for backends in &self.backends {
            backends.start_drain();
        }
        for backends in &self.backends {
            let left = within.saturating_sub(started.elapsed());
            all &= until(left, || backends.running() == 0).await;
        }
        all
    }

    /// Stops role after role, in the order in which requests pass through them, all `within` this time.
    pub(super) async fn stop(&self, within: Duration) {
        let started = now();
        let left = || within.saturating_sub(started.elapsed());
        if let Some(frontend) = &self.frontend {
            if !frontend.drain(left()).await {
                tracing::warn!(
                    "the time for draining has passed with requests under way; they are cut off"
                );
            }
            frontend.stop().await;
        }
        if !self.drain_backends(left()).await {
            tracing::warn!(
                "the time for draining has passed with backends at work; they are cut off"
            );
        }
        if let Some(broker) = &self.broker {
            broker.drain(left());
            if !until(left() + LOOK, || broker.is_over()).await {
                tracing::warn!("the broker did not leave in time");
            }
        }
    }

    /// Waits until the broker has failed: for ever, as a rule.
    pub(super) async fn broker_failed(&self) {
        let has_failed = || {
            self.broker
                .as_ref()
                .is_some_and(|broker| broker.has_failed())
        };
        while !has_failed() {
            tokio::time::sleep(FAILURE_LOOK).await;
        }
    }
}

/// Waits until `is_done`, or until `within` has passed; says which.
pub(super) async fn until(within: Duration, is_done: impl Fn() -> bool) -> bool {
    let done = async {
        while !is_done() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(within, done).await.is_ok()
}

#[expect(clippy::disallowed_methods, reason = "the shell's clock")]
fn now() -> Instant {
    Instant::now()
}
