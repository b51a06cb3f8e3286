//! Name-value pairs (section 3.4), which PARAMS carries.

use super::{SERVER, SOON, hello, param, with_params};
use crate::support::record::{PARAMS, length, long_length, pair, record};
use crate::support::{Client, Setup};

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

#[test]
fn parameters_without_end_are_rejected_and_take_little_memory() {
    let server = Setup::new().children(1).start();
    let request = server.run("echo 1;");
    server.expect_alive();
    let before = server.memory();
    let mut client = server.connect();
    client.send(&request.begin());
    let content = pair(b"X_LONG", &vec![b'x'; 60_000]);
    for _ in 0..1000 {
        // Once it has had enough, the server reads on for a moment, so that the client sees an orderly end.
        if client.try_send(&record(PARAMS, 1, &content)).is_err() {
            break;
        }
    }
    let growth = server.memory().saturating_sub(before);
    assert!(growth < 32 << 20, "memory grew by {growth} bytes");
    client.expect_close(SOON);
    server.expect_log(&["WARNING", "parameters"]);
    server.expect_alive();
}
