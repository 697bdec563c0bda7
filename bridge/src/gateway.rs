//! The bridge as a backend: what its application makes of a request, in the words of brokers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::UPGRADE;
use http::{HeaderMap, Request, Response, StatusCode};
use scale0_backend::upgrade::{self, OnUpgrade};
use scale0_backend::{Backend, Body, NotStarted, RequestContext, Throttle, Unanswered};
use tokio::io::AsyncWriteExt;
use tower_service::Service;

use crate::bridge::Bridge;
use crate::connection::Connection;
use crate::content::Content;
use crate::error::BridgeError;
use crate::forward::{Answer, Asker, Shared};
use crate::origin::Seat;
use crate::stream::Stream;

impl Bridge<Body> {
    /// Serves as this backend, until it has drained. The services and the concurrency are the bridge's.
    ///
    /// The application is asked how it is before the first broker; while it takes no connections, no broker has credit.
    ///
    /// # Errors
    /// What [`Backend::serve`] says.
    ///
    /// # Cancel safety
    /// Dropped, it leaves at once: requests in flight are cancelled.
    pub async fn serve(self, backend: Backend) -> Result<(), scale0_backend::Error> {
        let config = &self.shared.config;
        let backend = backend
            .services(config.services.iter().cloned())
            .concurrency(config.concurrency.get());
        self.throttle(backend.throttle(), config.concurrency.get());
        self.probe().await;
        tokio::select! {
            never = self.watch() => match never {},
            served = backend.serve(self.gateway()) => served,
        }
    }

    /// What [`Bridge::serve`] serves, for whoever drives the backends themselves: what the application refuses is not started,
    /// interim responses are passed on and connections switch protocols. Somebody has to [`Bridge::watch`] as well, and each of the
    /// backends wants to be [throttled](Self::throttle).
    #[must_use]
    pub fn gateway(&self) -> Gateway {
        Gateway(self.shared.clone())
    }

    /// Limits a backend that serves this bridge's [gateway](Self::gateway) to nothing while the application is down, and to this
    /// many requests otherwise. Its brokers hear of that before the request by which it was found out is refused.
    pub fn throttle(&self, throttle: Throttle, concurrency: u32) {
        let limit = move |is_up| throttle.limit(if is_up { concurrency } else { 0 });
        self.shared.origins.follow(Box::new(limit));
    }
}

/// The service that a backend calls; see [`Bridge::gateway`].
#[derive(Clone)]
pub struct Gateway(Arc<Shared<Body>>);

impl Service<Request<Body>> for Gateway {
    type Response = Response<Content<Body>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(answer(self.0.clone(), request))
    }
}

async fn answer(
    shared: Arc<Shared<Body>>,
    request: Request<Body>,
) -> Result<Response<Content<Body>>, Infallible> {
    let wants_upgrade = request.headers().contains_key(UPGRADE);
    let tunnel = wants_upgrade.then(|| upgrade::on(&request));
    let context = request.extensions().get::<RequestContext>().cloned();
    let asker = Asker {
        on_interim: context.map(|context| {
            move |status: StatusCode, fields: &HeaderMap| context.interim(status, fields)
        }),
        can_upgrade: tunnel.is_some(),
    };
    Ok(match shared.clone().forward(request, asker).await {
        Ok(Answer::Response(response)) => response,
        Ok(Answer::Upgrade {
            head,
            stream,
            already_read,
            seat,
        }) => {
            if let Some(tunnel) = tunnel {
                // It ends with the tunnel, which ends with the client, the application or the backend.
                tokio::spawn(relay(tunnel, stream, already_read, seat));
            }
            head.map(|()| Content::empty(shared))
        }
        Err(error) => explain(shared, &error),
    })
}

/// In the place of an answer that is missing.
fn explain(shared: Arc<Shared<Body>>, error: &BridgeError) -> Response<Content<Body>> {
    tracing::debug!(%error, "no answer");
    let retry_after = Some(shared.config.health.backoff);
    let mut response = Response::new(Content::empty(shared));
    *response.status_mut() = match error {
        BridgeError::Refused(_) => {
            let not_started = NotStarted { retry_after };
            response.extensions_mut().insert(not_started);
            StatusCode::SERVICE_UNAVAILABLE
        }
        BridgeError::Failed { .. } => {
            response.extensions_mut().insert(Unanswered);
            StatusCode::BAD_GATEWAY
        }
        // Nobody is there to read it: the client is gone, or its frontend.
        BridgeError::ContentLost(_) => StatusCode::BAD_REQUEST,
    };
    response
}

/// Carries bytes of the other protocol both ways, until either side ends or breaks off.
async fn relay(
    tunnel: OnUpgrade,
    mut app: Stream,
    already_read: Bytes,
    _until_over: Seat<Box<Connection<Body>>>,
) {
    let Ok(mut client) = tunnel.await else {
        return;
    };
    let relayed = async {
        client.write_all(&already_read).await?;
        tokio::io::copy_bidirectional(&mut client, &mut app).await
    };
    if let Err(error) = relayed.await {
        tracing::debug!(%error, "a tunnel broke off");
    }
}
