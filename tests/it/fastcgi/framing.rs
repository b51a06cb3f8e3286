//! Framing: headers, padding, versions.

use std::time::{Duration, Instant};

use super::{SERVER, SOON, echo, hello};
use crate::support::record::{
    ABORT, BEGIN, DATA, GET_VALUES, GET_VALUES_RESULT, PARAMS, STDIN, padded, pair, record,
};
use crate::support::{Client, PATIENCE, Setup};

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
    for padding in 0..=255 {
        let request = echo("a body").keep();
        let content: [u8; 8] = [0, 1, 1, 0, 0, 0, 0, 0];
        let mut client = SERVER.connect();
        // Twice, so that a byte too many or too few shows.
        for _ in 0..2 {
            client.send(&padded(BEGIN, 1, &content, padding));
            client.send(&padded(ABORT, 9, b"", padding));
            client.send(&padded(DATA, 1, b"data", padding));
            client.send(&padded(PARAMS, 1, &request.pairs(), padding));
            client.send(&padded(PARAMS, 1, b"", padding));
            client.send(&padded(STDIN, 1, b"a body", padding));
            client.send(&padded(STDIN, 1, b"", padding));
            client.response(1).expect_text("a body");
        }
        client.send(&padded(
            GET_VALUES,
            0,
            &pair(b"FCGI_MPXS_CONNS", b""),
            padding,
        ));
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
    let server = Setup::new()
        .children(1)
        .pool("request_header_timeout = 1s")
        .start();
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
    assert!(
        taken >= Duration::from_millis(900),
        "closed after only {taken:?}"
    );
    server.expect_alive();
}

#[test]
fn a_begin_of_another_length_than_eight_closes_the_connection() {
    for length in [0, 7, 9, 300] {
        let mut client = SERVER.connect();
        let _ = client.try_send(&record(BEGIN, 1, &vec![0; length]));
        let _ = client.try_send(&hello().bytes());
        client.expect_close(SOON);
    }
    hello().send().expect_text("hello");
}
