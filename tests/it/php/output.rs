//! What a script sends: status, headers, body, and when.

use std::fs;
use std::time::Duration;

use super::{SERVER, run};
use crate::support::record::{END, STDOUT};
use crate::support::{Response, Setup};

#[track_caller]
fn expect_status(code: &str, status_line: &str) -> Response {
    let response = run(code).send();
    assert_eq!(
        response.status_line, status_line,
        "after {code}: {response:?}"
    );
    assert!(
        response.headers("Status").len() <= 1,
        "after {code}: {response:?}"
    );
    response
}

// --- Status ------------------------------------------------------------------------------------

#[test]
fn the_status_is_200_without_being_told() {
    let response = run("echo 1;").send();
    assert_eq!(response.status, 200);
    assert_eq!(response.header("Content-type"), "text/html; charset=UTF-8");
}

#[test]
fn a_status_line_may_be_written_in_every_way() {
    for (code, status_line) in [
        ("header('HTTP/1.1 404 Not Found');", "404 Not Found"),
        (
            "header('HTTP/1.0 404 Nowhere to be seen');",
            "404 Nowhere to be seen",
        ),
        (
            "header('HTTP/2 503 Service Unavailable');",
            "503 Service Unavailable",
        ),
        ("header('HTTP/1.1 418 I\\'m a teapot');", "418 I'm a teapot"),
        ("header('http/1.1 404 Not Found');", "404 Not Found"),
        ("http_response_code(404);", "404 Not Found"),
        ("header('X-A: 1', true, 404);", "404 Not Found"),
        (
            "header('X-A: 1', true, 404); http_response_code(500);",
            "500 Internal Server Error",
        ),
        (
            "header('HTTP/1.1 404 Not Found'); header('HTTP/1.1 200 OK');",
            "200 OK",
        ),
    ] {
        expect_status(code, status_line);
    }
}

#[test]
fn a_status_line_may_be_incomplete() {
    for (code, status) in [
        ("header('HTTP/');", 200),
        ("header('HTTP/1.1');", 200),
        ("header('HTTP/1.1 ');", 200),
        ("header('HTTP/1.1 404');", 404),
        ("header('HTTP/1.1  404');", 404),
        ("header('HTTP/1.1 404 ' . str_repeat('x', 100000));", 404),
        ("header('Status: 404');", 404),
    ] {
        let response = run(&format!("{code} header('X-Seen: yes'); echo 'body';")).send();
        assert_eq!(
            (response.status, &*response.text()),
            (status, "body"),
            "after {code}: {response:?}"
        );
        assert_eq!(response.header("X-Seen"), "yes", "after {code}");
    }
}

#[test]
fn a_status_that_is_none_is_not_sent() {
    let mut wrong = Vec::new();
    for code in [
        "header('HTTP/1.1 abc');",
        "header('HTTP/1.1 4');",
        "header('HTTP/1.1 1000');",
        "header('HTTP/1.1 999999999999');",
        "header('HTTP/1.1 -1');",
        "header('Status:');",
        "header('Status: abc');",
        "http_response_code(0);",
        "http_response_code(999);",
        "http_response_code(1000);",
        "http_response_code(-5);",
    ] {
        let response = run(&format!("{code} header('X-Seen: yes'); echo 'body';")).send();
        assert_eq!(response.text(), "body", "after {code}: {response:?}");
        assert_eq!(response.header("X-Seen"), "yes", "after {code}");
        // Web servers answer 502 to anything but three digits.
        if !(100..=999).contains(&response.status) {
            wrong.push((code, response.status_line));
        }
    }
    assert!(wrong.is_empty(), "no status: {wrong:?}");
}

#[test]
fn a_status_header_is_the_status() {
    expect_status("header('Status: 404 Not Found');", "404 Not Found");
    expect_status(
        "header('Status: 418 Short and stout');",
        "418 Short and stout",
    );
}

#[test]
fn a_code_without_a_name_of_its_own_is_sent() {
    assert_eq!(run("http_response_code(599);").send().status, 599);
    assert_eq!(run("http_response_code(299);").send().status, 299);
}

#[test]
fn location_redirects() {
    let response = expect_status("header('Location: /elsewhere');", "302 Found");
    assert_eq!(response.header("Location"), "/elsewhere");
    expect_status(
        "header('Location: /elsewhere', true, 301);",
        "301 Moved Permanently",
    );
    expect_status(
        "header('Location: /elsewhere', true, 308);",
        "308 Permanent Redirect",
    );
    expect_status(
        "http_response_code(201); header('Location: /new');",
        "201 Created",
    );
    expect_status(
        "header('HTTP/1.1 303 See Other'); header('Location: /elsewhere');",
        "303 See Other",
    );
}

#[test]
fn www_authenticate_asks_for_a_password() {
    expect_status(
        "header('WWW-Authenticate: Basic realm=\"x\"');",
        "401 Unauthorized",
    );
}

#[test]
fn an_answer_may_have_no_body() {
    let response = expect_status("http_response_code(204);", "204 No Content");
    assert_eq!(response.text(), "");
    let response = expect_status(
        "header('ETag: \"x\"'); http_response_code(304);",
        "304 Not Modified",
    );
    assert_eq!(response.text(), "");
    assert_eq!(response.header("ETag"), "\"x\"");
}

// --- Headers -----------------------------------------------------------------------------------

#[test]
fn headers_replace_each_other_unless_told_otherwise() {
    let response = run(
        "header('X-A: 1'); header('X-A: 2'); header('x-a: 3', false); header('X-B: 1'); header_remove('X-B');
         header('X-Empty:'); echo json_encode(headers_list());",
    )
    .send();
    assert_eq!(response.headers("X-A"), ["2", "3"]);
    assert_eq!(response.headers("X-B"), [""; 0]);
    assert!(response.text().contains("\"X-A: 2\""), "{response:?}");
}

#[test]
fn the_content_type_may_be_any() {
    for (code, expected) in [
        (
            "header('Content-Type: application/json');",
            "application/json",
        ),
        (
            "header('Content-Type: text/plain');",
            "text/plain;charset=UTF-8",
        ),
        (
            "header('Content-type: text/plain; charset=iso-8859-1');",
            "text/plain; charset=iso-8859-1",
        ),
        ("ini_set('default_charset', '');", "text/html"),
        (
            "ini_set('default_mimetype', 'text/x-test');",
            "text/x-test; charset=UTF-8",
        ),
    ] {
        let response = run(code).send();
        assert_eq!(response.header("Content-Type"), expected, "after {code}");
    }
}

#[test]
fn many_cookies_may_be_set() {
    let response = run(
        "for ($i = 0; $i < 60; $i++) { setcookie(\"c$i\", \"v $i\", ['path' => '/', 'httponly' => true, 'samesite' => 'Lax']); }
         setrawcookie('raw', 'a=b');",
    )
    .send();
    let cookies = response.headers("Set-Cookie");
    assert_eq!(cookies.len(), 61, "{response:?}");
    assert_eq!(cookies[7], "c7=v%207; path=/; HttpOnly; SameSite=Lax");
    assert_eq!(cookies[60], "raw=a=b");
}

#[test]
fn long_headers_are_sent_whole() {
    let response = run("header('X-Long: ' . str_repeat('x', 100000)); echo 'body';").send();
    response.expect_text("body");
    assert_eq!(response.header("X-Long").len(), 100_000);
}

#[test]
fn a_header_cannot_smuggle_in_another() {
    let response = run(r#"header("X-A: 1\r\nX-Evil: 1"); header("X-B: 1\nX-Evil: 1"); header("X-C: \0"); echo 'body';"#).send();
    response.expect_text("body");
    assert_eq!(response.headers("X-Evil"), [""; 0], "{response:?}");
    assert!(
        response.stderr.contains("Header may not contain"),
        "{response:?}"
    );
}

#[test]
fn headers_after_the_body_are_too_late() {
    let response =
        run("echo 'body'; flush(); header('X-Late: 1'); var_dump(headers_sent());").send();
    response.expect_text("bodybool(true)\n");
    assert_eq!(response.headers("X-Late"), [""; 0]);
    assert!(
        response.stderr.contains("headers already sent"),
        "{response:?}"
    );
}

#[test]
fn a_header_callback_has_the_last_word() {
    let response =
        run("header_register_callback(fn() => header('X-Last: word')); echo 'body';").send();
    response.expect_text("body");
    assert_eq!(response.header("X-Last"), "word");
}

#[test]
fn expose_php_can_be_turned_off() {
    let server = Setup::new().args(&["-d", "expose_php=0"]).start();
    assert_eq!(
        server.run("echo 1;").send().headers("X-Powered-By"),
        [""; 0]
    );
    let server = Setup::new().args(&["-d", "expose_php=1"]).start();
    assert!(
        server
            .run("echo 1;")
            .send()
            .header("X-Powered-By")
            .starts_with("PHP/8.")
    );
}

// --- Body --------------------------------------------------------------------------------------

#[test]
fn flushed_pieces_arrive_before_the_script_ends() {
    let flags: Vec<_> = (0..3)
        .map(|number| SERVER.state().join(format!("flush-{number}")))
        .collect();
    let wait = |number: usize| {
        format!(
            "while (!file_exists('{}')) {{ usleep(1000); clearstatcache(); }}",
            flags[number].display()
        )
    };
    let mut client = run(&format!(
        "echo 'zero'; flush(); {} echo 'one'; flush(); {} echo 'two'; flush(); {} echo 'three';",
        wait(0),
        wait(1),
        wait(2)
    ))
    .keep()
    .start();
    let mut seen = String::new();
    for (piece, flag) in ["zero", "one", "two"].into_iter().zip(&flags) {
        while !seen.contains(piece) {
            let record = client
                .record_within(Duration::from_secs(10))
                .unwrap_or_else(|why| {
                    panic!("{piece:?} was flushed, and did not arrive ({why:?}); so far: {seen:?}")
                });
            assert_eq!(record.kind, STDOUT, "{record:?}");
            seen += &String::from_utf8(record.content).unwrap();
        }
        fs::write(flag, "").unwrap();
    }
    loop {
        let record = client.record();
        if record.kind == END {
            break;
        }
        seen += &String::from_utf8(record.content).unwrap();
    }
    assert!(seen.ends_with("\r\n\r\nzeroonetwothree"), "{seen:?}");
}

#[test]
fn implicit_flush_sends_each_echo() {
    let flag = SERVER.state().join("implicit");
    let mut client = run(&format!(
        "ob_implicit_flush(); while (ob_get_level()) ob_end_flush(); echo 'one';
         while (!file_exists('{}')) {{ usleep(1000); clearstatcache(); }} echo 'two';",
        flag.display()
    ))
    .start();
    let record = client.record();
    assert!(
        String::from_utf8_lossy(&record.content).ends_with("one"),
        "{record:?}"
    );
    fs::write(flag, "").unwrap();
    let (mut rest, mut last) = (String::new(), 0);
    while last != END {
        let record = client.record();
        last = record.kind;
        if last == STDOUT {
            rest += &String::from_utf8_lossy(&record.content);
        }
    }
    assert_eq!(rest, "two");
}

#[test]
fn output_buffers_nest() {
    run("ob_start(fn($b) => strtoupper($b)); echo 'a'; ob_start(); echo 'dropped'; ob_end_clean(); ob_start(); echo 'b';
         $b = ob_get_clean(); echo $b, 'c';")
    .send()
    .expect_text("ABC");
}

#[test]
fn buffers_that_are_left_open_are_sent() {
    run("ob_start(); echo 'a'; ob_start(fn($b) => \"[$b]\"); echo 'b';")
        .send()
        .expect_text("a[b]");
}

#[test]
fn headers_may_follow_buffered_output() {
    let response =
        run("ob_start(); echo 'body'; header('X-Late: yes'); http_response_code(404);").send();
    response.expect(404, "body");
    assert_eq!(response.header("X-Late"), "yes");
}

#[test]
fn output_compression_works() {
    let response = run("echo ini_set('zlib.output_compression', '1'), str_repeat('x', 10000);")
        .param("HTTP_ACCEPT_ENCODING", "gzip")
        .send();
    assert_eq!(response.header("Content-Encoding"), "gzip");
    assert_eq!(response.body[..2], [0x1f, 0x8b], "{response:?}");
    assert!(response.body.len() < 1000);
}

#[test]
fn any_byte_may_be_sent() {
    let response = run("for ($i = 0; $i < 256; $i++) { echo chr($i); }").send();
    assert!(
        response.body.iter().copied().eq(0..=255),
        "{:?}",
        response.body
    );
}

#[test]
fn a_long_answer_is_sent_whole() {
    let response = run("for ($i = 0; $i < 2000000; $i++) { echo \"line $i\\n\"; }").send();
    let expected: usize = (0..2_000_000)
        .map(|number: u32| format!("line {number}\n").len())
        .sum();
    assert_eq!(response.body.len(), expected);
    let text = String::from_utf8(response.body).unwrap();
    assert!(
        text.lines()
            .enumerate()
            .all(|(at, line)| line == format!("line {at}"))
    );
}

#[test]
fn one_echo_may_be_long() {
    let response = run("echo str_repeat('0123456789', 2000000);").send();
    assert_eq!(response.body.len(), 20_000_000);
    assert!(response.body.chunks(10).all(|ten| ten == b"0123456789"));
}

#[test]
fn files_and_programs_write_to_the_answer() {
    SERVER.file("data.txt", "the data");
    run("readfile('data.txt'); passthru('echo and more'); fwrite(fopen('php://output', 'w'), 'and output');")
        .send()
        .expect_text("the dataand more\nand output");
}

#[test]
fn what_is_written_to_the_standard_error_is_logged() {
    let response = run(
        "$err = fopen('php://stderr', 'w'); fwrite($err, \"said on stderr\\n\"); fclose($err);
         $out = fopen('php://stdout', 'w'); fwrite($out, \"said on stdout\\n\"); fclose($out); echo 'body';",
    )
    .send();
    response.expect_text("body");
    SERVER.expect_log(&["said on stderr"]);
    SERVER.expect_log(&["said on stdout"]);
}
