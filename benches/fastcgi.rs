//! What the protocol costs: reading requests, writing answers.
//!
//! `cargo bench --bench fastcgi`

#![allow(missing_docs)] // the macros below make public items

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use howdah::fastcgi::{Connection, Event, Limits, ProtocolStatus, client, encode};

/// What Debian's nginx sends for `GET /index.php` of a browser.
const PARAMS: &[(&str, &str)] = &[
    ("QUERY_STRING", "page=2&sort=name"),
    ("REQUEST_METHOD", "GET"),
    ("CONTENT_TYPE", ""),
    ("CONTENT_LENGTH", ""),
    ("SCRIPT_NAME", "/index.php"),
    ("REQUEST_URI", "/list?page=2&sort=name"),
    ("DOCUMENT_URI", "/index.php"),
    ("DOCUMENT_ROOT", "/srv/www"),
    ("SCRIPT_FILENAME", "/srv/www/index.php"),
    ("SERVER_PROTOCOL", "HTTP/2.0"),
    ("REQUEST_SCHEME", "https"),
    ("HTTPS", "on"),
    ("GATEWAY_INTERFACE", "CGI/1.1"),
    ("SERVER_SOFTWARE", "nginx/1.22.1"),
    ("REMOTE_ADDR", "192.0.2.17"),
    ("REMOTE_PORT", "51234"),
    ("SERVER_ADDR", "192.0.2.1"),
    ("SERVER_PORT", "443"),
    ("SERVER_NAME", "www.example.org"),
    ("REDIRECT_STATUS", "200"),
    ("HTTP_HOST", "www.example.org"),
    (
        "HTTP_USER_AGENT",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    ),
    (
        "HTTP_ACCEPT",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("HTTP_ACCEPT_LANGUAGE", "en-US,en;q=0.5"),
    ("HTTP_ACCEPT_ENCODING", "gzip, deflate, br, zstd"),
    ("HTTP_COOKIE", "session=5f0c7e0d1b1e4b0f9c1a; theme=dark"),
    ("HTTP_UPGRADE_INSECURE_REQUESTS", "1"),
    ("HTTP_SEC_FETCH_DEST", "document"),
    ("HTTP_SEC_FETCH_MODE", "navigate"),
];

fn read(connection: &mut Connection, bytes: &[u8], replies: &mut Vec<u8>) -> usize {
    let (mut input, mut seen) = (bytes, 0);
    while let Ok(Some(event)) = connection.receive(&mut input, replies) {
        match black_box(event) {
            Event::StdinEnd { id } => connection.finish(id),
            Event::Stdin { data, .. } => seen += data.len(),
            _ => {}
        }
    }
    seen
}

fn reading(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    let get = client::request(1, client::KEEP_CONN, PARAMS.iter().copied(), b"");
    let upload = client::request(
        1,
        client::KEEP_CONN,
        PARAMS.iter().copied(),
        &vec![7; 1 << 20],
    );
    for (name, bytes) in [
        ("a request of nginx", &get),
        ("an upload of 1 MiB", &upload),
    ] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            let mut connection = Connection::new(Limits::default());
            let mut replies = Vec::new();
            bencher.iter(|| read(&mut connection, black_box(bytes), &mut replies));
        });
    }
    group.finish();
}

fn writing(c: &mut Criterion) {
    let mut group = c.benchmark_group("write");
    for (name, length) in [("a page of 8 KiB", 8 << 10), ("a file of 1 MiB", 1 << 20)] {
        let page = vec![b'x'; length];
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(name, |bencher| {
            let mut out = Vec::new();
            bencher.iter(|| {
                out.clear();
                encode::stdout(&mut out, 1, black_box(&page));
                encode::stdout_end(&mut out, 1);
                encode::end_request(&mut out, 1, 0, ProtocolStatus::RequestComplete);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, reading, writing);
criterion_main!(benches);
