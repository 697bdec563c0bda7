//! An application that does exactly what a test says, and bodies to send to it.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use scale0_bridge::{Bridge, BridgeConfig, BridgeError, Content, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;
pub(crate) type Answer = Result<Response<Content<Body>>, BridgeError>;

fn never(never: Infallible) -> BoxError {
    match never {}
}

pub(crate) fn nothing() -> Body {
    Empty::new().map_err(never).boxed_unsync()
}

pub(crate) fn whole(content: &'static str) -> Body {
    Full::from(content).map_err(never).boxed_unsync()
}

pub(crate) fn streamed(
    frames: impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + 'static,
) -> Body {
    StreamBody::new(frames).boxed_unsync()
}

pub(crate) fn endless() -> Body {
    let chunk = || Ok(Frame::data(Bytes::from_static(&[b'x'; 64 * 1024])));
    streamed(futures_util::stream::repeat_with(chunk).boxed())
}

pub(crate) fn get(target: &str) -> Request<Body> {
    request("GET", target, nothing())
}

pub(crate) fn request(method: &str, target: &str, body: Body) -> Request<Body> {
    let request = Request::builder().method(method).uri(target);
    request
        .header("host", "shop.example")
        .body(body)
        .expect("a sound request")
}

pub(crate) fn bridge(upstreams: &[Upstream]) -> Bridge<Body> {
    with(upstreams, |_| {})
}

pub(crate) fn with(upstreams: &[Upstream], change: impl FnOnce(&mut BridgeConfig)) -> Bridge<Body> {
    let mut config = BridgeConfig::new(vec!["shop.example".into()], upstreams.to_vec());
    change(&mut config);
    Bridge::new(config).expect("a sound configuration")
}

pub(crate) async fn send(bridge: &Bridge<Body>, request: Request<Body>) -> Answer {
    bridge.clone().call(request).await
}

/// The whole content as text, or what broke it off.
pub(crate) async fn text(response: Response<Content<Body>>) -> Result<String, BridgeError> {
    let content = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// The application's listening socket.
pub(crate) struct App(TcpListener);

impl App {
    pub(crate) async fn listen() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
    }

    pub(crate) fn upstream(&self) -> Upstream {
        let address = self.0.local_addr().expect("a bound socket");
        format!("http://{address}").parse().expect("an address")
    }

    pub(crate) async fn accept(&self) -> Peer {
        Peer(self.0.accept().await.expect("a connection").0)
    }

    /// Takes one connection and one request on it.
    pub(crate) async fn take(&self) -> (Peer, String) {
        let mut peer = self.accept().await;
        let request = peer.request().await;
        (peer, request)
    }
}

/// An upstream that nobody listens on.
pub(crate) async fn nobody() -> Upstream {
    App::listen().await.upstream()
}

/// One connection from the bridge, as the application has it.
pub(crate) struct Peer<S = TcpStream>(pub(crate) S);

impl<S: AsyncReadExt + AsyncWriteExt + Unpin> Peer<S> {
    /// A request's head, and its content where `Content-Length` tells its end.
    pub(crate) async fn request(&mut self) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            read.push(self.0.read_u8().await.expect("a whole head"));
        }
        let head = String::from_utf8_lossy(&read).into_owned();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().expect("a number"));
        let mut content = vec![0; length];
        self.0
            .read_exact(&mut content)
            .await
            .expect("the whole content");
        head + &String::from_utf8_lossy(&content)
    }

    pub(crate) async fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).await.expect("a reader");
    }

    pub(crate) async fn answer(&mut self, content: &str) {
        let length = content.len();
        self.send(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{content}"
        ))
        .await;
    }

    /// Takes a request and answers it.
    pub(crate) async fn serve(&mut self, content: &str) -> String {
        let request = self.request().await;
        self.answer(content).await;
        request
    }

    /// Until the bridge closes; what it sent before.
    pub(crate) async fn closed(mut self) -> usize {
        let mut rest = Vec::new();
        // A reset closes as well as an end does.
        let _ = self.0.read_to_end(&mut rest).await;
        rest.len()
    }
}

/// Until the runtime has seen all that has happened to its sockets so far: something happens to one more, and it sees that.
pub(crate) async fn settled() {
    let witness = App::listen().await;
    let Upstream::Tcp { host, port } = witness.upstream() else {
        unreachable!("it listens on TCP");
    };
    let (mut near, mut far) = (
        TcpStream::connect((host, port))
            .await
            .expect("a connection"),
        witness.accept().await.0,
    );
    for _ in 0..2 {
        near.write_u8(0).await.expect("a reader");
        far.read_u8().await.expect("a writer");
    }
}
