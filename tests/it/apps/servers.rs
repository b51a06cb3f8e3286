//! The example site behind every web server there is an example for.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    CONTENT_SHA256, content, copy, expect_no_errors, expect_pieces, project, with_opcache,
};
use crate::support::Setup;
use crate::support::front::{Front, Kind, Relay};
use crate::support::request::Part;

#[test]
fn nginx_serves_the_example() {
    serves_the_example(Kind::Nginx);
}

#[test]
fn apache_serves_the_example() {
    serves_the_example(Kind::Apache);
}

#[test]
fn caddy_serves_the_example() {
    serves_the_example(Kind::Caddy);
}

#[test]
fn lighttpd_serves_the_example() {
    serves_the_example(Kind::Lighttpd);
}

#[test]
fn haproxy_serves_the_example() {
    serves_the_example(Kind::Haproxy);
}

/// nginx 1.22 leaves its visitor waiting if a stream's empty record comes too soon, and has no padding.
#[test]
fn nginx_cuts_off_an_answer_that_is_shorter_than_it_says() {
    let server = Setup::new()
        .file(
            "short.php",
            "<?php header('Content-Length: 1000'); echo 'short';",
        )
        .start();
    let front = Front::start(Kind::Nginx, &server.root(), &server.address);
    let start = Instant::now();
    let answer = front.browser().try_get("/short.php");
    assert!(answer.is_err(), "expected the connection's end: {answer:?}");
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        start.elapsed()
    );
}

#[track_caller]
fn serves_the_example(kind: Kind) {
    let server = with_opcache(Setup::new())
        .file("style.css", "body { color: grey }")
        .file(".env", "SECRET")
        .file(".well-known/about.txt", "known")
        .file("info.php", INFO)
        .file("stream.php", STREAM)
        .start();
    copy(&project().join("examples/hello"), &server.root());
    let relay = match kind {
        Kind::Haproxy => Relay::tcp(&server.address),
        _ => Relay::unix(&server.address),
    };
    let front = Front::start(kind, &server.root(), relay.address());
    let mut browser = front.browser();

    // The page, and a session.
    browser
        .get("/")
        .expect_text("Hello!")
        .expect_text("<dd>fpm-fcgi</dd>");
    for visits in 2..=4 {
        browser
            .get("/")
            .expect_text(&format!("Pages you have seen: <strong>{visits}</strong>"));
    }
    front
        .browser()
        .get("/")
        .expect_text("Pages you have seen: <strong>1</strong>");

    // Its forms.
    browser
        .form("/", &[("name", "Ada <3")])
        .expect_text("<h1>Hello, Ada &lt;3!</h1>");
    browser
        .upload(
            "/index.php",
            &[Part::file(
                "file",
                "<herd>.bin",
                "application/octet-stream",
                &content(),
            )],
        )
        .expect_text(&format!(
            "&lt;herd&gt;.bin: 1,500,000 bytes, SHA-256 {CONTENT_SHA256}"
        ));

    // What PHP is told.
    browser
        .get("/some/page?x=1")
        .expect_text("<dd>GET /some/page?x=1</dd>");
    let page = browser.send(
        "GET",
        "/info.php/a/b%20c?q=1&r",
        &[("Authorization", "Bearer t")],
        b"",
    );
    let root = fs::canonicalize(server.root()).unwrap();
    assert_eq!(
        page.expect(200).json(),
        json!({
            "SCRIPT_NAME": "/info.php", "SCRIPT_FILENAME": root.join("info.php"), "DOCUMENT_ROOT": root,
            "PATH_INFO": "/a/b c", "REQUEST_URI": "/info.php/a/b%20c?q=1&r", "QUERY_STRING": "q=1&r",
            "PHP_SELF": "/info.php/a/b c", "HTTP_AUTHORIZATION": "Bearer t",
        })
    );

    // Files, and what is not for everybody. HAProxy sends none: there all of it is PHP's.
    if kind != Kind::Haproxy {
        browser
            .get("/style.css")
            .expect_text("body { color: grey }");
        browser.get("/.well-known/about.txt").expect_text("known");
        for uri in ["/.env", "/%2eenv"] {
            let page = browser.get(uri);
            assert!(
                matches!(page.status, 403 | 404),
                "{uri} is not hidden: {page:?}"
            );
        }
    }

    // What is flushed comes at once. Caddy collects it.
    let page = browser.get("/stream.php").expect(200);
    assert_eq!(page.text(), "one, two, three");
    if kind != Kind::Caddy {
        expect_pieces(&page, 3, Duration::from_millis(150));
    }

    // Connections to howdah are kept by those that can.
    let before = relay.connections();
    for _ in 0..20 {
        browser.get("/info.php").expect(200);
    }
    let connections = relay.connections() - before;
    match kind {
        Kind::Caddy | Kind::Lighttpd => assert_eq!(connections, 20),
        Kind::Nginx | Kind::Apache | Kind::Haproxy => {
            assert!(
                connections < 5,
                "{connections} connections for 20 requests, one after the other"
            );
        }
    }
    assert_eq!(
        browser.connections(),
        1,
        "a browser's connection was not kept"
    );
    expect_no_errors(&server);
}

const INFO: &str = "<?php
    $names = ['SCRIPT_NAME', 'SCRIPT_FILENAME', 'DOCUMENT_ROOT', 'PATH_INFO', 'REQUEST_URI', 'QUERY_STRING', 'PHP_SELF',
        'HTTP_AUTHORIZATION'];
    header('Content-Type: application/json');
    echo json_encode(array_map(fn ($name) => $_SERVER[$name] ?? null, array_combine($names, $names)));";

const STREAM: &str = "<?php
    header('X-Accel-Buffering: no');
    while (ob_get_level() > 0) ob_end_clean();
    foreach (['one', ', two', ', three'] as $piece) {
        echo $piece;
        flush();
        usleep(300000);
    }";
