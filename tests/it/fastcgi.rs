//! The protocol, in raw bytes. Section numbers are those of the FastCGI 1.0 specification.

use std::io::Write as _;
use std::path::Path;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use super::support::record::{
    ABORT, AUTHORIZER, BEGIN, DATA, END, FILTER, GET_VALUES, GET_VALUES_RESULT, OVERLOADED, PARAMS,
    REQUEST_COMPLETE, STDERR, STDIN, STDOUT, UNKNOWN_ROLE, UNKNOWN_TYPE, begin, length, long_length,
    padded, pair, read_pairs, record, stream,
};
use super::support::{Client, PATIENCE, Request, Server, Setup, eventually, within};

/// For what must happen at once.
const SOON: Duration = Duration::from_secs(3);

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Setup::new()
        .pool("php_value[memory_limit] = 512M\nphp_value[post_max_size] = 256M")
        .file("hello.php", "hello")
        .file("body.php", "<?php echo file_get_contents('php://input');")
        .file("param.php", "<?php echo $_SERVER['X_PARAM'] ?? 'none';")
        .start_shared()
});

fn hello() -> Request {
    SERVER.get("/hello.php")
}

/// A request that is answered with the parameter X_PARAM.
fn param() -> Request {
    SERVER.get("/param.php")
}

/// A POST that is answered with its body.
fn echo(body: impl Into<Vec<u8>>) -> Request {
    SERVER.get("/body.php").post("text/plain", body)
}

/// A request that runs until the file is there.
fn wait_for(server: &Server, path: &Path) -> Request {
    let path = path.display();
    server.run(&format!(
        "echo 'waited'; touch('{path}.running');
         while (!file_exists('{path}')) {{ usleep(2000); clearstatcache(); }}"
    ))
}

fn await_running(path: &Path) {
    let running = path.with_extension("running");
    eventually("the script runs", || running.exists().then_some(()));
}

/// PARAMS with this content in one record, as part of a whole GET.
fn with_params(request: &Request, params: &[Vec<u8>]) -> Vec<u8> {
    [
        request.begin(),
        params.concat(),
        record(PARAMS, request.id, b""),
        record(STDIN, request.id, b""),
    ]
    .concat()
}

// --- Framing -----------------------------------------------------------------------------------

#[test]
fn c01_a_request_may_come_one_byte_at_a_time() {
    let mut client = SERVER.connect();
    for byte in echo("a body").keep().bytes() {
        client.send(&[byte]);
    }
    client.response(1).expect_text("a body");
}

#[test]
fn c02_a_request_may_come_in_one_piece() {
    echo("a body").send().expect_text("a body");
}

#[test]
fn c03_every_record_may_be_padded() {
    for padding in [1, 7, 8, 255] {
        let request = echo("a body").keep();
        let content: [u8; 8] = [0, 1, 1, 0, 0, 0, 0, 0];
        let mut client = SERVER.connect();
        // Twice, so that a byte too many or too few shows.
        for _ in 0..2 {
            client.send(&padded(BEGIN, 1, &content, padding));
            client.send(&padded(PARAMS, 1, &request.pairs(), padding));
            client.send(&padded(PARAMS, 1, b"", padding));
            client.send(&padded(STDIN, 1, b"a body", padding));
            client.send(&padded(STDIN, 1, b"", padding));
            client.response(1).expect_text("a body");
        }
        client.send(&padded(GET_VALUES, 0, &pair(b"FCGI_MPXS_CONNS", b""), padding));
        assert_eq!(client.record().kind, GET_VALUES_RESULT, "padding {padding}");
    }
}

#[test]
fn c04_empty_records_may_be_padded() {
    let mut client = SERVER.connect();
    for body in ["first", "second"] {
        let request = echo(body).keep();
        client.send(&request.begin());
        client.send(&record(PARAMS, 1, &request.pairs()));
        client.send(&padded(PARAMS, 1, b"", 8));
        client.send(&record(STDIN, 1, body.as_bytes()));
        client.send(&padded(STDIN, 1, b"", 3));
        client.response(1).expect_text(body);
    }
}

#[test]
fn c05_the_largest_record_has_65535_bytes_and_255_of_padding() {
    let body = vec![b'x'; 0xffff];
    let request = echo(body.clone()).keep();
    let mut client = SERVER.connect();
    client.send(&request.head());
    client.send(&padded(STDIN, 1, &body, 255));
    client.send(&record(STDIN, 1, b""));
    let response = client.response(1);
    assert!(response.body == body, "the body came back as {response:?}");
    client.request(&hello().keep()).expect_text("hello");
}

#[test]
fn c06_another_version_closes_the_connection_and_is_logged() {
    let server = Setup::new().children(1).start();
    for version in [0, 2, 255] {
        let mut client = server.connect();
        let mut bytes = server.run("echo 1;").bytes();
        bytes[0] = version;
        let _ = client.try_send(&bytes);
        client.expect_close(SOON);
        server.expect_log(&["WARNING", &format!("version {version} ")]);
    }
    server.expect_alive();
}

#[test]
fn c07_the_reserved_byte_of_a_header_means_nothing() {
    let request = echo("a body");
    let mut begin = request.begin();
    begin[7] = 0xff;
    // Those of BEGIN_REQUEST's body, too.
    begin[11..16].copy_from_slice(&[0xff; 5]);
    let mut params = record(PARAMS, 1, &request.pairs());
    params[7] = 1;
    let mut client = SERVER.connect();
    client.send(&begin);
    client.send(&params);
    client.send(&record(PARAMS, 1, b""));
    client.send(&record(STDIN, 1, b"a body"));
    client.send(&record(STDIN, 1, b""));
    client.response(1).expect_text("a body");
}

#[test]
fn c08_a_header_that_never_completes_times_out() {
    let server = Setup::new().children(1).pool("request_header_timeout = 1s").start();
    let request = server.run("echo 1;");
    let whole = request.bytes();
    let start = Instant::now();
    // In the first header, in BEGIN_REQUEST, between it and PARAMS, in the middle of PARAMS.
    let mut clients: Vec<Client> = [3, 12, 16, 16 + 8 + 5, request.head().len() - 8]
        .into_iter()
        .map(|count| {
            let mut client = server.connect();
            client.send(&whole[..count]);
            client
        })
        .collect();
    server.expect_alive();
    for client in &mut clients {
        client.expect_close(PATIENCE / 3);
    }
    let taken = start.elapsed();
    assert!(taken >= Duration::from_millis(900), "closed after only {taken:?}");
    server.expect_alive();
}

// --- Name-value pairs (section 3.4) ------------------------------------------------------------

#[test]
fn c09_lengths_of_127_and_128_take_one_byte_and_four() {
    for size in [126, 127, 128, 129] {
        let name = format!("N{}", "n".repeat(size - 1));
        let value = "v".repeat(size);
        let request = SERVER
            .run(&format!("echo $_SERVER['{name}'] ?? 'none';"))
            .param(&name, &value);
        assert_eq!(length(size).len(), if size < 128 { 1 } else { 4 });
        request.send().expect_text(&value);
    }
}

#[test]
fn c10_a_short_length_may_be_written_in_four_bytes() {
    let request = param();
    let mut pairs = request.pairs();
    pairs.extend(long_length(7));
    pairs.extend(long_length(5));
    pairs.extend(b"X_PARAMvalue");
    let mut client = SERVER.connect();
    client.send(&with_params(&request, &[record(PARAMS, 1, &pairs)]));
    client.response(1).expect_text("value");
}

#[test]
fn c11_a_length_may_be_split_across_records() {
    let value = "v".repeat(300);
    let request = param();
    let before = request.pairs();
    let last = pair(b"X_PARAM", value.as_bytes());
    // The name's length is 1 byte, the value's 4.
    for split in 1..=5 {
        let (head, tail) = last.split_at(split);
        let head = [&before[..], head].concat();
        let mut client = SERVER.connect();
        client.send(&with_params(
            &request,
            &[record(PARAMS, 1, &head), record(PARAMS, 1, tail)],
        ));
        client.response(1).expect_text(&value);
    }
}

#[test]
fn c12_names_and_values_may_be_split_across_records() {
    let request = param();
    let before = request.pairs();
    let last = pair(b"X_PARAM", b"value");
    for split in 2..last.len() {
        let (head, tail) = last.split_at(split);
        let head = [&before[..], head].concat();
        let mut client = SERVER.connect();
        client.send(&with_params(
            &request,
            &[record(PARAMS, 1, &head), record(PARAMS, 1, tail)],
        ));
        client.response(1).expect_text("value");
    }
}

#[test]
fn c13_params_may_come_in_records_of_one_byte() {
    let request = param().param("X_PARAM", "value");
    let records: Vec<_> = request
        .pairs()
        .into_iter()
        .map(|byte| record(PARAMS, 1, &[byte]))
        .collect();
    let mut client = SERVER.connect();
    client.send(&with_params(&request, &records));
    client.response(1).expect_text("value");
}

#[test]
fn c14_names_and_values_may_be_empty() {
    SERVER
        .run("var_dump($_SERVER['X_EMPTY'], $_SERVER['X_AFTER']);")
        .another_param("", "a value without a name")
        .another_param("", "")
        .param("X_EMPTY", "")
        .param("X_AFTER", "after")
        .send()
        .expect_text("string(0) \"\"\nstring(5) \"after\"\n");
}

#[test]
fn c15_a_pair_that_runs_past_the_end_is_rejected() {
    let request = hello().keep();
    let mut endings = vec![
        length(7),
        [length(7), length(5)].concat(),
        [length(7), length(5), b"X_PARAMval".to_vec()].concat(),
    ];
    // In the middle of a length of four bytes.
    endings.push(vec![0x80, 0]);
    for ending in endings {
        let pairs = [request.pairs(), ending].concat();
        let mut client = SERVER.connect();
        let _ = client.try_send(&with_params(&request, &[record(PARAMS, 1, &pairs)]));
        client.expect_close(SOON);
    }
    hello().send().expect_text("hello");
}

#[test]
fn c16_lengths_near_two_gigabytes_take_no_memory() {
    let server = Setup::new().children(1).start();
    let request = server.run("echo 1;");
    server.expect_alive();
    let before = server.memory();
    let most = [0xff, 0xff, 0xff, 0xff];
    let mut clients: Vec<Client> = [
        [&most[..], &most, b"name"].concat(),
        [&[1][..], &most, b"nvalue"].concat(),
        [&most[..], &[1], b"name"].concat(),
    ]
    .into_iter()
    .map(|pairs| {
        let mut client = server.connect();
        client.send(&request.begin());
        let _ = client.try_send(&record(PARAMS, 1, &pairs));
        client
    })
    .collect();
    server.expect_alive();
    let growth = server.memory().saturating_sub(before);
    assert!(growth < 16 << 20, "memory grew by {growth} bytes");
    for client in &mut clients {
        let _ = client.try_send(&record(PARAMS, 1, b""));
        client.expect_close(SOON);
    }
    server.expect_alive();
}

#[test]
fn c17_of_duplicate_names_the_last_wins() {
    param()
        .another_param("X_PARAM", "first")
        .another_param("X_PARAM", "second")
        .another_param("X_PARAM", "third")
        .send()
        .expect_text("third");
}

#[test]
fn c18_params_may_be_large_and_many() {
    for size in [60_000, 70_000, 1 << 20] {
        let value = "v".repeat(size);
        let response = param().param("X_PARAM", &value).send();
        assert!(response.text() == value, "{size} bytes: {response:?}");
    }
    let mut request = SERVER.run(
        "$sum = 0; for ($i = 0; $i < 10000; $i++) { $sum += $_SERVER[\"X_$i\"] === \"value $i\"; } echo $sum;",
    );
    for number in 0..10_000 {
        request = request.another_param(format!("X_{number}"), format!("value {number}"));
    }
    request.send().expect_text("10000");
}

// --- Requests ----------------------------------------------------------------------------------

#[test]
fn c19_ids_from_1_to_65535_are_echoed() {
    let mut client = SERVER.connect();
    for id in [1, 255, 256, 65_535] {
        let response = client.request(&hello().keep().id(id));
        response.expect_text("hello");
        let ids: Vec<u16> = response.records.iter().map(|record| record.id).collect();
        assert!(ids.iter().all(|&other| other == id), "expected {id}, came {ids:?}");
    }
}

#[test]
fn c20_records_of_an_inactive_id_are_ignored() {
    let request = echo("a body").keep();
    let noise = |client: &mut Client| {
        client.send(&record(STDIN, 9, b"not mine"));
        client.send(&record(PARAMS, 9, &pair(b"X_PARAM", b"not mine")));
        client.send(&record(PARAMS, 9, b""));
        client.send(&record(ABORT, 9, b""));
        client.send(&record(DATA, 9, b"not mine"));
        client.send(&record(STDIN, 9, b""));
    };
    let mut client = SERVER.connect();
    for _ in 0..2 {
        noise(&mut client);
        client.send(&request.begin());
        noise(&mut client);
        client.send(&record(PARAMS, 1, &request.pairs()));
        noise(&mut client);
        client.send(&record(PARAMS, 1, b""));
        noise(&mut client);
        client.send(&record(STDIN, 1, b"a body"));
        noise(&mut client);
        client.send(&record(STDIN, 1, b""));
        client.response(1).expect_text("a body");
    }
    client.expect_alive();
}

#[test]
fn c21_a_second_begin_of_an_active_request_changes_nothing() {
    let request = echo("a body").keep();
    let mut client = SERVER.connect();
    client.send(&request.begin());
    client.send(&begin(1, 1, 0));
    client.send(&record(PARAMS, 1, &request.pairs()));
    client.send(&begin(1, 1, 0));
    client.send(&record(PARAMS, 1, b""));
    client.send(&begin(1, 9, 0));
    client.send(&record(STDIN, 1, b"a body"));
    client.send(&record(STDIN, 1, b""));
    client.response(1).expect_text("a body");
    // One answer, and not another one.
    client.expect_alive();
}

#[test]
fn c22_another_request_may_begin_while_one_runs() {
    let flag = SERVER.state().join("c22");
    let mut client = SERVER.connect();
    client.send(&wait_for(&SERVER, &flag).keep().id(1).bytes());
    await_running(&flag);
    // In the middle of the second one's parameters there is a third.
    let second = echo("second").keep().id(2);
    let pairs = second.pairs();
    client.send(&second.begin());
    client.send(&record(PARAMS, 2, &pairs[..20]));
    client.send(&echo("third").keep().id(3).bytes());
    client.send(&record(PARAMS, 2, &pairs[20..]));
    client.send(&record(PARAMS, 2, b""));
    client.send(&record(STDIN, 2, b"second"));
    client.send(&record(STDIN, 2, b""));
    std::fs::write(&flag, "").unwrap();
    client.response(1).expect_text("waited");
    client.response(2).expect_text("second");
    client.response(3).expect_text("third");
}

#[test]
fn c23_an_unknown_role_is_refused_and_the_connection_kept() {
    let mut client = SERVER.connect();
    for role in [0, 4, 0xffff] {
        let response = client.request(&hello().keep().role(role));
        assert_eq!(response.protocol_status, UNKNOWN_ROLE, "role {role}: {response:?}");
        assert_eq!(response.records.len(), 1, "role {role}: {response:?}");
    }
    client.request(&hello().keep()).expect_text("hello");
    let response = client.request(&hello().role(9));
    assert_eq!(response.protocol_status, UNKNOWN_ROLE);
    client.expect_close(SOON);
}

#[test]
fn c24_a_request_with_id_0_is_rejected() {
    let mut client = SERVER.connect();
    let _ = client.try_send(&hello().keep().id(0).bytes());
    client.expect_close(SOON);
    hello().send().expect_text("hello");
}

#[test]
fn c25_unknown_flags_are_ignored() {
    let mut request = hello();
    request.flags = 0xff;
    let mut client = SERVER.connect();
    client.request(&request).expect_text("hello");
    request.flags = 0xfe;
    client.request(&request).expect_text("hello");
    client.expect_close(SOON);
}

#[test]
fn c26_without_keep_conn_the_connection_is_closed_after_the_answer() {
    let mut client = SERVER.connect();
    client.request(&hello()).expect_text("hello");
    client.expect_close(SOON);
}

#[test]
fn c27_with_keep_conn_the_connection_stays_and_the_id_is_free_at_once() {
    let mut client = SERVER.connect();
    for number in 0..200 {
        let body = format!("body {number}");
        client.request(&echo(body.as_bytes()).keep()).expect_text(&body);
    }
}

#[test]
fn c28_requests_may_be_sent_before_the_answers_are_there() {
    let mut client = SERVER.connect();
    let all: Vec<u8> = (1..=20)
        .flat_map(|id| echo(format!("body {id}")).keep().id(id).bytes())
        .collect();
    client.send(&all);
    for id in 1..=20 {
        client.response(id).expect_text(&format!("body {id}"));
    }
}

#[test]
fn c29_a_saturated_server_says_so() {
    let server = Setup::new()
        .children(1)
        .pool("pm.max_queue = 1\nrequest_queue_timeout = 1s")
        .start();
    let flag = server.state().join("flag");
    let mut running = wait_for(&server, &flag).start();
    await_running(&flag);
    let start = Instant::now();
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut client = server.run("echo 'late';").start();
            thread::spawn(move || (client.response_within(1, PATIENCE / 3), start.elapsed()))
        })
        .collect();
    let answers: Vec<_> = waiting.into_iter().map(|thread| thread.join().unwrap()).collect();
    for (response, _) in &answers {
        let refused = response.protocol_status == OVERLOADED || response.status == 503;
        assert!(refused, "expected OVERLOADED or 503, came {response:?}");
    }
    let times: Vec<Duration> = answers.iter().map(|(_, taken)| *taken).collect();
    let at_once = times.iter().filter(|taken| **taken < Duration::from_millis(900)).count();
    assert!(at_once >= 4, "too few were turned away at once: {times:?}");
    assert!(times.iter().all(|taken| *taken < Duration::from_secs(5)), "turned away after {times:?}");
    std::fs::write(&flag, "").unwrap();
    running.response(1).expect_text("waited");
    server.expect_alive();
    server.expect_log(&["WARNING", "pm.max_queue"]);
    server.expect_log(&["WARNING", "request_queue_timeout"]);
}

// --- Management records ------------------------------------------------------------------------

fn get_values(client: &mut Client, names: &[&str]) -> Vec<(String, String)> {
    let query: Vec<u8> = names.iter().flat_map(|name| pair(name.as_bytes(), b"")).collect();
    client.send(&record(GET_VALUES, 0, &query));
    let answer = client.record();
    assert_eq!((answer.kind, answer.id), (GET_VALUES_RESULT, 0), "{answer:?}");
    let mut values = read_pairs(&answer.content);
    values.sort();
    values
}

#[test]
fn c30_get_values_tells_the_limits() {
    let mut client = SERVER.connect();
    let values = get_values(&mut client, &["FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"]);
    let names: Vec<&str> = values.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"]);
    let numbers: Vec<u32> = values
        .iter()
        .map(|(name, value)| value.parse().unwrap_or_else(|_| panic!("{name} = {value:?}")))
        .collect();
    assert!(numbers[0] >= 1 && numbers[1] >= 1, "{values:?}");
    assert_eq!(numbers[2], 1, "connections are multiplexed: {values:?}");
}

#[test]
fn c31_unknown_names_are_left_out_of_the_answer() {
    let mut client = SERVER.connect();
    let values = get_values(&mut client, &["FCGI_NONSENSE", "FCGI_MPXS_CONNS", ""]);
    assert_eq!(values, [("FCGI_MPXS_CONNS".to_owned(), "1".to_owned())]);
    assert_eq!(get_values(&mut client, &["FCGI_NONSENSE"]), []);
    assert_eq!(get_values(&mut client, &[]), []);
}

#[test]
fn c32_get_values_is_answered_in_the_middle_of_a_request() {
    let request = echo("a body").keep();
    let mut client = SERVER.connect();
    client.send(&request.begin());
    client.expect_alive();
    client.send(&record(PARAMS, 1, &request.pairs()[..30]));
    client.expect_alive();
    client.send(&record(PARAMS, 1, &request.pairs()[30..]));
    client.send(&record(PARAMS, 1, b""));
    client.expect_alive();
    client.send(&record(STDIN, 1, b"a bo"));
    client.expect_alive();
    client.send(&record(STDIN, 1, b"dy"));
    client.send(&record(STDIN, 1, b""));
    client.response(1).expect_text("a body");
}

#[test]
fn c33_an_unknown_management_record_is_answered_as_unknown() {
    let mut client = SERVER.connect();
    for kind in [12, 100, 255] {
        client.send(&padded(kind, 0, b"whatever", 5));
        let answer = client.record();
        assert_eq!((answer.kind, answer.id), (UNKNOWN_TYPE, 0), "{answer:?}");
        assert_eq!(answer.content, [kind, 0, 0, 0, 0, 0, 0, 0]);
    }
    client.request(&hello().keep()).expect_text("hello");
}

#[test]
fn c34_a_record_of_unknown_type_does_not_disturb_the_request_it_names() {
    let request = echo("a body").keep();
    let mut client = SERVER.connect();
    let noise = record(77, 1, b"whatever");
    client.send(&request.begin());
    client.send(&noise);
    client.send(&record(PARAMS, 1, &request.pairs()));
    client.send(&noise);
    client.send(&record(PARAMS, 1, b""));
    client.send(&noise);
    client.send(&record(STDIN, 1, b"a body"));
    client.send(&noise);
    client.send(&record(STDIN, 1, b""));
    client.response(1).expect_text("a body");
    client.expect_alive();
}

// --- Streams -----------------------------------------------------------------------------------

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
    assert!(taken < SOON, "the end of the body was noticed after {taken:?}");
    client.request(&hello().keep()).expect_text("hello");
}

#[test]
fn c38_what_comes_after_content_length_is_drained_and_never_taken_for_records() {
    let smuggled = hello().id(7).bytes();
    let mut client = SERVER.connect();
    for read in [true, false] {
        let request = if read { echo("12345").keep() } else { hello().keep() };
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
        std::fs::read_to_string(&end).ok().filter(|text| !text.is_empty())
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
        let of_kind: Vec<_> = response.records.iter().filter(|record| record.kind == kind).collect();
        let (last, before) = of_kind.split_last().unwrap_or_else(|| panic!("no record of type {kind}: {response:?}"));
        assert!(last.content.is_empty(), "the last one: {last:?}");
        assert!(before.iter().all(|record| !record.content.is_empty()), "{:?}", response.records);
    };
    ends(hello(), STDOUT);
    ends(SERVER.run("error_log('a problem'); echo 1;"), STDOUT);
    ends(SERVER.run("error_log('a problem'); echo 1;"), STDERR);
    ends(SERVER.run("error_log('a problem');"), STDERR);
    // And a stream that was not used has no end.
    let kinds: Vec<u8> = hello().send().records.iter().map(|record| record.kind).collect();
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
    assert_eq!((response.app_status, response.protocol_status), (0, REQUEST_COMPLETE));
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
    for name in ["SCRIPT_NAME", "CONTENT_LENGTH", "PATH_INFO", "PATH_TRANSLATED"] {
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
    SERVER.run("echo $_SERVER['FCGI_ROLE'];").send().expect_text("RESPONDER");
}

// --- All together ------------------------------------------------------------------------------

#[test]
fn many_requests_may_interleave_their_bodies() {
    let requests: Vec<Request> = (1..=30)
        .map(|id| {
            let body = format!("<{id}>").repeat(2000 + usize::from(id) * 37);
            echo(body).keep().id(id)
        })
        .collect();
    let mut client = SERVER.connect();
    for request in &requests {
        client.send(&request.head());
    }
    let pieces = requests.iter().map(|request| request.body.chunks(1000).count()).max().unwrap();
    for at in 0..=pieces {
        for request in &requests {
            match request.body.chunks(1000).nth(at) {
                Some(piece) => client.send(&record(STDIN, request.id, piece)),
                None if request.body.chunks(1000).count() == at => client.send(&record(STDIN, request.id, b"")),
                None => {}
            }
        }
    }
    for request in &requests {
        let response = client.response(request.id);
        assert!(response.body == request.body, "request {}: {response:?}", request.id);
    }
}

#[test]
fn an_abort_of_one_request_leaves_the_others_whole() {
    let mut client = SERVER.connect();
    for id in 1..=9 {
        client.send(&echo(format!("body {id}")).keep().id(id).head());
    }
    for id in 1..=9 {
        client.send(&record(STDIN, id, format!("body {id}").as_bytes()));
        if id % 2 == 0 {
            client.send(&record(ABORT, id, b""));
        }
        client.send(&record(STDIN, id, b""));
    }
    for id in 1..=9 {
        let response = client.response(id);
        if id % 2 == 1 {
            response.expect_text(&format!("body {id}"));
        }
    }
    client.expect_alive();
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let mut client = SERVER.run("usleep(100000); echo 'done';").keep().start();
    client.half_close();
    client.response(1).expect_text("done");
    client.expect_close(SOON);
}

#[test]
fn random_bytes_close_their_connection_and_no_other() {
    let mut kept = SERVER.connect();
    kept.request(&hello().keep()).expect_text("hello");
    // xorshift64, so that a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..100 {
        let bytes: Vec<u8> = (0..2000)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 24) as u8
            })
            .map(|byte| if byte == 1 { 0 } else { byte })
            .collect();
        let mut client = SERVER.connect();
        let _ = client.try_send(&bytes);
        client.expect_close(SOON);
    }
    kept.request(&hello().keep()).expect_text("hello");
    // An HTTP client that got lost.
    let mut client = SERVER.connect();
    let _ = client.try_send(b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n");
    client.expect_close(SOON);
    hello().send().expect_text("hello");
}

#[test]
fn a_connection_on_which_nothing_comes_times_out() {
    let server = Setup::new().children(1).pool("request_header_timeout = 1s").start();
    let mut client = server.connect();
    client.expect_close(PATIENCE / 3);
    server.expect_alive();
}

#[test]
fn an_idle_connection_times_out_if_told_to() {
    let server = Setup::new().children(1).pool("connection_idle_timeout = 1s").start();
    let mut client = server.connect();
    let request = server.run("echo 1;").keep();
    client.request(&request).expect_text("1");
    let start = Instant::now();
    client.expect_close(PATIENCE / 3);
    assert!(start.elapsed() >= Duration::from_millis(900), "after {:?}", start.elapsed());
}

#[test]
fn a_body_that_stops_times_out_and_its_client_is_told() {
    let server = Setup::new().children(1).pool("request_body_timeout = 1s").start();
    let request = server.run("echo 'ran';").post("text/plain", "a body").keep();
    let mut client = server.connect();
    client.send(&request.head());
    client.send(&record(STDIN, 1, b"a b"));
    server.expect_alive();
    let response = client.response_within(1, PATIENCE / 3);
    assert_eq!(response.status, 408, "{response:?}");
    server.expect_alive();
}

#[test]
fn nobody_who_waits_costs_an_interpreter() {
    let server = Setup::new().children(1).start();
    let request = server.run("echo 'done';").post("text/plain", "a body").keep();
    let (head, whole) = (request.head(), request.bytes());
    let mut clients = Vec::new();
    // Half of a header, of BEGIN, of PARAMS, a part of the body, nothing at all; and idle connections.
    for count in [0, 3, 12, 16, 60, head.len() - 8, head.len(), head.len() + 10] {
        let mut client = server.connect();
        client.send(&whole[..count]);
        clients.push((client, count));
    }
    for _ in 0..5 {
        let mut client = server.connect();
        client.request(&request).expect_text("done");
        clients.push((client, 0));
    }
    let start = Instant::now();
    for _ in 0..10 {
        request.send().expect_text("done");
    }
    let taken = start.elapsed();
    assert!(taken < SOON, "ten requests took {taken:?}");
    // And each of them can go on.
    for (client, count) in &mut clients {
        client.send(&whole[*count..]);
        client.response(1).expect_text("done");
    }
}

#[test]
fn a_long_body_in_many_records_arrives_whole() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let response = echo(body.clone()).send();
    assert!(response.body == body, "{} of {} bytes", response.body.len(), body.len());
    let request = echo(body.clone()).keep();
    let mut client = SERVER.connect();
    client.send(&request.head());
    for piece in body.chunks(777) {
        client.send(&record(STDIN, 1, piece));
    }
    client.send(&stream(STDIN, 1, b""));
    client.send(&record(STDIN, 1, b""));
    assert!(client.response(1).body == body);
}
