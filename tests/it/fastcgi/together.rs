//! What clients do all at once: interleave, give up, stop, send nonsense.

use std::time::{Duration, Instant};

use super::{SERVER, SOON, echo, hello};
use crate::support::record::{ABORT, END, OVERLOADED, RESPONDER, STDIN, begin, record};
use crate::support::{PATIENCE, Request, Setup};

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
    let pieces = requests
        .iter()
        .map(|request| request.body.chunks(1000).count())
        .max()
        .unwrap();
    for at in 0..=pieces {
        for request in &requests {
            match request.body.chunks(1000).nth(at) {
                Some(piece) => client.send(&record(STDIN, request.id, piece)),
                None if request.body.chunks(1000).count() == at => {
                    client.send(&record(STDIN, request.id, b""))
                }
                None => {}
            }
        }
    }
    for request in &requests {
        let response = client.response(request.id);
        assert!(
            response.body == request.body,
            "request {}: {response:?}",
            request.id
        );
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
    let server = Setup::new()
        .children(1)
        .pool("request_header_timeout = 1s")
        .start();
    let mut client = server.connect();
    client.expect_close(PATIENCE / 3);
    server.expect_alive();
}

#[test]
fn an_idle_connection_times_out_if_told_to() {
    let server = Setup::new()
        .children(1)
        .pool("connection_idle_timeout = 1s")
        .start();
    let mut client = server.connect();
    let request = server.run("echo 1;").keep();
    client.request(&request).expect_text("1");
    let start = Instant::now();
    client.expect_close(PATIENCE / 3);
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "after {:?}",
        start.elapsed()
    );
}

#[test]
fn a_body_that_stops_times_out_and_its_client_is_told() {
    let server = Setup::new()
        .children(1)
        .pool("request_body_timeout = 1s")
        .start();
    let request = server
        .run("echo 'ran';")
        .post("text/plain", "a body")
        .keep();
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
    let request = server
        .run("echo 'done';")
        .post("text/plain", "a body")
        .keep();
    let (head, whole) = (request.head(), request.bytes());
    let mut clients = Vec::new();
    // Half of a header, of BEGIN, of PARAMS, a part of the body, nothing at all; and idle connections.
    for count in [
        0,
        3,
        12,
        16,
        60,
        head.len() - 8,
        head.len(),
        head.len() + 10,
    ] {
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
    assert!(
        response.body == body,
        "{} of {} bytes",
        response.body.len(),
        body.len()
    );
    let request = echo(body.clone()).keep();
    let mut client = SERVER.connect();
    client.send(&request.head());
    for piece in body.chunks(777) {
        client.send(&record(STDIN, 1, piece));
    }
    client.send(&record(STDIN, 1, b""));
    assert!(client.response(1).body == body);
}

#[test]
fn a_client_that_begins_requests_without_end_is_told_to_stop() {
    let mut client = SERVER.connect();
    let begins: Vec<u8> = (1..=2000).flat_map(|id| begin(id, RESPONDER, 1)).collect();
    client.send(&begins);
    let record = client.record();
    assert_eq!(
        (record.kind, record.content[4]),
        (END, OVERLOADED),
        "{record:?}"
    );
    hello().send().expect_text("hello");
}

#[test]
fn a_client_that_does_not_read_costs_no_interpreter() {
    let server = Setup::new().children(1).start();
    let mut stalled = server.run("echo str_repeat('x', 20000000);").start();
    let start = Instant::now();
    server.expect_alive();
    assert!(
        start.elapsed() < SOON,
        "another request took {:?}",
        start.elapsed()
    );
    assert_eq!(stalled.response(1).body.len(), 20_000_000);
}
