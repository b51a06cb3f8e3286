//! FastCGI clients that are not ours: the crate `fastcgi-client`, libfcgi's `cgi-fcgi`, and nginx with connections that it
//! keeps.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::process::Command;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use fastcgi_client::io::{AsyncRead, AsyncWrite, Cursor, empty};
use fastcgi_client::response::Content;
use fastcgi_client::{Client, Params, Request, StreamExt as _};

use crate::process::again;
use crate::support::front::{Front, Kind, Relay};
use crate::support::server::{directory, spawn};
use crate::support::{Address, PATIENCE, Server, Setup, eventually};

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Setup::new()
        .children(2)
        .file("hello.php", "<?php echo 'hello ', $_GET['name'] ?? 'nobody';")
        .file(
            "body.php",
            "<?php $body = file_get_contents('php://input');
             for ($sum = $i = 0; $i < strlen($body); $i++) $sum += $i % 97 * ord($body[$i]);
             echo strlen($body), ' ', $sum;",
        )
        .file(
            "long.php",
            "<?php for ($i = 0; $i < 3000; $i++) echo str_repeat(chr(97 + $i % 26), 1000);",
        )
        .file("warn.php", "<?php error_log('said aside'); echo 'said aloud';")
        .file("long-name.php", "<?php echo strlen($_SERVER['HTTP_LONG']), ' ', md5($_SERVER['HTTP_LONG']), ' ', $_SERVER['HTTP_AFTER'];")
        .start_shared()
});

/// What body.php says of this body.
fn summary(body: &[u8]) -> String {
    let sum: u64 = (0_u64..)
        .zip(body)
        .map(|(at, &byte)| at % 97 * u64::from(byte))
        .sum();
    format!("{} {sum}", body.len())
}

/// What long.php says.
fn long() -> Vec<u8> {
    (0..3000_u32)
        .flat_map(|i| std::iter::repeat_n(b'a' + (i % 26) as u8, 1000))
        .collect()
}

// --- fastcgi-client ----------------------------------------------------------------------------

/// The crate works with any runtime, so also with a socket that blocks.
struct Blocking(UnixStream);

impl Blocking {
    fn connect() -> Self {
        let Address::Unix(path) = &SERVER.address else {
            panic!("the tests' server listens on a Unix socket");
        };
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }
}

impl AsyncRead for Blocking {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(self.get_mut().0.read(buffer))
    }
}

impl AsyncWrite for Blocking {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(self.get_mut().0.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(self.get_mut().0.shutdown(std::net::Shutdown::Write))
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(future)
}

fn params(method: &'static str, uri: &str, length: usize) -> Params<'static> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    Params::default()
        .request_method(method)
        .document_root(SERVER.root().display().to_string())
        .script_name(path.to_owned())
        .script_filename(format!("{}{path}", SERVER.root().display()))
        .request_uri(uri.to_owned())
        .document_uri(path.to_owned())
        .query_string(query.to_owned())
        .remote_addr("192.0.2.77")
        .remote_port(54321)
        .server_addr("192.0.2.1")
        .server_port(80)
        .server_name("www.example.org")
        .content_type("application/octet-stream")
        .content_length(length)
}

/// What follows the headers.
fn content(stdout: &[u8]) -> String {
    let text = String::from_utf8_lossy(stdout);
    match text.split_once("\r\n\r\n") {
        Some((_, content)) => content.to_owned(),
        None => panic!("expected headers and a body, came {text:?}"),
    }
}

#[test]
fn fastcgi_client_gets_an_answer() {
    let client = Client::new(Blocking::connect());
    let request = Request::new(params("GET", "/hello.php?name=crate", 0), empty());
    let response = block_on(client.execute_once(request)).unwrap();
    assert_eq!(content(&response.stdout.unwrap()), "hello crate");
    assert_eq!(response.stderr, None);
}

#[test]
fn fastcgi_client_sends_a_body() {
    for length in [0, 1, 8192, 65535, 65536, 1_000_000] {
        let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let client = Client::new(Blocking::connect());
        let request = Request::new(params("POST", "/body.php", length), Cursor::new(&body));
        let response = block_on(client.execute_once(request)).unwrap();
        assert_eq!(content(&response.stdout.unwrap()), summary(&body));
    }
}

#[test]
fn fastcgi_client_sees_what_went_to_stderr() {
    let client = Client::new(Blocking::connect());
    let response =
        block_on(client.execute_once(Request::new(params("GET", "/warn.php", 0), empty())))
            .unwrap();
    assert_eq!(content(&response.stdout.unwrap()), "said aloud");
    let stderr = response.stderr.unwrap_or_default();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(
        stderr.contains("said aside"),
        "expected the message, came {stderr:?}"
    );
}

#[test]
fn fastcgi_client_keeps_its_connection() {
    let mut client = Client::new_keep_alive(Blocking::connect());
    block_on(async {
        for number in 0..50 {
            let params = params("GET", &format!("/hello.php?name={number}"), 0);
            let response = client.execute(Request::new(params, empty())).await;
            let response = response.unwrap_or_else(|error| panic!("request {number}: {error}"));
            assert_eq!(
                content(&response.stdout.unwrap()),
                format!("hello {number}")
            );
        }
    });
}

#[test]
fn fastcgi_client_streams_an_answer() {
    let client = Client::new(Blocking::connect());
    let stdout = block_on(async {
        let request = Request::new(params("GET", "/long.php", 0), empty());
        let mut stream = client.execute_once_stream(request).await.unwrap();
        let mut stdout = Vec::new();
        while let Some(piece) = stream.next().await {
            match piece.unwrap() {
                Content::Stdout(bytes) => stdout.extend_from_slice(&bytes),
                Content::Stderr(bytes) => panic!("unexpected on STDERR: {bytes:?}"),
            }
        }
        stdout
    });
    assert!(
        content(&stdout).as_bytes() == long(),
        "{} bytes are not the right ones",
        stdout.len()
    );
}

// --- cgi-fcgi ----------------------------------------------------------------------------------

/// What `cgi-fcgi` makes of a request, with these variables besides the usual ones.
fn cgi_fcgi(method: &str, uri: &str, variables: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let dir = directory();
    let [input, output, errors] = ["input", "output", "errors"].map(|name| dir.path().join(name));
    fs::write(&input, body).unwrap();
    let mut command = Command::new("cgi-fcgi");
    command
        .args(["-bind", "-connect", &SERVER.address.to_string()])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GATEWAY_INTERFACE", "CGI/1.1")
        .env("SERVER_PROTOCOL", "HTTP/1.1")
        .env("REQUEST_METHOD", method)
        .env("REQUEST_URI", uri)
        .env("QUERY_STRING", query)
        .env("SCRIPT_NAME", path)
        .env(
            "SCRIPT_FILENAME",
            format!("{}{path}", SERVER.root().display()),
        )
        .env("DOCUMENT_ROOT", SERVER.root())
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("CONTENT_TYPE", "application/octet-stream")
        .envs(variables.iter().copied())
        .stdin(File::open(&input).unwrap())
        .stdout(File::create(&output).unwrap())
        .stderr(File::create(&errors).unwrap());
    let mut child = spawn(command);
    let start = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if start.elapsed() > PATIENCE => {
                let _ = child.kill();
                panic!(
                    "cgi-fcgi does not end; it printed {:?}",
                    fs::read_to_string(&output)
                );
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let (output, errors) = (
        fs::read(&output).unwrap(),
        fs::read_to_string(&errors).unwrap(),
    );
    assert!(
        status.success(),
        "cgi-fcgi ended with {status}: {errors:?} after {:?}",
        String::from_utf8_lossy(&output)
    );
    output
}

#[test]
fn cgi_fcgi_gets_an_answer() {
    let output = cgi_fcgi("GET", "/hello.php?name=libfcgi", &[], b"");
    assert_eq!(content(&output), "hello libfcgi");
}

#[test]
fn cgi_fcgi_sends_a_body() {
    for length in [1, 8191, 8192, 8193, 1_000_000] {
        let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let output = cgi_fcgi("POST", "/body.php", &[], &body);
        assert_eq!(content(&output), summary(&body));
    }
}

#[test]
fn cgi_fcgi_gets_a_long_answer() {
    let output = cgi_fcgi("GET", "/long.php", &[], b"");
    assert!(
        content(&output).as_bytes() == long(),
        "{} bytes are not the right ones",
        output.len()
    );
}

/// It sends parameters in records of 8 KiB, whatever they hold.
#[test]
fn cgi_fcgi_splits_parameters_across_records() {
    for (length, md5) in [
        (7_000, "5e66f6f29d239dcfe16e0b139cf19c0e"),
        (8_192, "94303bc70972121e4f1c88deb6521f1b"),
        (50_000, "cee2229b94417b1693618845d0eacc55"),
    ] {
        let long = "x".repeat(length);
        let variables = [("HTTP_LONG", long.as_str()), ("HTTP_AFTER", "all of it")];
        let said = content(&cgi_fcgi("GET", "/long-name.php", &variables, b""));
        assert_eq!(said, format!("{length} {md5} all of it"));
    }
}

// --- nginx -------------------------------------------------------------------------------------

#[test]
fn nginx_asks_again_on_connections_that_it_keeps() {
    const BROWSERS: usize = 8;
    const REQUESTS: usize = 40;
    let server = Setup::new()
        .children(2)
        .file("hello.php", "<?php echo 'hello ', $_GET['name'];")
        .start();
    let relay = Relay::unix(&server.address);
    let front = Front::start(Kind::Nginx, &server.root(), relay.address());
    std::thread::scope(|scope| {
        for number in 0..BROWSERS {
            let mut browser = front.browser();
            scope.spawn(move || {
                for request in 0..REQUESTS {
                    let name = format!("{number}-{request}");
                    let page = browser.get(&format!("/hello.php?name={name}"));
                    assert_eq!(
                        (page.status, page.text()),
                        (200, format!("hello {name}")),
                        "{page:?}"
                    );
                }
            });
        }
    });
    let connections = relay.connections();
    assert!(
        connections <= 2 * BROWSERS,
        "expected a connection for each of {BROWSERS} browsers, came {connections} for {} requests",
        BROWSERS * REQUESTS
    );
    // All that are idle now cost nothing.
    let mut clients: Vec<_> = (0..2)
        .map(|_| server.get("/hello.php?name=direct").start())
        .collect();
    for client in &mut clients {
        client
            .response_within(1, Duration::from_secs(1))
            .expect_text("hello direct");
    }
}

#[test]
fn nginx_sends_and_gets_bodies_of_any_size() {
    let server = Setup::new()
        .children(2)
        .file("echo.php", "<?php echo file_get_contents('php://input');")
        .start();
    let front = Front::start(Kind::Nginx, &server.root(), &server.address);
    let mut browser = front.browser();
    for length in [0, 1, 1000, 16_384, 65_535, 65_536, 300_000, 5_000_000] {
        let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let page = browser.send(
            "PUT",
            "/echo.php",
            &[("Content-Type", "application/octet-stream")],
            &body,
        );
        assert_eq!(page.status, 200, "{page:?}");
        assert!(
            page.body == body,
            "sent {length} bytes, got {} others",
            page.body.len()
        );
    }
}

#[test]
fn nginx_reaches_a_server_that_was_started_again() {
    let mut server = Setup::new().children(1).file("hello.php", "hello").start();
    let front = Front::start(Kind::Nginx, &server.root(), &server.address);
    let mut browser = front.browser();
    browser.get("/hello.php").expect_text("hello");
    server.stop(libc::SIGQUIT, PATIENCE);
    browser.get("/hello.php").expect(502);
    let _again = again(&server);
    eventually("an answer of the new server", || {
        let page = browser.get("/hello.php");
        (page.status == 200).then_some(page)
    })
    .expect_text("hello");
}
