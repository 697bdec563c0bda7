//! The demo: a small site of slow, private and streamed answers, which counts how often it really ran.
//!
//! It knows nothing of Scale0. What one sees on its page, any service of `http` requests would show.

mod content;
mod runs;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use tower_service::Service;

use content::Content;
use runs::Runs;

/// Requests at a time: its handlers only wait.
pub(crate) const CONCURRENCY: u32 = 256;

const PAGE: &str = include_str!("page.html");

/// The page runs its own script, wears its own style and talks to its own site. A browser that finds either hash wrong names the
/// right one in its console, and the browser's test shows that.
const PAGE_POLICY: &str = "default-src 'none'; \
    script-src 'sha256-Djq2NQb/pSQQSTauBtYRDLIP07Yc96oyKChfXtckPpU='; \
    style-src 'sha256-hQu8//pAIJje3NTy7aVGnyr0CtGO/pG3TgxY3NMt4us='; \
    connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What a slow answer takes: long enough for a shell to start two hundred requests meanwhile.
const SLOW: Duration = Duration::from_secs(1);

/// What a private answer takes.
const PRIVATE: Duration = Duration::from_millis(300);

/// The longest id; what the page draws has some fifteen letters.
const LONGEST_ID: usize = 64;

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";

const NOT_FOUND: &str = "\
There is nothing here. This is Scale0's demo backend, and it has:

  /               a page with buttons
  /slow?id=…      an answer that takes a second and may be shared
  /private?id=…   an answer for one user alone
  /runs?id=…      how often the backend ran for that id
  /stream         an event stream of five seconds
  /echo           what you POST to it
";

const BAD_ID: &str = "An id has up to 64 letters, digits, - and _.\n";

/// The demo, which has not run yet.
pub(crate) fn service() -> Demo {
    Demo::default()
}

/// The demo. Its clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demo {
    runs: Arc<Runs>,
}

/// What it answers, and when.
type Answer<B> = Pin<Box<dyn Future<Output = Result<Response<Content<B>>, Infallible>> + Send>>;

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Service<Request<B>> for Demo {
    type Response = Response<Content<B>>;
    type Error = Infallible;
    type Future = Answer<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answer<B> {
        let demo = self.clone();
        Box::pin(async move { Ok(demo.answer(request).await) })
    }
}

impl Demo {
    async fn answer<B>(&self, request: Request<B>) -> Response<Content<B>> {
        let (parts, body) = request.into_parts();
        let reads = [Method::GET, Method::HEAD].contains(&parts.method);
        let uri = &parts.uri;
        match uri.path() {
            "/echo" if parts.method == Method::POST => {
                respond(StatusCode::OK, TEXT, "no-store", Content::Echo(body))
            }
            "/echo" => not_allowed("POST"),
            "/" | "/slow" | "/private" | "/runs" | "/stream" if !reads => not_allowed("GET, HEAD"),
            "/" => page(),
            "/stream" => respond(StatusCode::OK, EVENT_STREAM, "no-store", Content::events()),
            "/slow" => self.run(uri, SLOW, "max-age=600").await,
            "/private" => self.run(uri, PRIVATE, "private").await,
            "/runs" => self.count(uri),
            _ => text(StatusCode::NOT_FOUND, NOT_FOUND),
        }
    }

    /// Takes its time, and says which run it was.
    async fn run<B>(
        &self,
        uri: &Uri,
        time: Duration,
        cache_control: &'static str,
    ) -> Response<Content<B>> {
        let Some(id) = id(uri) else {
            return text(StatusCode::BAD_REQUEST, BAD_ID);
        };
        let run = self.runs.begin(id);
        tokio::time::sleep(time).await;
        let content = format!("run {run} of {}?id={id}\n", uri.path());
        respond(StatusCode::OK, TEXT, cache_control, Content::whole(content))
    }

    fn count<B>(&self, uri: &Uri) -> Response<Content<B>> {
        let Some(id) = id(uri) else {
            return text(StatusCode::BAD_REQUEST, BAD_ID);
        };
        // Letters, digits, - and _ need no escape in JSON.
        let content = format!("{{\"id\":\"{id}\",\"runs\":{}}}\n", self.runs.of(id));
        respond(StatusCode::OK, JSON, "no-store", Content::whole(content))
    }
}

/// The query's `id`, empty where there is none. `None` if it is none of ours.
fn id(uri: &Uri) -> Option<&str> {
    let mut parameters = uri.query().unwrap_or_default().split('&');
    let id = parameters.find_map(|parameter| parameter.strip_prefix("id="));
    let id = id.unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (id.len() <= LONGEST_ID && id.bytes().all(is_plain)).then_some(id)
}

fn page<B>() -> Response<Content<B>> {
    let content = Content::whole(PAGE);
    // Not to be stored: the demo answers for any host, and is not to be there any more once that host's own backend is.
    let response = respond(StatusCode::OK, HTML, "no-store", content);
    with(response, header::CONTENT_SECURITY_POLICY, PAGE_POLICY)
}

fn not_allowed<B>(allow: &'static str) -> Response<Content<B>> {
    let response = text(
        StatusCode::METHOD_NOT_ALLOWED,
        "This is not what one does here.\n",
    );
    with(response, header::ALLOW, allow)
}

fn text<B>(status: StatusCode, text: &'static str) -> Response<Content<B>> {
    respond(status, TEXT, "no-store", Content::whole(text))
}

fn respond<B>(
    status: StatusCode,
    content_type: &'static str,
    cache_control: &'static str,
    content: Content<B>,
) -> Response<Content<B>> {
    let mut response = Response::new(content);
    *response.status_mut() = status;
    let response = with(response, header::CONTENT_TYPE, content_type);
    let response = with(response, header::CACHE_CONTROL, cache_control);
    with(response, header::X_CONTENT_TYPE_OPTIONS, "nosniff")
}

fn with<T>(mut response: Response<T>, name: HeaderName, value: &'static str) -> Response<T> {
    let value = header::HeaderValue::from_static(value);
    response.headers_mut().insert(name, value);
    response
}

#[cfg(test)]
mod tests;
