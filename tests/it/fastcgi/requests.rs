//! Requests: ids, roles, flags, and more of them than there are interpreters.

use std::thread;
use std::time::{Duration, Instant};

use super::{SERVER, SOON, await_running, echo, hello, wait_for};
use crate::support::record::{
    ABORT, DATA, OVERLOADED, PARAMS, STDIN, UNKNOWN_ROLE, begin, pair, record,
};
use crate::support::{Client, PATIENCE, Setup};

#[test]
fn c19_ids_from_1_to_65535_are_echoed() {
    let mut client = SERVER.connect();
    for id in [1, 255, 256, 65_535] {
        let response = client.request(&hello().keep().id(id));
        response.expect_text("hello");
        let ids: Vec<u16> = response.records.iter().map(|record| record.id).collect();
        assert!(
            ids.iter().all(|&other| other == id),
            "expected {id}, came {ids:?}"
        );
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
        assert_eq!(
            response.protocol_status, UNKNOWN_ROLE,
            "role {role}: {response:?}"
        );
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
        client
            .request(&echo(body.as_bytes()).keep())
            .expect_text(&body);
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
    let answers: Vec<_> = waiting
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    for (response, _) in &answers {
        let refused = response.protocol_status == OVERLOADED || response.status == 503;
        assert!(refused, "expected OVERLOADED or 503, came {response:?}");
    }
    let times: Vec<Duration> = answers.iter().map(|(_, taken)| *taken).collect();
    let at_once = times
        .iter()
        .filter(|taken| **taken < Duration::from_millis(900))
        .count();
    assert!(at_once >= 4, "too few were turned away at once: {times:?}");
    assert!(
        times.iter().all(|taken| *taken < Duration::from_secs(5)),
        "turned away after {times:?}"
    );
    std::fs::write(&flag, "").unwrap();
    running.response(1).expect_text("waited");
    server.expect_alive();
    server.expect_log(&["WARNING", "pm.max_queue"]);
    server.expect_log(&["WARNING", "request_queue_timeout"]);
}
