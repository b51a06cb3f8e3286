//! Streams: bodies, answers, their ends, and ABORT_REQUEST.

use std::io::Write as _;
use std::thread;
use std::time::Instant;

use super::{SERVER, SOON, await_running, echo, hello, wait_for};
use crate::support::record::{
    ABORT, AUTHORIZER, DATA, END, FILTER, PARAMS, REQUEST_COMPLETE, STDERR, STDIN, STDOUT,
    UNKNOWN_ROLE, record,
};
use crate::support::{Client, PATIENCE, Request, Setup, within};

#[test]
fn c35_a_request_without_parameters_gets_an_answer() {
    let mut request = hello().keep();
    request.params.clear();
    let mut client = SERVER.connect();
    let response = client.request(&request);
    assert!(
        matches!(response.status, 400 | 404),
        "expected 400 or 404, came {response:?}"
    );
    client.request(&hello().keep()).expect_text("hello");
}

#[test]
fn c36_an_empty_stdin_before_begin_is_ignored() {
    let mut client = SERVER.connect();
    client.send(&record(STDIN, 1, b""));
    client.request(&echo("a body").keep()).expect_text("a body");
    client.send(&record(STDIN, 1, b""));
    client.request(&echo("a body").keep()).expect_text("a body");
}

#[test]
fn c37_a_body_may_end_before_its_content_length() {
    let request = SERVER
        .run("$body = file_get_contents('php://input'); echo strlen($body), ':', $body;")
        .post("text/plain", "short")
        .param("CONTENT_LENGTH", "1000")
        .keep();
    let start = Instant::now();
    let mut client = SERVER.connect();
    client.request(&request).expect_text("5:short");
    let taken = start.elapsed();
    assert!(
        taken < SOON,
        "the end of the body was noticed after {taken:?}"
    );
    client.request(&hello().keep()).expect_text("hello");
}

#[test]
fn c38_what_comes_after_content_length_is_drained_and_never_taken_for_records() {
    let smuggled = hello().id(7).bytes();
    let mut client = SERVER.connect();
    for read in [true, false] {
        let request = if read {
            echo("12345").keep()
        } else {
            hello().keep()
        };
        let request = request.method("POST").param("CONTENT_LENGTH", "5");
        client.send(&request.head());
        client.send(&record(STDIN, 1, &[b"12345", &smuggled[..]].concat()));
        client.send(&record(STDIN, 1, &smuggled));
        client.send(&record(STDIN, 1, b""));
        let expected = if read { "12345" } else { "hello" };
        client.response(1).expect_text(expected);
        client.request(&echo("next").keep()).expect_text("next");
        client.expect_alive();
    }
}

#[test]
fn c39_an_answer_that_starts_before_the_body_ends_is_no_deadlock() {
    // More than fits into any socket's buffer, in both directions, and the client reads nothing until all is sent.
    let body = vec![b'b'; 8 << 20];
    let request = SERVER
        .run(
            "for ($i = 0; $i < 128; $i++) { echo str_repeat('a', 65536); flush(); }
             $body = fopen('php://input', 'r'); $length = 0;
             while (!feof($body)) { $length += strlen(fread($body, 65536)); }
             echo $length;",
        )
        .post("text/plain", body)
        .keep();
    let mut client = SERVER.connect();
    let mut sender = client.sender();
    let bytes = request.bytes();
    let sending = thread::spawn(move || sender.write_all(&bytes));
    let response = client.response(1);
    sending.join().unwrap().unwrap();
    assert_eq!(response.body.len(), (8 << 20) + 7, "{:?}", response.stderr);
    assert!(response.text().ends_with("a8388608"));
    client.request(&hello().keep()).expect_text("hello");
}

#[test]
fn c39_a_client_may_send_its_whole_body_before_it_reads() {
    let body = vec![b'b'; 8 << 20];
    let mut client = SERVER.connect();
    let request = SERVER
        .run("echo str_repeat('a', 1 << 20), strlen(file_get_contents('php://input'));")
        .post("text/plain", body);
    client.send(&request.bytes());
    let response = client.response(1);
    assert_eq!(response.body.len(), (1 << 20) + 7, "{:?}", response.stderr);
}

#[test]
fn c40_an_abort_ends_a_request_promptly() {
    let aborted = |client: &mut Client| {
        let response = client.response_within(1, SOON);
        assert_eq!(response.protocol_status, REQUEST_COMPLETE, "{response:?}");
    };
    let mut client = SERVER.connect();
    let request = echo("a body").keep();

    // Before the parameters end.
    client.send(&request.begin());
    client.send(&record(ABORT, 1, b""));
    aborted(&mut client);
    client.send(&request.begin());
    client.send(&record(PARAMS, 1, &request.pairs()));
    client.send(&record(ABORT, 1, b""));
    aborted(&mut client);

    // Before the body ends.
    client.send(&request.head());
    client.send(&record(STDIN, 1, b"a b"));
    client.send(&record(ABORT, 1, b""));
    aborted(&mut client);

    // While it runs.
    let flag = SERVER.state().join("c40");
    client.send(&wait_for(&SERVER, &flag).keep().bytes());
    await_running(&flag);
    client.send(&record(ABORT, 1, b""));
    aborted(&mut client);
    std::fs::write(&flag, "").unwrap();

    // After its end.
    client.request(&request).expect_text("a body");
    client.send(&record(ABORT, 1, b""));
    client.expect_alive();
    client.request(&request).expect_text("a body");
}

#[test]
fn c41_a_script_whose_client_is_gone_ends_at_its_next_output() {
    let server = Setup::new().children(1).start();
    let (flag, end) = (server.state().join("flag"), server.state().join("end"));
    let script = server.run(&format!(
        "register_shutdown_function(fn() => file_put_contents('{end}', connection_status()));
         touch('{flag}.running');
         while (true) {{ echo 'x'; flush(); usleep(5000); }}",
        flag = flag.display(),
        end = end.display(),
    ));
    let client = script.start();
    await_running(&flag);
    drop(client);
    let status = within(PATIENCE / 3, "the script ends", || {
        std::fs::read_to_string(&end)
            .ok()
            .filter(|text| !text.is_empty())
    });
    assert_eq!(status, "1", "connection_status() is CONNECTION_ABORTED");
    server.expect_alive();
}

#[test]
fn c42_stderr_comes_between_stdout() {
    let response = SERVER
        .run("echo 'one'; flush(); error_log('a problem'); echo 'two'; flush(); error_log('another'); echo 'three';")
        .send();
    response.expect_text("onetwothree");
    assert!(
        response.stderr.contains("a problem") && response.stderr.contains("another"),
        "{response:?}"
    );
}

#[test]
fn c42_an_answer_may_have_nothing_but_stderr() {
    let response = SERVER.run("error_log('a problem');").send();
    response.expect_text("");
    assert_eq!(response.stderr, "PHP message: a problem");
}

#[test]
fn c43_an_empty_record_ends_each_stream_that_was_used() {
    let ends = |request: Request, kind: u8| {
        let response = request.send();
        let of_kind: Vec<_> = response
            .records
            .iter()
            .filter(|record| record.kind == kind)
            .collect();
        let (last, before) = of_kind
            .split_last()
            .unwrap_or_else(|| panic!("no record of type {kind}: {response:?}"));
        assert!(last.content.is_empty(), "the last one: {last:?}");
        assert!(
            before.iter().all(|record| !record.content.is_empty()),
            "{:?}",
            response.records
        );
    };
    ends(hello(), STDOUT);
    ends(SERVER.run("error_log('a problem'); echo 1;"), STDOUT);
    ends(SERVER.run("error_log('a problem'); echo 1;"), STDERR);
    ends(SERVER.run("error_log('a problem');"), STDERR);
    // And a stream that was not used has no end.
    let kinds: Vec<u8> = hello()
        .send()
        .records
        .iter()
        .map(|record| record.kind)
        .collect();
    assert_eq!(kinds, [STDOUT, STDOUT, END]);
}

#[test]
fn c44_end_request_has_the_right_id_and_nothing_in_its_reserved_bytes() {
    for request in [
        hello().id(300),
        SERVER.run("exit(3);").id(300),
        SERVER.get("/missing.php").id(300),
        hello().id(300).role(9),
    ] {
        // On a fresh buffer and on one that was used.
        let mut client = SERVER.connect();
        let response = client.request(&request);
        let end = response.records.last().unwrap();
        assert_eq!((end.version, end.kind, end.id), (1, END, 300));
        assert_eq!(end.content[5..], [0, 0, 0], "{end:?}");
    }
    let response = hello().send();
    assert_eq!(
        (response.app_status, response.protocol_status),
        (0, REQUEST_COMPLETE)
    );
}

#[test]
fn c45_long_answers_are_split_into_records_that_end_at_multiples_of_eight() {
    let response = SERVER
        .run("for ($i = 0; $i < 200000; $i++) { echo chr(97 + $i % 26); } error_log('odd');")
        .send();
    let expected: Vec<u8> = (0..200_000).map(|at| b'a' + (at % 26) as u8).collect();
    assert!(response.body == expected, "{response:?}");
    for record in &response.records {
        let size = 8 + record.content.len() + usize::from(record.padding);
        assert_eq!(size % 8, 0, "{record:?}");
        assert_eq!(record.version, 1);
    }
}

#[test]
fn c46_a_filter_is_refused_or_its_data_drained() {
    let request = echo("a body").keep().role(FILTER);
    let mut client = SERVER.connect();
    client.send(&request.bytes());
    client.send(&record(DATA, 1, b"the file's data"));
    client.send(&record(DATA, 1, b""));
    let response = client.response(1);
    if response.protocol_status != UNKNOWN_ROLE {
        response.expect_text("a body");
    }
    client.request(&hello().keep()).expect_text("hello");
}

#[test]
fn c47_an_authorizer_needs_neither_script_name_nor_content_length() {
    let mut request = SERVER
        .run("header('Variable-USER: anna'); echo $_SERVER['FCGI_ROLE'], strlen(file_get_contents('php://input'));")
        .role(AUTHORIZER)
        .keep();
    for name in [
        "SCRIPT_NAME",
        "CONTENT_LENGTH",
        "PATH_INFO",
        "PATH_TRANSLATED",
    ] {
        request = request.without(name);
    }
    // It has no body: its answer comes without an end of one.
    let mut client = SERVER.connect();
    client.send(&request.head());
    let response = client.response(1);
    response.expect_text("AUTHORIZER0");
    assert_eq!(response.header("Variable-USER"), "anna");
    // If there is an end nevertheless, it does no harm.
    client.request(&request).expect_text("AUTHORIZER0");
    client.request(&hello().keep()).expect_text("hello");
}

#[test]
fn the_role_is_a_parameter() {
    SERVER
        .run("echo $_SERVER['FCGI_ROLE'];")
        .send()
        .expect_text("RESPONDER");
}
