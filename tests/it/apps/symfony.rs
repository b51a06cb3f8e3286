//! An application on Symfony's framework.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    CONTENT_SHA256, content, copy, expect_no_errors, expect_pieces, project, with_opcache, writable,
};
use crate::support::front::{Front, Kind};
use crate::support::request::Part;
use crate::support::{Server, Setup, eventually};

/// The application in `tests/apps/symfony`.
fn start() -> (Server, Front) {
    let server = with_opcache(Setup::new())
        .pool("env[APP_CACHE_DIR] = {state}/cache\nenv[APP_LOG_DIR] = {state}\nenv[APP_DATA_DIR] = {state}/data")
        .start();
    copy(&project().join("tests/apps/symfony"), &server.root());
    server.file("download.bin", content());
    writable(&server.state().join("data"));
    let front = Front::start(Kind::Nginx, &server.root().join("public"), &server.address);
    (server, front)
}

#[test]
fn it_answers_with_json_and_a_cookie() {
    let (server, front) = start();
    let mut browser = front.browser();
    let uri = "/greetings/J%C3%B6rg%20%26%20Co?a[]=1&a[]=2";
    let headers = [("Accept", "application/json")];
    for cookie in [Value::Null, json!("Jörg & Co")] {
        let page = browser.send("GET", uri, &headers, b"").expect(200);
        assert_eq!(page.header("Content-Type"), Some("application/json"));
        assert_eq!(
            page.json(),
            json!({
                "greeting": "Hello, Jörg & Co!",
                "query": {"a": ["1", "2"]},
                "path": "/greetings/J%C3%B6rg%20%26%20Co",
                "accepts": ["application/json"],
                "cookie": cookie,
            })
        );
    }
    browser.get("/nothing/here").expect(404);
    browser.form("/greetings/Ada", &[]).expect(405);
    expect_no_errors(&server);
}

#[test]
fn it_streams_a_response_in_pieces() {
    let (server, front) = start();
    let page = front.browser().get("/stream").expect(200);
    assert_eq!(page.text(), "piece 1\npiece 2\npiece 3\npiece 4\n");
    expect_pieces(&page, 4, Duration::from_millis(200));
    expect_no_errors(&server);
}

#[test]
fn it_sends_parts_of_a_file() {
    let (server, front) = start();
    let mut browser = front.browser();
    let content = content();
    let all = browser.get("/download").expect(200);
    assert!(
        all.body == content,
        "the file has changed on the way: {all:?}"
    );
    assert_eq!(
        all.header("Content-Disposition"),
        Some("attachment; filename=naive.bin; filename*=utf-8''na%C3%AFve.bin")
    );
    let length = content.len();
    for (range, from, to) in [
        ("bytes=0-0", 0, 0),
        ("bytes=700000-799999", 700_000, 799_999),
        ("bytes=1499990-", 1_499_990, length - 1),
        ("bytes=-5", length - 5, length - 1),
    ] {
        let part = browser
            .send("GET", "/download", &[("Range", range)], b"")
            .expect(206);
        assert!(
            part.body == content[from..=to],
            "{range}: these are other bytes: {part:?}"
        );
        let header = format!("bytes {from}-{to}/{length}");
        assert_eq!(part.header("Content-Range"), Some(&*header), "{range}");
    }
    let modified = all.header("Last-Modified").unwrap();
    let page = browser.send("GET", "/download", &[("If-Modified-Since", modified)], b"");
    assert!(page.expect(304).body.is_empty());
    let head = browser.send("HEAD", "/download", &[], b"").expect(200);
    assert_eq!(head.header("Content-Length"), Some(&*length.to_string()));
    expect_no_errors(&server);
}

#[test]
fn it_keeps_sessions_of_visitors_apart() {
    let (server, front) = start();
    let mut browsers = [front.browser(), front.browser()];
    for visits in 1..=5 {
        for browser in &mut browsers {
            let page = browser.get("/visits").expect(200);
            assert_eq!(page.json(), json!({"visits": visits}));
        }
    }
    expect_no_errors(&server);
}

#[test]
fn it_receives_the_body_of_a_put() {
    let (server, front) = start();
    let mut browser = front.browser();
    let kind = [("Content-Type", "application/octet-stream")];
    let page = browser
        .send("PUT", "/items/large", &kind, &content())
        .expect(201);
    let expected = json!({
        "id": "large", "type": "application/octet-stream", "length": 1_500_000,
        "sha256": CONTENT_SHA256, "form": [],
    });
    assert_eq!(page.json(), expected);

    let kind = [("Content-Type", "application/x-www-form-urlencoded")];
    let page = browser
        .send("PUT", "/items/form", &kind, b"colour=grey&legs=4")
        .expect(201);
    assert_eq!(page.json()["form"], json!({"colour": "grey", "legs": "4"}));
    expect_no_errors(&server);
}

#[test]
fn it_stores_an_upload() {
    let (server, front) = start();
    let mut browser = front.browser();
    let page = browser.upload(
        "/upload",
        &[
            Part::field("title", "Ein Gehöft"),
            Part::file(
                "file",
                "höfe & co.bin",
                "application/octet-stream",
                &content(),
            ),
        ],
    );
    let expected = json!({
        "title": "Ein Gehöft", "name": "höfe & co.bin", "length": 1_500_000, "sha256": CONTENT_SHA256,
    });
    assert_eq!(page.expect(200).json(), expected);
    browser
        .upload("/upload", &[Part::field("title", "no file")])
        .expect(400);
    expect_no_errors(&server);
}

#[test]
fn it_goes_on_working_when_the_visitor_has_the_answer() {
    let (server, front) = start();
    let mut browser = front.browser();
    let done = server.state().join("data/report");
    let page = browser.form("/later/report", &[]).expect(202);
    assert_eq!(page.json(), json!({"accepted": "report"}));
    assert!(
        !done.exists(),
        "the answer came only after the work that was to follow it"
    );
    eventually("the work is done", || done.exists().then_some(()));
    expect_no_errors(&server);
}

#[test]
fn it_answers_500_where_its_code_throws() {
    let (server, front) = start();
    let mut browser = front.browser();
    browser.get("/broken").expect(500);
    server.expect_log(&["This part is broken."]);
    browser.get("/greetings/Ada").expect(200);
}
