//! Requests that two recipients could read as two different ones (RFC 9112 §11.2): refused, and the connection closed; or made
//! plain before anybody behind sees them.

use crate::raw::{Answer, answer, in_front_of, page};
use crate::strict_origin::{Seen, StrictOrigin};

/// What is to become of a shape.
enum Fate {
    /// 4xx or 5xx, nothing further is read from the connection, and the application sees nothing.
    Refused,
    /// It has exactly one reading, and the application is sent that: targets and content.
    Read(&'static [(&'static str, &'static str)]),
}
use Fate::{Read, Refused};

/// What would be a second request if somebody took what came before for shorter than it is.
macro_rules! smuggled {
    () => {
        "GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    };
}

/// A POST with these fields and this content.
macro_rules! post {
    ($fields:literal, $content:expr) => {
        concat!("POST /p HTTP/1.1\r\nHost: a\r\n", $fields, "\r\n", $content)
    };
}

/// A GET with these further fields, after which the connection ends.
macro_rules! get {
    ($fields:literal) => {
        concat!(
            "GET /g HTTP/1.1\r\nHost: a\r\nConnection: close\r\n",
            $fields,
            "\r\n"
        )
    };
}

/// A POST of a chunked body with these chunks, and what must not be read behind it.
macro_rules! chunked {
    ($chunks:literal) => {
        post!(
            "Transfer-Encoding: chunked\r\n",
            concat!($chunks, smuggled!())
        )
    };
}

#[rustfmt::skip]
const SHAPES: &[(&str, &str, Fate)] = &[
    // Lengths.
    ("Content-Length and Transfer-Encoding", post!("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", concat!("0\r\n\r\n", smuggled!())), Read(&[("/p", "")])),
    ("Transfer-Encoding and Content-Length", post!("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", concat!("0\r\n\r\n", smuggled!())), Read(&[("/p", "")])),
    ("two Content-Lengths that differ", post!("Content-Length: 0\r\nContent-Length: 54\r\n", smuggled!()), Refused),
    ("two lengths in one field", post!("Content-Length: 0, 54\r\n", smuggled!()), Refused),
    ("Content-Length: +4", post!("Content-Length: +4\r\n", "abcd"), Refused),
    ("Content-Length: -4", post!("Content-Length: -4\r\n", "abcd"), Refused),
    ("Content-Length: 0x4", post!("Content-Length: 0x4\r\n", "abcd"), Refused),
    ("Content-Length: 1_0", post!("Content-Length: 1_0\r\n", "abcdefghij"), Refused),
    ("Content-Length: 4 4", post!("Content-Length: 4 4\r\n", "abcd"), Refused),
    ("an empty Content-Length", post!("Content-Length:\r\n", smuggled!()), Refused),
    ("Content-Length beyond 64 bits", post!("Content-Length: 18446744073709551620\r\n", "abcd"), Refused),
    ("Content-Length with a vertical tab", post!("Content-Length: \x0b4\r\n", "abcd"), Refused),
    // Transfer codings.
    ("Transfer-Encoding: xchunked", post!("Transfer-Encoding: xchunked\r\n", concat!("0\r\n\r\n", smuggled!())), Refused),
    ("Transfer-Encoding: identity", post!("Transfer-Encoding: identity\r\n", smuggled!()), Refused),
    ("Transfer-Encoding: chunked, identity", post!("Transfer-Encoding: chunked, identity\r\n", concat!("0\r\n\r\n", smuggled!())), Refused),
    ("Transfer-Encoding: identity, chunked", post!("Transfer-Encoding: identity, chunked\r\n", concat!("0\r\n\r\n", smuggled!())), Refused),
    ("Transfer-Encoding: gzip, chunked", post!("Transfer-Encoding: gzip, chunked\r\n", concat!("0\r\n\r\n", smuggled!())), Refused),
    ("Transfer-Encoding: chunked, chunked", post!("Transfer-Encoding: chunked, chunked\r\n", concat!("0\r\n\r\n", smuggled!())), Refused),
    ("Transfer-Encoding twice", post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", concat!("0\r\n\r\n", smuggled!())), Refused),
    ("Transfer-Encoding twice, the second identity", post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", concat!("0\r\n\r\n", smuggled!())), Refused),
    ("Transfer-Encoding: \\x0bchunked", post!("Transfer-Encoding: \x0bchunked\r\n", concat!("0\r\n\r\n", smuggled!())), Refused),
    ("Transfer-Encoding: \"chunked\"", post!("Transfer-Encoding: \"chunked\"\r\n", concat!("0\r\n\r\n", smuggled!())), Refused),
    ("Transfer-Encoding: chunked;q=1", post!("Transfer-Encoding: chunked;q=1\r\n", concat!("0\r\n\r\n", smuggled!())), Refused),
    ("an empty Transfer-Encoding", post!("Transfer-Encoding:\r\n", smuggled!()), Refused),
    ("Transfer-Encoding on HTTP/1.0", concat!("POST /p HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", smuggled!()), Refused),
    ("Transfer-Encoding: CHUNKED", post!("Transfer-Encoding: CHUNKED\r\nConnection: close\r\n", "2\r\nab\r\n0\r\n\r\n"), Read(&[("/p", "ab")])),
    // Chunks.
    ("a chunk size of 0x2", chunked!("0x2\r\nab\r\n0\r\n\r\n"), Refused),
    ("a chunk size of +2", chunked!("+2\r\nab\r\n0\r\n\r\n"), Refused),
    ("a chunk size of -2", chunked!("-2\r\nab\r\n0\r\n\r\n"), Refused),
    ("a chunk size of 0_2", chunked!("0_2\r\nab\r\n0\r\n\r\n"), Refused),
    ("a chunk size with a blank before it", chunked!(" 2\r\nab\r\n0\r\n\r\n"), Refused),
    ("an empty chunk size", chunked!("\r\nab\r\n0\r\n\r\n"), Refused),
    ("a chunk size beyond 64 bits", chunked!("10000000000000002\r\nab\r\n0\r\n\r\n"), Refused),
    ("a chunk size ended by a bare LF", chunked!("2\nab\r\n0\r\n\r\n"), Refused),
    ("a chunk size with a bare CR", chunked!("2\rX\r\nab\r\n0\r\n\r\n"), Refused),
    ("a chunk ended by a bare LF", chunked!("2\r\nab\n0\r\n\r\n"), Refused),
    ("a chunk ended by nothing", chunked!("2\r\nab0\r\n\r\n"), Refused),
    ("a chunk longer than its size", chunked!("2\r\nabc\r\n0\r\n\r\n"), Refused),
    ("a bare LF in a chunk extension", chunked!("2;a\nb\r\nab\r\n0\r\n\r\n"), Refused),
    ("a bare CR in a chunk extension", chunked!("2;a\rb\r\nab\r\n0\r\n\r\n"), Refused),
    ("a last chunk whose end is a bare LF, so that what follows is a trailer", chunked!("2\r\nab\r\n0\r\n\n"), Read(&[("/p", "ab")])),
    ("a trailer whose end is a bare LF, so that what follows is another", chunked!("2\r\nab\r\n0\r\nA: b\n\n"), Read(&[("/p", "ab")])),
    ("content beside a wish to switch protocols", post!("Connection: upgrade, close\r\nUpgrade: other/1\r\nContent-Length: 2\r\n", "ab"), Read(&[("/p", "ab")])),
    ("a chunk extension", post!("Transfer-Encoding: chunked\r\nConnection: close\r\n", "2;a=\"b\"\r\nab\r\n0\r\n\r\n"), Read(&[("/p", "ab")])),
    ("a chunk size with zeros before it", post!("Transfer-Encoding: chunked\r\nConnection: close\r\n", "0002\r\nab\r\n000\r\n\r\n"), Read(&[("/p", "ab")])),
    ("trailers that frame and route", post!("Transfer-Encoding: chunked\r\nConnection: close\r\n", "2\r\nab\r\n0\r\nContent-Length: 9\r\nHost: evil\r\nTransfer-Encoding: x\r\n\r\n"), Read(&[("/p", "ab")])),
    // Fields.
    ("NUL in a value", get!("X: a\0b\r\n"), Refused),
    ("a bare CR in a value", get!("X: a\rb\r\n"), Refused),
    ("a value of nothing but a CR", get!("X: \r\r\n"), Refused),
    // RFC 9112 §2.2 allows that; behind, there are two fields with an end each.
    ("a bare LF that ends a field", get!("A: a\nB: b\r\n"), Read(&[("/g", "")])),
    ("a blank before the colon", post!("Content-Length : 54\r\n", smuggled!()), Refused),
    ("a tab before the colon", post!("Transfer-Encoding\t: chunked\r\n", concat!("0\r\n\r\n", smuggled!())), Refused),
    ("an empty name", get!(": x\r\n"), Refused),
    ("a field without a colon", get!("X\r\n"), Refused),
    ("obsolete folding", get!("X: a\r\n b\r\n"), Refused),
    ("folded Transfer-Encoding", post!("Transfer-Encoding:\r\n chunked\r\n", concat!("0\r\n\r\n", smuggled!())), Refused),
    ("a blank before the first field", "GET /g HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n", Refused),
    ("a name with a bracket", get!("X[: a\r\n"), Refused),
    ("Content_Length is another field", get!("Content_Length: 54\r\n"), Read(&[("/g", "")])),
    // Host and target.
    ("no Host", "GET /g HTTP/1.1\r\nConnection: close\r\n\r\n", Refused),
    ("two Hosts", "GET /g HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refused),
    ("two equal Hosts", "GET /g HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Refused),
    ("an empty Host", "GET /g HTTP/1.1\r\nHost:\r\n\r\n", Refused),
    ("userinfo in Host", "GET /g HTTP/1.1\r\nHost: b@a\r\n\r\n", Refused),
    ("a path in Host", "GET /g HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused),
    ("two hosts in one field", "GET /g HTTP/1.1\r\nHost: a, b\r\n\r\n", Refused),
    ("userinfo in the target", "GET http://b@a/g HTTP/1.1\r\nHost: a\r\n\r\n", Refused),
    ("an absolute target with another Host", "GET http://a/g HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n", Refused),
    ("an absolute target with its Host", "GET http://A:80/g HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Read(&[("/g", "")])),
    ("a target without a slash", "GET g HTTP/1.1\r\nHost: a\r\n\r\n", Refused),
    ("a fragment in the target", "GET /g#/../h HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Read(&[("/g", "")])),
    ("a blank in the target", "GET /g HTTP/1.1 /h HTTP/1.1\r\nHost: a\r\n\r\n", Refused),
    // Bodies where nobody expects them.
    ("a body on GET", concat!("GET /g HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\nConnection: close\r\n\r\nPOST /", smuggled!()), Read(&[("/g", concat!("POST /", smuggled!()))])),
    ("a chunked body on GET", "GET /g HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nab\r\n0\r\n\r\n", Read(&[("/g", "ab")])),
    ("Expect without a body", get!("Expect: 100-continue\r\n"), Read(&[("/g", "")])),
    ("an expectation nobody knows", get!("Expect: 200-ok\r\n"), Refused),
    ("Expect with a body that comes at once", post!("Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n", "ab"), Read(&[("/p", "ab")])),
    // What Connection takes away.
    ("Connection: Content-Length", post!("Content-Length: 54\r\nConnection: Content-Length\r\n", smuggled!()), Refused),
    ("Connection: Transfer-Encoding", post!("Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n", concat!("0\r\n\r\n", smuggled!())), Refused),
    ("Connection: Host", get!("Connection: Host\r\n"), Refused),
    ("Connection takes X away", get!("Connection: X\r\nX: 1\r\n"), Read(&[("/g", "")])),
    // Protocols.
    ("Upgrade: h2c", get!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), Read(&[("/g", "")])),
    ("HTTP/0.9", "GET /g\r\n\r\n", Refused),
    ("HTTP/1.2", "GET /g HTTP/1.2\r\nHost: a\r\n\r\n", Refused),
    ("HTTP/1.10", "GET /g HTTP/1.10\r\nHost: a\r\n\r\n", Refused),
    ("HTTP/2.0 in a request line", "GET /g HTTP/2.0\r\nHost: a\r\n\r\n", Refused),
    ("http/1.1", "GET /g http/1.1\r\nHost: a\r\n\r\n", Refused),
    ("a method in lower case", "get /g HTTP/1.1\r\nHost: a\r\n\r\n", Refused),
    ("a method with a slash", "G/T /g HTTP/1.1\r\nHost: a\r\n\r\n", Refused),
    ("TLS where none is spoken", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", Refused),
];

#[tokio::test]
async fn no_shape_has_a_second_reading() {
    let origin = StrictOrigin::start();
    let scale0 = in_front_of(origin.address, "").await;
    origin.take();

    let mut wrong = Vec::new();
    for (name, bytes, fate) in SHAPES {
        let answer = answer(scale0.pages(), bytes.as_bytes()).await;
        let honest = page(&scale0, "/honest").await;
        let mut seen = origin.take();
        let last = seen.pop();
        if !is_of(&last, "/honest", "") || !honest.text.ends_with("GET /honest") {
            wrong.push(format!(
                "{name}: the next request was answered {honest:?}, and seen as {last:?}"
            ));
        }
        if let Some(why) = fault(fate, &answer, &seen) {
            wrong.push(format!("{name}: {why}\n    {answer:?}\n    {seen:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        SHAPES.len(),
        wrong.join("\n")
    );
}

/// What is wrong with how a shape was answered and what the application saw of it.
fn fault(fate: &Fate, answer: &Answer, seen: &[Result<Seen, String>]) -> Option<&'static str> {
    let reads: &[_] = match fate {
        Refused => &[],
        Read(reads) => reads,
    };
    let as_said = seen.len() == reads.len()
        && seen
            .iter()
            .zip(reads)
            .all(|(seen, (target, content))| is_of(&Some(seen.clone()), target, content));
    let answered = match fate {
        Refused => answer.status.is_some_and(|status| 400 <= status) && answer.responses() == 1,
        Read(reads) => answer.status == Some(200) && answer.responses() == reads.len(),
    };
    match () {
        () if !as_said => Some("the application saw something else"),
        () if !answered => Some("it was answered otherwise"),
        () if !answer.closed => Some("the connection stayed open"),
        () => None,
    }
}

/// Whether the application read this request, and nothing in it that belongs to the client's connection alone.
fn is_of(seen: &Option<Result<Seen, String>>, target: &str, content: &str) -> bool {
    let Some(Ok(seen)) = seen else { return false };
    let foreign = ["x", "upgrade", "http2-settings", "trailer", "te"];
    seen.target == target
        && seen.content == content.as_bytes()
        && !seen.values("host").contains(&"evil")
        && foreign.iter().all(|name| seen.values(name).is_empty())
        // An expectation is about content, and goes on with it (RFC 9110 §10.1.1).
        && (seen.values("expect").is_empty() || !seen.content.is_empty())
}

#[tokio::test]
async fn content_that_comes_with_a_hit_is_not_the_next_request() {
    let origin = StrictOrigin::start();
    let scale0 = in_front_of(origin.address, "").await;
    assert_eq!(page(&scale0, "/fresh").await.status, Some(200));
    origin.take();

    let content = smuggled!();
    for framed in [
        format!("Content-Length: {}\r\n\r\n{content}", content.len()),
        format!(
            "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{content}\r\n0\r\n\r\n",
            content.len()
        ),
    ] {
        let next = "GET /next HTTP/1.1\r\nHost: honest.example\r\nConnection: close\r\n\r\n";
        let answer = answer(
            scale0.pages(),
            format!("GET /fresh HTTP/1.1\r\nHost: honest.example\r\n{framed}{next}").as_bytes(),
        )
        .await;
        assert_eq!(answer.status, Some(200));
        let seen: Vec<String> = origin
            .take()
            .into_iter()
            .map(|seen| seen.unwrap().target)
            .collect();
        assert!(!seen.iter().any(|target| target == "/smuggled"), "{seen:?}");
        assert!(
            answer.responses() == 2 && answer.text.ends_with("GET /next")
                || answer.responses() == 1,
            "{answer:?}"
        );
    }
}
