//! Sound HTTP that is too much, or asks for what a gateway must not do.

use crate::raw::{answer, in_front_of, page};
use crate::strict_origin::StrictOrigin;

const LIMITS: &str =
    "[limits]\nheader_bytes = \"8KiB\"\nheader_count = 32\nbody_bytes = \"100kB\"\n";

/// A request with these fields and this content, after which the client is content to close.
fn request(start: &str, fields: &str, content: &str) -> Vec<u8> {
    format!("{start} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n{content}").into_bytes()
}

#[tokio::test]
async fn what_is_too_large_or_forbidden_is_refused_and_never_reaches_the_application() {
    let origin = StrictOrigin::start();
    let scale0 = in_front_of(origin.address, LIMITS).await;
    origin.take();

    let large = "x".repeat(200_000);
    let chunk = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let chunks = format!(
        "{}0\r\n\r\n",
        format!("3e8\r\n{}\r\n", &large[..1000]).repeat(101)
    );
    let many = "X: y\r\n".repeat(40);
    let refused: &[(&str, u16, Vec<u8>)] = &[
        (
            "a head beyond header_bytes",
            431,
            request(
                "GET /",
                &format!("Host: a\r\nX: {}\r\n", &large[..9000]),
                "",
            ),
        ),
        (
            "a target beyond header_bytes",
            431,
            request(&format!("GET /{}", &large[..9000]), "Host: a\r\n", ""),
        ),
        (
            "more fields than header_count",
            431,
            request("GET /", &format!("Host: a\r\n{many}"), ""),
        ),
        (
            "content said to be beyond body_bytes",
            413,
            request("POST /", "Host: a\r\nContent-Length: 200000\r\n", &large),
        ),
        (
            "content said to be so, and nothing sent",
            413,
            request("POST /", "Host: a\r\nContent-Length: 100001\r\n", ""),
        ),
        (
            "content said to be so, sent if it may",
            413,
            request(
                "POST /",
                "Host: a\r\nContent-Length: 100001\r\nExpect: 100-continue\r\n",
                "",
            ),
        ),
        (
            "content that comes to more in one chunk",
            413,
            request(
                "POST /",
                "Host: a\r\nTransfer-Encoding: chunked\r\n",
                &chunk,
            ),
        ),
        (
            "content that comes to more in many",
            413,
            request(
                "POST /",
                "Host: a\r\nTransfer-Encoding: chunked\r\n",
                &chunks,
            ),
        ),
        (
            "a host with a space",
            400,
            request("GET /", "Host: a b\r\n", ""),
        ),
        (
            "a host with a port that is none",
            400,
            request("GET /", "Host: a:b\r\n", ""),
        ),
        (
            "a host longer than any",
            400,
            request("GET /", &format!("Host: {}\r\n", &large[..300]), ""),
        ),
        (
            "a path with a broken escape",
            400,
            request("GET /%zz", "Host: a\r\n", ""),
        ),
        (
            "a loop",
            508,
            request("GET /", "Host: a\r\nVia: 1.1 proxy, 1.1 test\r\n", ""),
        ),
        (
            "a loop that HTTP/2 began",
            508,
            request("GET /", "Host: a\r\nVia: 2.0 TEST (scale0)\r\n", ""),
        ),
        ("TRACE", 405, request("TRACE /", "Host: a\r\n", "")),
        (
            "CONNECT",
            501,
            request("CONNECT a:80", "Host: a:80\r\n", ""),
        ),
        (
            "OPTIONS of nothing",
            400,
            request("GET *", "Host: a\r\n", ""),
        ),
    ];
    for (name, status, bytes) in refused {
        let answer = answer(scale0.pages(), bytes).await;
        assert_eq!(answer.status, Some(*status), "{name}: {answer:?}");
        assert_eq!(answer.responses(), 1, "{name}: {answer:?}");
    }
    let whole: Vec<_> = origin.take().into_iter().filter_map(Result::ok).collect();
    assert_eq!(whole, []);

    let most = request(
        "POST /most",
        "Host: a\r\nContent-Length: 100000\r\n",
        &large[..100_000],
    );
    assert_eq!(answer(scale0.pages(), &most).await.status, Some(200));
    assert_eq!(page(&scale0, "/honest").await.status, Some(200));
}

#[tokio::test]
async fn what_a_client_says_about_itself_is_not_believed() {
    let origin = StrictOrigin::start();
    let scale0 = in_front_of(origin.address, "").await;
    origin.take();
    let fields = "Host: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\n\
                  X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nX-Request-Id: theirs\r\nX-Real-IP: 6.6.6.6\r\nX-HTTP-Method-Override: DELETE\r\n\
                  Proxy-Connection: keep-alive\r\nKeep-Alive: 9\r\nTE: trailers\r\nProxy-Authorization: Basic eA==\r\n";
    assert_eq!(
        answer(scale0.pages(), &request("GET /a/../b", fields, ""))
            .await
            .status,
        Some(200)
    );
    let seen = origin.take().remove(0).unwrap();
    assert_eq!(seen.target, "/b");
    assert_eq!(seen.values("x-forwarded-host"), ["a"]);
    assert_eq!(seen.values("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.values("x-forwarded-for"), ["127.0.0.1"]);
    let told = seen.fields.iter().find(|(_, value)| {
        [
            "6.6.6.6",
            "evil",
            "/admin",
            "theirs",
            "DELETE",
            "eA==",
            "keep-alive",
            "9",
        ]
        .iter()
        .any(|lie| value.contains(lie))
    });
    // A request id is random, and may have a 9 in it.
    assert!(
        told.is_none_or(|(name, _)| name == "x-request-id"),
        "{told:?}"
    );
    assert_ne!(seen.values("x-request-id"), ["theirs"]);
}
