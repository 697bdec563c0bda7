//! The demo's promises to its page, in paused time.

use http_body_util::{BodyExt, Empty, Full};
use tokio::time::Instant;

use super::*;

async fn ask(demo: &Demo, uri: &str) -> (StatusCode, String, String) {
    let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
    let response = demo.clone().call(request).await.unwrap();
    let cache_control = response.headers()[header::CACHE_CONTROL].to_str().unwrap();
    let (status, cache_control) = (response.status(), cache_control.to_owned());
    let content = response.into_body().collect().await.unwrap().to_bytes();
    (
        status,
        cache_control,
        String::from_utf8(content.to_vec()).unwrap(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_takes_a_second_and_says_which_run_it_was() {
    let demo = service();
    let begun = Instant::now();
    for run in 1..=2 {
        let answer = ask(&demo, "/slow?x=1&id=a-B_1").await;
        let text = format!("run {run} of /slow?id=a-B_1\n");
        assert_eq!(answer, (StatusCode::OK, "max-age=600".into(), text));
        assert_eq!(begun.elapsed(), SLOW * run);
    }
    let (_, cache_control, count) = ask(&demo, "/runs?id=a-B_1").await;
    assert_eq!(
        (&*cache_control, &*count),
        ("no-store", "{\"id\":\"a-B_1\",\"runs\":2}\n")
    );
}

#[tokio::test(start_paused = true)]
async fn private_answers_are_marked_so_and_all_differ() {
    let demo = service();
    let (_, cache_control, first) = ask(&demo, "/private?id=a").await;
    let (_, _, second) = ask(&demo, "/private?id=a").await;
    assert_eq!(cache_control, "private");
    assert_ne!(first, second);
}

#[tokio::test]
async fn an_id_that_is_long_or_not_plain_is_refused_and_not_counted() {
    let demo = service();
    for id in ["%22", "a'b", "ä", &"x".repeat(LONGEST_ID + 1)] {
        let Ok(uri) = format!("/slow?id={id}").parse::<Uri>() else {
            continue;
        };
        assert_eq!(
            ask(&demo, &uri.to_string()).await.0,
            StatusCode::BAD_REQUEST
        );
    }
    assert_eq!(
        ask(&demo, "/runs").await.2,
        "{\"id\":\"\",\"runs\":0}\n",
        "no id is an id as well"
    );
}

#[tokio::test(start_paused = true)]
async fn events_come_one_at_a_time_and_end() {
    let request = Request::get("/stream").body(Empty::<Bytes>::new()).unwrap();
    let response = service().call(request).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], EVENT_STREAM);
    let mut body = response.into_body();
    let begun = Instant::now();
    let mut times = Vec::new();
    while let Some(frame) = body.frame().await {
        let event = frame.unwrap().into_data().unwrap();
        assert!(event.starts_with(b"data: ") && event.ends_with(b"\n\n"));
        times.push(begun.elapsed().as_millis());
    }
    assert_eq!(times, (0..20).map(|event| event * 250).collect::<Vec<_>>());
}

#[tokio::test]
async fn echo_returns_what_it_is_given_as_text() {
    let body = Full::new(Bytes::from_static(b"<b>hello</b>"));
    let request = Request::post("/echo").body(body).unwrap();
    let response = service().call(request).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], TEXT);
    assert_eq!(
        response.headers()[header::X_CONTENT_TYPE_OPTIONS],
        "nosniff"
    );
    let content = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(content, "<b>hello</b>");
}

#[tokio::test]
async fn what_is_not_there_and_what_one_does_not_do_are_told_kindly() {
    let demo = service();
    let (status, _, text) = ask(&demo, "/nothing").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.contains("/slow?id="));

    for (method, path, allow) in [
        (Method::POST, "/slow", "GET, HEAD"),
        (Method::GET, "/echo", "POST"),
    ] {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = demo.clone().call(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], allow);
    }
}

#[tokio::test]
async fn the_page_is_small_and_needs_nothing_from_elsewhere() {
    let (status, _, page) = ask(&service(), "/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.len() < 25 * 1024, "{} bytes", page.len());
    for loads in ["src=", "@import", "url(", "<link rel=\"stylesheet"] {
        assert!(!page.contains(loads), "{loads}");
    }
}
