//! Where a backend goes when its broker leaves, with real brokers and sockets.

#![expect(
    clippy::unwrap_used,
    reason = "what helpers of tests unwrap is the test's business too"
)]

use std::sync::mpsc;
use std::time::Duration;

use axum::Router;
use scale0_backend::Backend;
use scale0_broker::{BrokerConfig, BrokerHandle, Neighbour, ShellConfig, draw};
use scale0_transport::{Context, Port, RouterOptions};

/// A broker that listens for backends and knows of these others.
fn broker(context: &Context, node: &str, others: Vec<Neighbour>) -> BrokerHandle {
    let mut config = BrokerConfig::new(node, "fra", draw(), draw());
    config.others = others;
    let config = ShellConfig {
        listen: vec![(Port::Backends, "tcp://127.0.0.1:*".parse().unwrap())],
        options: RouterOptions::default(),
        broker: config,
    };
    BrokerHandle::start(context, config).unwrap()
}

fn endpoint(broker: &BrokerHandle) -> String {
    broker.endpoints()[0].1.clone()
}

#[test]
fn a_backend_goes_where_its_broker_sends_it_before_that_leaves() {
    let context = Context::new(1).unwrap();
    let second = broker(&context, "second", Vec::new());
    let others = Neighbour {
        node: "second".to_owned(),
        frontends: None,
        backends: Some(endpoint(&second)),
        key: None,
    };
    let first = broker(&context, "first", vec![others]);

    let (is_registered, registered) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let backend = Backend::new("shop")
        .broker(endpoint(&first))
        .on_registered(move |node| is_registered.send(node.to_owned()).unwrap())
        .shutdown(async {
            let _ = stopped.await;
        });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let serving = runtime.spawn(backend.serve(Router::new()));
    assert_eq!(registered.recv().unwrap(), "first");
    first.drain(Duration::from_secs(30));
    assert_eq!(registered.recv().unwrap(), "second");
    assert_eq!(second.snapshot().backends.len(), 1);
    stop.send(()).unwrap();
    runtime.block_on(serving).unwrap().unwrap();
}
