//! Whatever a client sends, cut anywhere, has one meaning, takes bounded memory, and gets replies that a client can read.
//!
//! The first byte of the input says where the rest is cut, the second which requests are answered and when.

#![no_main]

// The crate itself would want PHP.
#[allow(dead_code, unused_imports)]
#[path = "../../src/fastcgi/mod.rs"]
mod fastcgi;

use fastcgi::{Connection, Event, Limits, Params, ProtocolStatus, Role, Violation, client};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    params_bytes: 4096,
    requests: 4,
    max_conns: 7,
    max_reqs: u32::MAX,
};

fuzz_target!(|input: &[u8]| {
    let [cut, policy, input @ ..] = input else {
        return;
    };
    let whole = receive(std::iter::once(input), *policy);
    let pieces = receive(input.chunks(usize::from(*cut).max(1)), *policy);
    assert_eq!(whole, pieces);

    assert!(whole.replies.len() <= 2 * input.len());
    let mut replies = whole.replies.as_slice();
    while !replies.is_empty() {
        let reply = client::receive(&mut replies).expect("a valid reply");
        assert!(reply.is_some(), "the last reply is cut off");
    }
});

/// All that came of an input.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    events: Vec<Owned>,
    replies: Vec<u8>,
    violation: Option<Violation>,
    active: usize,
    between_records: bool,
    done: bool,
    awaits_params: bool,
}

/// An event that outlives the input. A body is one of them, however it came.
#[derive(Debug, PartialEq)]
enum Owned {
    Request(u16, Role, bool, Params),
    Stdin(u16, Vec<u8>),
    StdinEnd(u16),
    Abort(u16),
    Refused(u16, ProtocolStatus, bool),
}

fn receive<'a>(pieces: impl Iterator<Item = &'a [u8]>, policy: u8) -> Outcome {
    let mut connection = Connection::new(LIMITS);
    let mut outcome = Outcome::default();
    // What the requests that are active may still bring.
    let mut running: Vec<(u16, bool)> = Vec::new();
    'pieces: for mut piece in pieces {
        loop {
            let before = piece.len();
            let event = match connection.receive(&mut piece, &mut outcome.replies) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(violation) => {
                    assert_eq!(
                        connection.receive(&mut piece, &mut outcome.replies),
                        Err(violation)
                    );
                    outcome.violation = Some(violation);
                    break 'pieces;
                }
            };
            let at = |id| running.iter().position(|r: &(u16, bool)| r.0 == id);
            let ended = match event {
                Event::Request {
                    id,
                    role,
                    keep_connection,
                    params,
                } => {
                    assert_eq!(at(id), None, "a request begins twice");
                    running.push((id, true));
                    let request = Owned::Request(id, role, keep_connection, params);
                    outcome.events.push(request);
                    (policy & 0x01 != 0).then_some(id)
                }
                Event::Stdin { id, data } => {
                    assert!(running[at(id).expect("a body of a request")].1);
                    assert!(!data.is_empty() && before > piece.len());
                    match outcome.events.last_mut() {
                        Some(Owned::Stdin(last, body)) if *last == id => body.extend(data),
                        _ => outcome.events.push(Owned::Stdin(id, data.to_vec())),
                    }
                    None
                }
                Event::StdinEnd { id } => {
                    let at = at(id).expect("a body of a request");
                    assert!(std::mem::replace(&mut running[at].1, false));
                    outcome.events.push(Owned::StdinEnd(id));
                    (policy & 0x02 != 0).then_some(id)
                }
                Event::Abort { id } => {
                    let at = at(id).expect("a request to give up");
                    running[at].1 = false;
                    outcome.events.push(Owned::Abort(id));
                    (policy & 0x04 != 0).then_some(id)
                }
                Event::Refused {
                    id,
                    status,
                    keep_connection,
                } => {
                    assert_eq!(at(id), None, "a request that runs is refused");
                    outcome
                        .events
                        .push(Owned::Refused(id, status, keep_connection));
                    None
                }
            };
            if let Some(id) = ended {
                connection.finish(id);
                running.retain(|r| r.0 != id);
            }
            assert!(connection.active() >= running.len());
        }
        assert!(piece.is_empty());
        assert!(connection.active() <= LIMITS.requests);
        assert!(connection.buffered() <= 2 * LIMITS.params_bytes + LIMITS.requests * 64);
    }
    outcome.active = connection.active();
    outcome.between_records = connection.is_between_records();
    outcome.done = connection.is_done();
    outcome.awaits_params = connection.awaits_params();
    outcome
}
