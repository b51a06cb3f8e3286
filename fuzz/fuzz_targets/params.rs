//! Parameters mean what a decoder that sees all of them at once says, and changing them does what a plain list does.
//!
//! The first byte of the input is the size of the records that carry the rest.

#![no_main]

// The crate itself would want PHP.
#[allow(dead_code, unused_imports)]
#[path = "../../src/fastcgi/mod.rs"]
mod fastcgi;

use fastcgi::{Connection, Event, Limits, Params, Violation, client};
use libfuzzer_sys::fuzz_target;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fuzz_target!(|input: &[u8]| {
    let Some((size, stream)) = input.split_first() else {
        return;
    };
    let received = receive(stream, usize::from(*size).max(1));
    match (received, decode(stream)) {
        (Some(mut params), Some(mut pairs)) => {
            compare(&params, &pairs);
            let again = client::encode_pairs(pairs.iter().map(|(n, v)| (n, v)));
            compare(&client::decode_pairs(&again).expect("pairs"), &pairs);
            change(&mut params, &mut pairs);
        }
        (None, None) => assert!(client::decode_pairs(stream).is_none()),
        (received, pairs) => panic!("{received:?} instead of {pairs:?}"),
    }
});

fn receive(stream: &[u8], size: usize) -> Option<Params> {
    let mut sent = Vec::new();
    client::begin(&mut sent, 1, client::RESPONDER, 0);
    for piece in stream.chunks(size) {
        client::record(&mut sent, fastcgi::kind::PARAMS, 1, piece, 0);
    }
    client::params_end(&mut sent, 1);

    let mut connection = Connection::new(Limits::default());
    let mut input = sent.as_slice();
    match connection.receive(&mut input, &mut Vec::new()) {
        Ok(Some(Event::Request { params, .. })) => {
            assert!(input.is_empty());
            Some(params)
        }
        Err(Violation::IncompletePair { id: 1 } | Violation::ParamsTooLarge { id: 1, .. }) => None,
        other => panic!("{other:?}"),
    }
}

/// What section 3.4 says, as plainly as can be.
fn decode(mut stream: &[u8]) -> Option<Pairs> {
    let mut pairs = Vec::new();
    while !stream.is_empty() {
        let mut lengths = [0; 2];
        for length in &mut lengths {
            let form = if *stream.first()? >= 0x80 { 4 } else { 1 };
            let (bytes, rest) = stream.split_at_checked(form)?;
            *length = bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
            if form == 4 {
                *length &= 0x7fff_ffff;
            }
            stream = rest;
        }
        let (name, rest) = stream.split_at_checked(lengths[0])?;
        let (value, rest) = rest.split_at_checked(lengths[1])?;
        pairs.push((name.to_vec(), value.to_vec()));
        stream = rest;
    }
    Some(pairs)
}

fn compare(params: &Params, pairs: &Pairs) {
    let expected = || pairs.iter().map(|(n, v)| (n.as_slice(), v.as_slice()));
    assert!(params.iter().eq(expected()));
    assert_eq!(params.len(), pairs.len());
    assert_eq!(params.is_empty(), pairs.is_empty());
    for ((name, value), (n, v)) in params.iter_with_nul().zip(expected()) {
        assert_eq!(name, [n, b"\0"].concat());
        assert_eq!(value, [v, b"\0"].concat());
    }
    for (name, _) in pairs.iter().take(8) {
        let last = expected().rfind(|(n, _)| n == name).map(|(_, v)| v);
        assert_eq!(params.get(name), last);
    }
}

/// Gives some names the value of their neighbour, takes others out, and adds one.
fn change(params: &mut Params, pairs: &mut Pairs) {
    for (n, (name, value)) in pairs.clone().into_iter().take(8).enumerate() {
        if n % 2 == 0 {
            params.set(&value, &name);
            let first = pairs.iter().position(|pair| pair.0 == value);
            match first {
                Some(first) => {
                    pairs[first].1 = name;
                    let mut at = 0;
                    pairs.retain(|pair| {
                        at += 1;
                        at <= first + 1 || pair.0 != value
                    });
                }
                None => pairs.push((value, name)),
            }
        } else {
            params.remove(&name);
            pairs.retain(|pair| pair.0 != name);
        }
        compare(params, pairs);
    }
}
