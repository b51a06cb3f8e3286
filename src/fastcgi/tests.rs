//! What holds for every input, and the client that tests speak through.

use proptest::collection::vec;
use proptest::prelude::*;

use super::client::{self, Reply};
use super::*;

/// A client of one connection. It notes events, one line each.
pub(super) struct Client {
    pub(super) connection: Connection,
    pub(super) events: Vec<String>,
    pub(super) replies: Vec<u8>,
    pub(super) violation: Option<Violation>,
    /// Whether a request is answered as soon as its body is complete or it is given up.
    pub(super) answer: bool,
}

impl Client {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            connection: Connection::new(limits),
            events: Vec::new(),
            replies: Vec::new(),
            violation: None,
            answer: false,
        }
    }

    /// Has the connection receive this in one piece.
    pub(super) fn send(&mut self, mut input: &[u8]) -> &mut Self {
        loop {
            match self.connection.receive(&mut input, &mut self.replies) {
                Ok(Some(event)) => self.note(event),
                Ok(None) => break,
                Err(violation) => {
                    self.violation = Some(violation);
                    return self;
                }
            }
        }
        assert!(input.is_empty(), "input is left: {}", input.escape_ascii());
        self
    }

    /// Has the connection receive this in pieces of `size` bytes.
    pub(super) fn send_in_pieces(&mut self, input: &[u8], size: usize) -> &mut Self {
        for piece in input.chunks(size) {
            self.send(piece);
        }
        self
    }

    fn note(&mut self, event: Event<'_>) {
        let (line, ended) = match event {
            Event::Request {
                id,
                role,
                keep_connection,
                params,
            } => {
                let mut line = format!("{id} request {}", role.name());
                if keep_connection {
                    line += " KEEP";
                }
                assert_eq!(params.len(), params.iter().count());
                for (name, value) in params.iter() {
                    line += &format!(" {}={}", name.escape_ascii(), value.escape_ascii());
                }
                (line, None)
            }
            Event::Stdin { id, data } => {
                assert!(!data.is_empty());
                let text = data.escape_ascii();
                // A body is the same wherever it is cut.
                let begun = format!("{id} stdin ");
                if let Some(last) = self.events.last_mut()
                    && last.starts_with(&begun)
                {
                    *last += &text.to_string();
                    return;
                }
                (format!("{id} stdin {text}"), None)
            }
            Event::StdinEnd { id } => (format!("{id} stdin ends"), Some(id)),
            Event::Abort { id } => (format!("{id} abort"), Some(id)),
            Event::Refused {
                id,
                status,
                keep_connection,
            } => {
                let keep = if keep_connection { " KEEP" } else { "" };
                (format!("{id} refused {status:?}{keep}"), None)
            }
        };
        self.events.push(line);
        if let (true, Some(id)) = (self.answer, ended) {
            self.connection.finish(id);
        }
    }

    /// The replies so far, one line each.
    pub(super) fn replies(&self) -> Vec<String> {
        let mut rest = &self.replies[..];
        let mut lines = Vec::new();
        while let Some(reply) = client::receive(&mut rest).expect("valid records") {
            lines.push(match reply {
                Reply::EndRequest {
                    id,
                    app_status,
                    status,
                } => format!("{id} end {app_status} {status:?}"),
                Reply::Values(values) => {
                    let mut line = String::from("values");
                    for (name, value) in values.iter() {
                        line += &format!(" {}={}", name.escape_ascii(), value.escape_ascii());
                    }
                    line
                }
                other => format!("{other:?}"),
            });
        }
        assert!(rest.is_empty(), "the last reply is cut off");
        lines
    }
}

/// Some input that makes sense, and some that nearly does.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let id = || prop_oneof![Just(0), Just(1), Just(2), Just(256), Just(65535)];
    let pairs = || vec((vec(any::<u8>(), 0..200), vec(any::<u8>(), 0..200)), 0..6);
    let record = prop_oneof![
        4 => (id(), 0..5u16, any::<u8>()).prop_map(|(id, role, flags)| {
            (kind::BEGIN_REQUEST, id, [0, role as u8, flags, 1, 2, 3, 4, 5].to_vec())
        }),
        4 => (id(), pairs()).prop_map(|(id, p)| (kind::PARAMS, id, client::encode_pairs(p))),
        4 => id().prop_map(|id| (kind::PARAMS, id, vec![])),
        1 => (id(), vec(any::<u8>(), 0..20)).prop_map(|(id, c)| (kind::PARAMS, id, c)),
        4 => (id(), vec(any::<u8>(), 0..300)).prop_map(|(id, c)| (kind::STDIN, id, c)),
        2 => id().prop_map(|id| (kind::STDIN, id, vec![])),
        2 => id().prop_map(|id| (kind::ABORT_REQUEST, id, vec![])),
        1 => Just((kind::GET_VALUES, 0, client::encode_pairs([
            ("FCGI_MAX_CONNS", ""), ("FCGI_MPXS_CONNS", ""), ("FCGI_MAX_REQS", ""), ("OTHER", ""),
        ]))),
        1 => (any::<u8>(), id(), vec(any::<u8>(), 0..20)),
    ];
    vec((record, any::<u8>()), 0..20).prop_map(|records| {
        let mut out = Vec::new();
        for ((kind, id, content), padding) in records {
            client::record(&mut out, kind, id, &content, padding);
        }
        out
    })
}

/// Bytes up to a length that takes several records. Which bytes hardly matters, and making each at random is slow.
fn long() -> impl Strategy<Value = Vec<u8>> {
    (0..200_000usize, any::<u8>()).prop_map(|(len, first)| {
        (0..len)
            .map(|n| first.wrapping_add((n % 251) as u8))
            .collect()
    })
}

fn limits() -> Limits {
    Limits {
        params_bytes: 2000,
        requests: 3,
        ..Limits::default()
    }
}

proptest! {
    #[test]
    fn any_cut_of_the_input_gives_the_same_events_and_replies(
        input in records(),
        cuts in vec(1..40usize, 1..20),
        answer in any::<bool>(),
    ) {
        let mut whole = Client::new(limits());
        whole.answer = answer;
        whole.send(&input);

        let mut cut = Client::new(limits());
        cut.answer = answer;
        let mut rest = &input[..];
        for size in cuts.iter().cycle() {
            if rest.is_empty() || cut.violation.is_some() {
                break;
            }
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            cut.send(piece);
            rest = after;
        }
        prop_assert_eq!(&whole.events, &cut.events);
        prop_assert_eq!(&whole.replies, &cut.replies);
        prop_assert_eq!(whole.violation, cut.violation);
        prop_assert_eq!(whole.connection.active(), cut.connection.active());
        prop_assert_eq!(
            whole.connection.is_between_records(),
            cut.connection.is_between_records()
        );
        prop_assert_eq!(whole.connection.is_done(), cut.connection.is_done());
    }

    #[test]
    fn nothing_that_is_sent_takes_more_memory_than_the_limits_allow(
        input in prop_oneof![records(), vec(any::<u8>(), 0..2000)],
        size in 1..2000usize,
    ) {
        let mut client = Client::new(limits());
        for piece in input.chunks(size) {
            client.send(piece);
            prop_assert!(client.connection.buffered() <= 2 * limits().params_bytes + 3 * 64);
            prop_assert!(client.connection.active() <= limits().requests);
            if client.violation.is_some() {
                break;
            }
        }
        prop_assert!(client.replies.len() <= 2 * input.len());
        // All replies are whole and valid.
        client.replies();
    }

    #[test]
    fn what_a_client_encodes_arrives(
        id in 1..=u16::MAX,
        pairs in vec((vec(any::<u8>(), 0..200), vec(any::<u8>(), 0..200)), 0..40),
        body in long(),
    ) {
        let sent = client::request(id, client::KEEP_CONN, pairs.iter().map(|(n, v)| (n, v)), &body);
        let mut connection = Connection::new(Limits::default());
        let (mut input, mut replies) = (&sent[..], Vec::new());
        let Some(Event::Request { id: got, params, .. }) =
            connection.receive(&mut input, &mut replies).expect("valid records")
        else {
            panic!("no request");
        };
        prop_assert_eq!(got, id);
        prop_assert!(params.iter().eq(pairs.iter().map(|(n, v)| (&n[..], &v[..]))));
        let mut received = Vec::new();
        loop {
            match connection.receive(&mut input, &mut replies).expect("valid records") {
                Some(Event::Stdin { data, .. }) => received.extend_from_slice(data),
                event => {
                    prop_assert_eq!(event, Some(Event::StdinEnd { id }));
                    break;
                }
            }
        }
        prop_assert_eq!(received, body);
        prop_assert!(input.is_empty() && replies.is_empty());
    }

    #[test]
    fn what_a_server_encodes_arrives(
        id in 1..=u16::MAX,
        out in long(),
        err in vec(any::<u8>(), 0..1000),
        app_status in any::<u32>(),
    ) {
        let mut sent = Vec::new();
        encode::stdout(&mut sent, id, &out);
        encode::stderr(&mut sent, id, &err);
        encode::stdout_end(&mut sent, id);
        encode::stderr_end(&mut sent, id);
        encode::end_request(&mut sent, id, app_status, ProtocolStatus::RequestComplete);
        prop_assert_eq!(sent.len() % 8, 0);

        let mut rest = &sent[..];
        let (mut got_out, mut got_err, mut ends) = (Vec::new(), Vec::new(), 0);
        while let Some(reply) = client::receive(&mut rest).expect("valid records") {
            match reply {
                Reply::Stdout { id: got, data } => {
                    prop_assert_eq!(got, id);
                    got_out.extend_from_slice(data);
                    ends += usize::from(data.is_empty());
                }
                Reply::Stderr { id: got, data } => {
                    prop_assert_eq!(got, id);
                    got_err.extend_from_slice(data);
                    ends += usize::from(data.is_empty());
                }
                other => {
                    let status = ProtocolStatus::RequestComplete;
                    prop_assert_eq!(other, Reply::EndRequest { id, app_status, status });
                    prop_assert_eq!(ends, 2);
                    prop_assert!(rest.is_empty());
                }
            }
        }
        prop_assert!(rest.is_empty());
        prop_assert_eq!(got_out, out);
        prop_assert_eq!(got_err, err);
    }

    #[test]
    fn a_client_survives_whatever_a_server_sends(input in vec(any::<u8>(), 0..300)) {
        let mut rest = &input[..];
        while !rest.is_empty() {
            match client::receive(&mut rest) {
                Ok(Some(_)) | Err(client::Malformed::Kind(_) | client::Malformed::Content(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
    }
}
