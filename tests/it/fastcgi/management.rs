//! Management records, which belong to no request, and types that nobody knows.

use super::{SERVER, echo, hello};
use crate::support::Client;
use crate::support::record::{
    GET_VALUES, GET_VALUES_RESULT, PARAMS, STDIN, UNKNOWN_TYPE, padded, pair, read_pairs, record,
};

fn get_values(client: &mut Client, names: &[&str]) -> Vec<(String, String)> {
    let query: Vec<u8> = names
        .iter()
        .flat_map(|name| pair(name.as_bytes(), b""))
        .collect();
    client.send(&record(GET_VALUES, 0, &query));
    let answer = client.record();
    assert_eq!(
        (answer.kind, answer.id),
        (GET_VALUES_RESULT, 0),
        "{answer:?}"
    );
    let mut values = read_pairs(&answer.content);
    values.sort();
    values
}

#[test]
fn c30_get_values_tells_the_limits() {
    let mut client = SERVER.connect();
    let values = get_values(
        &mut client,
        &["FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"],
    );
    let names: Vec<&str> = values.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"]
    );
    let numbers: Vec<u32> = values
        .iter()
        .map(|(name, value)| {
            value
                .parse()
                .unwrap_or_else(|_| panic!("{name} = {value:?}"))
        })
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
