//! The bridge as its users see it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response, StatusCode};
use tokio::sync::watch;
use tower_service::Service;

use crate::config::{BridgeConfig, ConfigError};
use crate::content::Content;
use crate::counters::{Counters, Counts};
use crate::error::BridgeError;
use crate::forward::{Answer, Asker, Shared};
use crate::origin::Origins;
use crate::upload::RequestBody;

/// Takes requests to an application that speaks HTTP/1.1. Clones are the same bridge.
pub struct Bridge<B: RequestBody> {
    pub(crate) shared: Arc<Shared<B>>,
}

impl<B: RequestBody> Clone for Bridge<B> {
    fn clone(&self) -> Self {
        let shared = self.shared.clone();
        Self { shared }
    }
}

impl<B: RequestBody> Bridge<B> {
    /// A bridge with these settings. It connects when the first request comes.
    ///
    /// # Errors
    /// Settings that leave nothing to bridge.
    pub fn new(config: BridgeConfig) -> Result<Self, ConfigError> {
        if config.upstreams.is_empty() {
            return Err(ConfigError::NoUpstream);
        }
        if config.services.is_empty() {
            return Err(ConfigError::NoService);
        }
        let shared = Arc::new(Shared {
            origins: Origins::new(&config.upstreams, config.idle_connections),
            config,
            counters: Counters::default(),
        });
        Ok(Self { shared })
    }

    /// Probes the upstreams and drops idle connections past their time, until dropped. Without it an upstream that went down
    /// is never sent anything again.
    pub async fn watch(&self) -> Infallible {
        self.shared.watch().await
    }

    /// Probes every upstream once: those that are not well are down.
    pub async fn probe(&self) {
        self.shared.probe_all().await;
    }

    /// Whether any upstream is up, as it changes.
    #[must_use]
    pub fn any_up(&self) -> watch::Receiver<bool> {
        self.shared.origins.any_up()
    }

    /// What it has counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    /// How many connections are kept for the next requests.
    #[must_use]
    pub fn idle_connections(&self) -> usize {
        let idle = self.shared.origins.iter().map(|origin| origin.idle.len());
        idle.sum()
    }
}

impl<B: RequestBody> Service<Request<B>> for Bridge<B> {
    type Response = Response<Content<B>>;
    type Error = BridgeError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BridgeError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BridgeError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move {
            let asker = Asker {
                on_interim: None::<fn(StatusCode, &HeaderMap) -> bool>,
                can_upgrade: false,
            };
            match shared.forward(request, asker).await? {
                Answer::Response(response) => Ok(response),
                Answer::Upgrade { .. } => unreachable!("this asker cannot upgrade"),
            }
        })
    }
}
