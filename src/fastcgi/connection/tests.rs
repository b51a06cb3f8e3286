use super::super::client::{self, KEEP_CONN, RESPONDER};
use super::super::tests::Client;
use super::*;

fn client() -> Client {
    Client::new(Limits::default())
}

/// Events of an input that is received in one piece and, to the same effect, one byte at a time.
fn events(input: &[u8]) -> Vec<String> {
    let mut whole = client();
    whole.send(input);
    assert_eq!(whole.violation, None);
    let mut bytes = client();
    bytes.send_in_pieces(input, 1);
    assert_eq!(whole.events, bytes.events);
    assert_eq!(whole.replies, bytes.replies);
    whole.events
}

/// The same for replies.
fn replies(input: &[u8]) -> Vec<String> {
    events(input);
    let mut client = client();
    client.send(input);
    client.replies()
}

fn violation(input: &[u8]) -> Option<Violation> {
    let mut bytes = client();
    bytes.send_in_pieces(input, 1);
    let mut client = client();
    client.send(input);
    assert_eq!(client.violation, bytes.violation);
    client.violation
}

/// Puts records together.
fn build(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn begun(id: u16, flags: u8) -> Vec<u8> {
    build(|out| client::begin(out, id, RESPONDER, flags))
}

/// A request without a body.
fn get(id: u16, flags: u8) -> Vec<u8> {
    client::request(id, flags, [("A", "b")], b"")
}

const NONE: [(&str, &str); 0] = [];

mod framing {
    use super::*;

    #[test]
    fn a_request_is_its_parameters_its_body_and_the_end_of_its_body() {
        let input = client::request(1, KEEP_CONN, [("A", "b"), ("C", "d")], b"hello");
        assert_eq!(
            events(&input),
            [
                "1 request RESPONDER KEEP A=b C=d",
                "1 stdin hello",
                "1 stdin ends"
            ]
        );
    }

    #[test]
    fn padding_of_any_length_is_skipped_on_every_record_even_empty_ones() {
        for padding in 0..=255 {
            let input = build(|out| {
                let body = [0, 1, 1, 0, 0, 0, 0, 0];
                client::record(out, kind::GET_VALUES, 0, b"", padding);
                client::record(out, kind::BEGIN_REQUEST, 1, &body, padding);
                client::record(out, kind::PARAMS, 1, b"\x01\x01Ab", padding);
                client::record(out, 0x63, 0, b"??", padding);
                client::record(out, kind::PARAMS, 1, b"", padding);
                client::record(out, kind::STDIN, 1, b"hello", padding);
                client::record(out, kind::STDIN, 1, b"", padding);
                client::record(out, kind::ABORT_REQUEST, 1, b"", padding);
                client::record(out, 0x63, 0, b"", padding);
            });
            assert_eq!(
                events(&input),
                [
                    "1 request RESPONDER KEEP A=b",
                    "1 stdin hello",
                    "1 stdin ends",
                    "1 abort"
                ]
            );
            assert_eq!(
                replies(&input),
                ["values", "UnknownType(99)", "UnknownType(99)"]
            );
        }
    }

    #[test]
    fn the_largest_record_passes_through() {
        let body = vec![b'x'; 65535];
        let input = build(|out| {
            out.extend(begun(1, KEEP_CONN));
            client::params_end(out, 1);
            client::record(out, kind::STDIN, 1, &body, 255);
            client::record(out, kind::STDIN, 1, b"", 255);
        });
        let all = events(&input);
        assert_eq!(all.len(), 3);
        assert_eq!(all[1].len(), "1 stdin ".len() + 65535);
    }

    #[test]
    fn the_largest_record_of_parameters_is_understood() {
        let value = "x".repeat(65535 - 6);
        let input = build(|out| {
            out.extend(begun(1, 0));
            let content = client::encode_pairs([("A", &value)]);
            assert_eq!(content.len(), 65535);
            client::record(out, kind::PARAMS, 1, &content, 255);
            client::params_end(out, 1);
        });
        assert_eq!(events(&input), [format!("1 request RESPONDER A={value}")]);
    }

    #[test]
    fn another_version_ends_the_connection() {
        let mut input = begun(1, 0);
        for version in [0, 2, 255] {
            input[0] = version;
            assert_eq!(violation(&input), Some(Violation::Version(version)));
        }
        assert_eq!(
            violation(b"GET / HTTP/1.1\r\n\r\n"),
            Some(Violation::Version(b'G'))
        );
    }

    #[test]
    fn after_a_violation_nothing_is_understood_any_more() {
        let mut client = client();
        client.send(b"nonsense");
        client.violation = None;
        client.send(&get(1, 0));
        assert_eq!(client.violation, Some(Violation::Version(b'n')));
        assert!(client.events.is_empty());
        assert!(!client.connection.is_idle());
    }

    #[test]
    fn reserved_bytes_mean_nothing() {
        let mut input = get(1, KEEP_CONN);
        input[7] = 0xff;
        input[11..16].fill(0xff);
        assert_eq!(events(&input).len(), 2);
    }

    #[test]
    fn an_event_does_not_wait_for_padding() {
        let mut client = client();
        client.send(&build(|out| {
            out.extend(begun(1, KEEP_CONN));
            client::record(out, kind::PARAMS, 1, b"", 0);
        }));
        let input = build(|out| client::record(out, kind::STDIN, 1, b"", 9));
        client.send(&input[..8]);
        assert_eq!(client.events[1..], ["1 stdin ends"]);
        assert!(!client.connection.is_between_records());
        client.send(&input[8..]);
        assert!(client.connection.is_between_records());
    }

    #[test]
    fn padding_that_is_there_is_skipped_before_the_event() {
        let input = build(|out| {
            out.extend(get(1, KEEP_CONN));
            client::record(out, kind::STDIN, 1, b"", 255);
        });
        let mut connection = Connection::new(Limits::default());
        let (mut rest, mut replies) = (&input[..], Vec::new());
        loop {
            let event = connection
                .receive(&mut rest, &mut replies)
                .expect("valid records");
            if event == Some(Event::StdinEnd { id: 1 }) {
                break;
            }
        }
        connection.finish(1);
        assert!(connection.is_idle());
    }
}

mod names_and_values {
    use super::*;

    /// The request event of parameters that are sent in records of `size` bytes.
    fn request(stream: &[u8], size: usize) -> Vec<String> {
        events(&build(|out| {
            out.extend(begun(1, 0));
            for piece in stream.chunks(size) {
                client::record(out, kind::PARAMS, 1, piece, 1);
            }
            client::params_end(out, 1);
        }))
    }

    #[test]
    fn lengths_and_names_and_values_may_be_cut_anywhere_by_records() {
        for length in [0, 1, 127, 128, 300] {
            let (name, value) = ("N".repeat(length), "v".repeat(length));
            let stream = client::encode_pairs([(&name, &value), (&"B".into(), &"c".into())]);
            for size in 1..stream.len() {
                assert_eq!(
                    request(&stream, size),
                    [format!("1 request RESPONDER {name}={value} B=c")]
                );
            }
        }
    }

    #[test]
    fn a_short_length_in_four_bytes_is_understood() {
        assert_eq!(
            request(b"\x80\0\0\x01\x80\0\0\x02Abc", 100),
            ["1 request RESPONDER A=bc"]
        );
    }

    #[test]
    fn empty_names_and_values_are_kept() {
        assert_eq!(
            request(b"\0\0\x01\0A\0\x01b", 100),
            ["1 request RESPONDER = A= =b"]
        );
    }

    #[test]
    fn no_parameters_at_all_are_a_request() {
        assert_eq!(request(b"", 1), ["1 request RESPONDER"]);
    }

    #[test]
    fn a_pair_that_runs_past_the_end_ends_the_connection() {
        for stream in [
            &b"\x01"[..],
            b"\x80\0\0",
            b"\x01\x01",
            b"\x01\x01A",
            b"\x01\x05Abcde\x05\x05",
            b"\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let input = build(|out| {
                out.extend(begun(7, 0));
                client::record(out, kind::PARAMS, 7, stream, 0);
                client::params_end(out, 7);
            });
            assert_eq!(violation(&input), Some(Violation::IncompletePair { id: 7 }));
        }
    }

    #[test]
    fn a_length_that_exceeds_the_limit_ends_the_connection_before_anything_is_kept() {
        let limit = Limits::default().params_bytes;
        for stream in [
            &b"\xff\xff\xff\xff\xff\xff\xff\xff"[..],
            b"\xff\xff\xff\xff\x01",
            b"\x01\xff\xff\xff\xff",
            b"\x01\x80\x40\0\0",
        ] {
            let input = build(|out| {
                out.extend(begun(1, 0));
                client::record(out, kind::PARAMS, 1, stream, 0);
            });
            let mut client = client();
            client.send(&input);
            assert_eq!(
                client.violation,
                Some(Violation::ParamsTooLarge { id: 1, limit })
            );
            assert!(client.connection.buffered() < 100);
        }
    }

    #[test]
    fn nothing_is_reserved_for_bytes_that_have_not_come() {
        let mut client = client();
        let input = build(|out| {
            out.extend(begun(1, 0));
            client::record(out, kind::PARAMS, 1, &[0x81; 60_000], 0);
        });
        client.send(&input[..16 + 8 + 3]);
        assert!(client.connection.buffered() < 100);
    }

    #[test]
    fn of_duplicates_the_last_one_counts() {
        let mut input = &client::request(1, 0, [("A", "1"), ("B", "2"), ("A", "3")], b"")[..];
        let mut connection = Connection::new(Limits::default());
        match connection.receive(&mut input, &mut Vec::new()) {
            Ok(Some(Event::Request { params, .. })) => {
                assert_eq!(params.get(b"A"), Some(&b"3"[..]));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mebibyte_of_parameters_is_understood() {
        let value = "v".repeat(1 << 20);
        let stream = client::encode_pairs([("A", &value), ("B", &String::new())]);
        let mut client = client();
        client.send(&build(|out| {
            out.extend(begun(1, 0));
            client::params(out, 1, [("A", &value)]);
            client::params_end(out, 1);
        }));
        assert_eq!(client.events, [format!("1 request RESPONDER A={value}")]);
        assert_eq!(request(&stream, 65535).len(), 1);
    }

    #[test]
    fn ten_thousand_pairs_are_understood() {
        let pairs = (0..10_000).map(|n| (format!("N{n}"), format!("v{n}")));
        let mut client = client();
        client.send(&client::request(1, 0, pairs, b""));
        assert_eq!(client.violation, None);
        assert!(client.events[0].ends_with(" N9998=v9998 N9999=v9999"));
        assert_eq!(client.connection.buffered(), 0);
    }

    #[test]
    fn the_limit_holds_for_all_incomplete_requests_together() {
        let limits = Limits {
            params_bytes: 1000,
            ..Limits::default()
        };
        let mut client = Client::new(limits);
        let big = "v".repeat(600);
        let half = |id| {
            build(|out| {
                out.extend(begun(id, KEEP_CONN));
                client::params(out, id, [("A", &big)]);
            })
        };
        // What is complete or given up counts no more.
        client.send(&half(1));
        client.send(&build(|out| client::params_end(out, 1)));
        client.send(&half(2));
        client.send(&build(|out| client::abort(out, 2)));
        client.send(&half(3));
        client.connection.finish(3);
        client.send(&half(4));
        assert_eq!(client.violation, None);
        client.send(&half(5));
        assert_eq!(
            client.violation,
            Some(Violation::ParamsTooLarge { id: 5, limit: 1000 })
        );
    }
}

mod requests {
    use super::*;

    #[test]
    fn every_id_is_kept() {
        for id in [1, 255, 256, 65535] {
            assert_eq!(
                events(&get(id, 0)),
                [
                    format!("{id} request RESPONDER A=b"),
                    format!("{id} stdin ends")
                ]
            );
        }
    }

    #[test]
    fn records_of_inactive_requests_are_ignored() {
        let input = build(|out| {
            client::params(out, 5, [("A", "b")]);
            client::params_end(out, 5);
            client::stdin(out, 5, b"hello");
            client::stdin_end(out, 5);
            client::abort(out, 5);
            client::stdin_end(out, 0);
            client::abort(out, 0);
            client::record(out, kind::DATA, 5, b"data", 3);
            client::record(out, kind::STDOUT, 5, b"out", 3);
            client::record(out, kind::END_REQUEST, 0, b"", 3);
            client::record(out, kind::GET_VALUES, 5, b"", 3);
        });
        assert_eq!(events(&input), [""; 0]);
        assert_eq!(replies(&input), [""; 0]);
    }

    #[test]
    fn a_second_begin_of_an_active_request_is_ignored() {
        let input = build(|out| {
            out.extend(begun(1, KEEP_CONN));
            client::params(out, 1, [("A", "b")]);
            // Not even a role that would be refused, or another flag, changes anything.
            client::begin(out, 1, 9, 0);
            client::params(out, 1, [("C", "d")]);
            client::params_end(out, 1);
            client::begin(out, 1, RESPONDER, 0);
            client::params(out, 1, [("E", "f")]);
            client::params_end(out, 1);
            client::stdin(out, 1, b"hello");
            client::stdin_end(out, 1);
            out.extend(get(2, KEEP_CONN));
        });
        assert_eq!(
            events(&input),
            [
                "1 request RESPONDER KEEP A=b C=d",
                "1 stdin hello",
                "1 stdin ends",
                "2 request RESPONDER KEEP A=b",
                "2 stdin ends"
            ]
        );
        assert_eq!(replies(&input), [""; 0]);
    }

    #[test]
    fn requests_may_interleave() {
        let input = build(|out| {
            out.extend(begun(1, KEEP_CONN));
            out.extend(begun(2, 0));
            client::params(out, 2, [("A", "2")]);
            client::params(out, 1, [("A", "1")]);
            client::params_end(out, 1);
            client::stdin(out, 1, b"one");
            client::params_end(out, 2);
            client::stdin(out, 2, b"two");
            client::stdin(out, 1, b"uno");
            client::stdin_end(out, 2);
            client::stdin_end(out, 1);
        });
        assert_eq!(
            events(&input),
            [
                "1 request RESPONDER KEEP A=1",
                "1 stdin one",
                "2 request RESPONDER A=2",
                "2 stdin two",
                "1 stdin uno",
                "2 stdin ends",
                "1 stdin ends"
            ]
        );
    }

    #[test]
    fn hundreds_of_requests_may_interleave() {
        let ids = || (1..=1000u16).map(|id| id.wrapping_mul(7919));
        let input = build(|out| {
            ids().for_each(|id| out.extend(begun(id, KEEP_CONN)));
            ids().for_each(|id| client::params(out, id, [("ID", id.to_string())]));
            ids().for_each(|id| client::params_end(out, id));
            ids().for_each(|id| client::stdin(out, id, id.to_string().as_bytes()));
            ids().for_each(|id| client::stdin_end(out, id));
        });
        let mut client = client();
        client.send(&input);
        let expected = ids()
            .map(|id| format!("{id} request RESPONDER KEEP ID={id}"))
            .chain(ids().map(|id| format!("{id} stdin {id}")))
            .chain(ids().map(|id| format!("{id} stdin ends")));
        assert!(client.events.iter().cloned().eq(expected));
        assert_eq!(client.connection.active(), 1000);
        ids().for_each(|id| client.connection.finish(id));
        assert!(client.connection.is_idle());
    }

    #[test]
    fn an_unknown_role_is_refused_and_the_connection_goes_on() {
        for role in [0, client::FILTER, 4, 0x0101, 65535] {
            let input = build(|out| {
                client::begin(out, 3, role, KEEP_CONN);
                client::params(out, 3, [("A", "b")]);
                client::params_end(out, 3);
                client::stdin_end(out, 3);
                client::record(out, kind::DATA, 3, b"data", 4);
                client::record(out, kind::DATA, 3, b"", 0);
                out.extend(get(3, KEEP_CONN));
            });
            assert_eq!(
                events(&input),
                [
                    "3 refused UnknownRole KEEP",
                    "3 request RESPONDER KEEP A=b",
                    "3 stdin ends"
                ]
            );
            assert_eq!(replies(&input), ["3 end 0 UnknownRole"]);
        }
    }

    #[test]
    fn a_refused_request_closes_the_connection_if_it_wants_that() {
        let mut client = client();
        client.send(&build(|out| client::begin(out, 3, 9, 0)));
        assert_eq!(client.events, ["3 refused UnknownRole"]);
        assert!(client.connection.is_done());
    }

    #[test]
    fn a_begin_without_an_id_ends_the_connection() {
        assert_eq!(violation(&begun(0, 0)), Some(Violation::BeginId));
    }

    #[test]
    fn a_begin_of_another_length_ends_the_connection() {
        for length in [0, 7, 9, 65535] {
            let input = build(|out| {
                client::record(out, kind::BEGIN_REQUEST, 1, &vec![0; length.into()], 0);
            });
            assert_eq!(violation(&input), Some(Violation::BeginLength(length)));
        }
    }

    #[test]
    fn unknown_flags_mean_nothing() {
        assert_eq!(events(&get(1, 0xfe))[0], "1 request RESPONDER A=b");
        assert_eq!(events(&get(1, 0xff))[0], "1 request RESPONDER KEEP A=b");
    }

    #[test]
    fn an_id_may_be_used_again_at_once() {
        let mut client = client();
        client.answer = true;
        for _ in 0..3 {
            client.send(&get(1, KEEP_CONN));
            assert!(client.connection.is_idle());
            assert!(!client.connection.is_done());
        }
        assert_eq!(client.events.len(), 6);
    }

    #[test]
    fn requests_may_be_sent_before_the_answers_to_others() {
        let mut client = client();
        client.answer = true;
        client.send(&get(1, KEEP_CONN).repeat(3));
        assert_eq!(client.events.len(), 6);
    }

    #[test]
    fn too_many_requests_at_once_are_refused_and_the_others_go_on() {
        let limits = Limits {
            requests: 2,
            ..Limits::default()
        };
        let mut client = Client::new(limits);
        client.send(&build(|out| {
            (1..=3).for_each(|id| out.extend(get(id, KEEP_CONN)));
        }));
        assert_eq!(
            client.events,
            [
                "1 request RESPONDER KEEP A=b",
                "1 stdin ends",
                "2 request RESPONDER KEEP A=b",
                "2 stdin ends",
                "3 refused Overloaded KEEP"
            ]
        );
        assert_eq!(client.replies(), ["3 end 0 Overloaded"]);
        client.connection.finish(1);
        client.send(&get(3, KEEP_CONN));
        assert_eq!(client.events[5..], events(&get(3, KEEP_CONN)));
    }

    #[test]
    fn the_connection_is_done_once_a_request_without_keep_conn_and_all_others_are() {
        let mut client = client();
        client.send(&get(1, 0));
        client.send(&get(2, KEEP_CONN));
        assert!(!client.connection.is_done());
        client.connection.finish(1);
        assert!(!client.connection.is_done());
        client.connection.finish(2);
        assert!(client.connection.is_done());
    }

    #[test]
    fn finishing_what_is_not_active_changes_nothing() {
        let mut client = client();
        client.send(&get(2, KEEP_CONN));
        client.connection.finish(1);
        client.connection.finish(0);
        assert_eq!(client.connection.active(), 1);
        client.connection.finish(2);
        client.connection.finish(2);
        assert!(client.connection.is_idle());
        assert!(!client.connection.is_done());
    }
}

mod management {
    use super::*;

    fn values(names: &[&str]) -> Vec<u8> {
        build(|out| client::get_values(out, names))
    }

    #[test]
    fn a_client_is_told_how_much_it_may_send_at_once() {
        let limits = Limits {
            max_conns: 100,
            max_reqs: u32::MAX,
            ..Limits::default()
        };
        let mut client = Client::new(limits);
        client.send(&values(&[
            "FCGI_MPXS_CONNS",
            "FCGI_MAX_REQS",
            "FCGI_MAX_CONNS",
        ]));
        assert_eq!(
            client.replies(),
            ["values FCGI_MAX_CONNS=100 FCGI_MAX_REQS=4294967295 FCGI_MPXS_CONNS=1"]
        );
        assert!(client.connection.is_idle());
    }

    #[test]
    fn unknown_names_are_left_out() {
        let names = ["FCGI_MAX_CONN", "FCGI_MAX_CONNSS", "", "FCGI_MPXS_CONNS"];
        assert_eq!(replies(&values(&names)), ["values FCGI_MPXS_CONNS=1"]);
        assert_eq!(replies(&values(&["x"])), ["values"]);
        let long = "FCGI_MAX_CONNS".repeat(100);
        assert_eq!(replies(&values(&[&long])), ["values"]);
    }

    #[test]
    fn an_empty_question_has_an_empty_answer() {
        assert_eq!(replies(&values(&[])), ["values"]);
    }

    #[test]
    fn a_name_is_answered_once_however_often_it_is_asked_for() {
        assert_eq!(
            replies(&values(&["FCGI_MPXS_CONNS"; 3000])),
            ["values FCGI_MPXS_CONNS=1"]
        );
    }

    #[test]
    fn values_that_a_question_carries_mean_nothing() {
        let content = client::encode_pairs([("FCGI_MPXS_CONNS", "0"), ("A", "FCGI_MAX_REQS")]);
        let input = build(|out| client::record(out, kind::GET_VALUES, 0, &content, 0));
        assert_eq!(replies(&input), ["values FCGI_MPXS_CONNS=1"]);
    }

    #[test]
    fn a_question_that_ends_inside_a_name_ends_the_connection() {
        let input = build(|out| client::record(out, kind::GET_VALUES, 0, b"\x05\0FCGI", 0));
        assert_eq!(violation(&input), Some(Violation::IncompleteQuery));
    }

    #[test]
    fn a_question_is_answered_in_the_middle_of_a_request() {
        let input = build(|out| {
            out.extend(begun(1, 0));
            out.extend(values(&["FCGI_MPXS_CONNS"]));
            client::record(out, kind::PARAMS, 1, b"\x01\x01", 0);
            out.extend(values(&["FCGI_MPXS_CONNS"]));
            client::record(out, kind::PARAMS, 1, b"Ab", 0);
            client::params_end(out, 1);
            client::stdin(out, 1, b"hello");
            out.extend(values(&["FCGI_MPXS_CONNS"]));
            client::stdin_end(out, 1);
        });
        assert_eq!(
            events(&input),
            ["1 request RESPONDER A=b", "1 stdin hello", "1 stdin ends"]
        );
        assert_eq!(replies(&input), ["values FCGI_MPXS_CONNS=1"; 3]);
    }

    #[test]
    fn an_unknown_type_is_answered_as_such_and_the_connection_goes_on() {
        let input = build(|out| {
            client::record(out, 0x00, 0, b"", 0);
            client::record(out, 0x0c, 0, b"content", 1);
            client::record(out, 0xff, 0, b"", 0);
            out.extend(get(1, 0));
        });
        assert_eq!(
            replies(&input),
            ["UnknownType(0)", "UnknownType(12)", "UnknownType(255)"]
        );
        assert_eq!(events(&input).len(), 2);
    }

    #[test]
    fn the_answer_to_an_unknown_type_is_as_the_specification_draws_it() {
        let mut client = client();
        client.send(&build(|out| client::record(out, 0x0c, 0, b"", 0)));
        assert_eq!(client.replies, b"\x01\x0b\0\0\0\x08\0\0\x0c\0\0\0\0\0\0\0");
    }

    #[test]
    fn an_unknown_type_is_ignored_inside_a_request() {
        let input = build(|out| {
            out.extend(begun(1, 0));
            client::record(out, 0x63, 1, b"what?", 3);
            client::record(out, 0x63, 2, b"what?", 3);
            client::params_end(out, 1);
            client::record(out, 0x63, 1, b"", 0);
            client::stdin_end(out, 1);
        });
        assert_eq!(events(&input), ["1 request RESPONDER", "1 stdin ends"]);
        assert_eq!(replies(&input), [""; 0]);
    }

    #[test]
    fn what_only_servers_send_is_not_answered() {
        let input = build(|out| {
            for kind in [
                kind::END_REQUEST,
                kind::STDOUT,
                kind::STDERR,
                kind::GET_VALUES_RESULT,
                kind::UNKNOWN_TYPE,
            ] {
                client::record(out, kind, 0, b"12345678", 0);
            }
        });
        assert_eq!(replies(&input), [""; 0]);
    }
}

mod streams {
    use super::*;

    #[test]
    fn an_empty_body_before_the_request_is_ignored() {
        let input = build(|out| {
            client::stdin_end(out, 1);
            out.extend(get(1, 0));
        });
        assert_eq!(events(&input).len(), 2);
    }

    #[test]
    fn a_body_that_begins_before_the_parameters_have_ended_ends_the_connection() {
        for body in [&b"hello"[..], b""] {
            let input = build(|out| {
                out.extend(begun(4, 0));
                client::record(out, kind::STDIN, 4, body, 0);
            });
            assert_eq!(violation(&input), Some(Violation::EarlyStdin { id: 4 }));
        }
    }

    #[test]
    fn what_comes_after_the_end_of_a_stream_is_ignored() {
        let input = build(|out| {
            out.extend(begun(1, 0));
            client::params_end(out, 1);
            client::params(out, 1, [("A", "b")]);
            client::params_end(out, 1);
            client::stdin_end(out, 1);
            client::stdin(out, 1, b"hello");
            client::stdin_end(out, 1);
        });
        assert_eq!(events(&input), ["1 request RESPONDER", "1 stdin ends"]);
    }

    #[test]
    fn a_body_is_not_copied() {
        let input = client::request(1, 0, NONE, b"hello");
        let mut connection = Connection::new(Limits::default());
        let (mut rest, mut replies) = (&input[..], Vec::new());
        connection
            .receive(&mut rest, &mut replies)
            .expect("valid records");
        match connection
            .receive(&mut rest, &mut replies)
            .expect("valid records")
        {
            Some(Event::Stdin { data, .. }) => {
                assert!(input.as_ptr_range().contains(&data.as_ptr()));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_rest_of_a_body_is_ignored_once_the_request_is_finished() {
        let mut client = client();
        let input = build(|out| {
            out.extend(begun(1, KEEP_CONN));
            client::params_end(out, 1);
            client::stdin(out, 1, b"hello!");
        });
        let (first, second) = input.split_at(input.len() - 5);
        client.send(first);
        client.connection.finish(1);
        client.send(second);
        client.send(&build(|out| {
            // A body may look like records. It is not.
            client::stdin(out, 1, &get(2, 0));
            client::stdin_end(out, 1);
        }));
        assert_eq!(client.events, ["1 request RESPONDER KEEP", "1 stdin hel"]);
        client.send(&get(1, KEEP_CONN));
        assert_eq!(
            client.events[2..],
            ["1 request RESPONDER KEEP A=b", "1 stdin ends"]
        );
    }

    #[test]
    fn giving_up_before_the_parameters_have_ended_is_answered_at_once() {
        for flags in [0, KEEP_CONN] {
            let mut client = client();
            client.send(&build(|out| {
                out.extend(begun(1, flags));
                client::params(out, 1, [("A", "b")]);
                client::abort(out, 1);
                client::params_end(out, 1);
                client::stdin_end(out, 1);
                client::abort(out, 1);
            }));
            let keep = if flags == KEEP_CONN { " KEEP" } else { "" };
            assert_eq!(client.events, [format!("1 refused RequestComplete{keep}")]);
            assert_eq!(client.replies(), ["1 end 0 RequestComplete"]);
            assert_eq!(client.connection.is_done(), flags == 0);
            assert!(client.connection.is_idle());
            assert_eq!(client.connection.buffered(), 0);
        }
    }

    #[test]
    fn giving_up_later_is_told_once_and_ends_the_body() {
        let mut client = client();
        client.send(&build(|out| {
            out.extend(begun(1, 0));
            client::params_end(out, 1);
            client::stdin(out, 1, b"hello");
            client::abort(out, 1);
            client::abort(out, 1);
            client::stdin(out, 1, b"world");
            client::stdin_end(out, 1);
        }));
        assert_eq!(
            client.events,
            ["1 request RESPONDER", "1 stdin hello", "1 abort"]
        );
        assert!(client.replies.is_empty());
    }

    #[test]
    fn a_request_may_be_given_up_while_it_runs_but_not_when_it_is_finished() {
        let mut client = client();
        client.send(&get(1, KEEP_CONN));
        client.send(&build(|out| client::abort(out, 1)));
        assert_eq!(client.events[1..], ["1 stdin ends", "1 abort"]);
        client.connection.finish(1);
        client.send(&build(|out| client::abort(out, 1)));
        assert_eq!(client.events.len(), 3);
        assert!(client.replies.is_empty());
    }

    #[test]
    fn giving_up_one_request_leaves_the_others_whole() {
        let input = build(|out| {
            (1..=3).for_each(|id| out.extend(begun(id, KEEP_CONN)));
            client::params(out, 2, [("A", "b")]);
            client::params_end(out, 3);
            client::abort(out, 1);
            client::abort(out, 3);
            client::params(out, 2, [("C", "d")]);
            client::params_end(out, 2);
            client::stdin_end(out, 2);
        });
        assert_eq!(
            events(&input),
            [
                "3 request RESPONDER KEEP",
                "1 refused RequestComplete KEEP",
                "3 abort",
                "2 request RESPONDER KEEP A=b C=d",
                "2 stdin ends"
            ]
        );
    }

    #[test]
    fn an_authorizer_needs_no_body_and_no_script() {
        let input = build(|out| {
            client::begin(out, 1, client::AUTHORIZER, KEEP_CONN);
            client::params(out, 1, [("REMOTE_USER", "x")]);
            client::params_end(out, 1);
        });
        let expected = ["1 request AUTHORIZER KEEP REMOTE_USER=x", "1 stdin ends"];
        assert_eq!(events(&input), expected);
        // Some clients send its end all the same.
        let input = build(|out| {
            out.extend(input);
            client::stdin_end(out, 1);
        });
        assert_eq!(events(&input), expected);
    }

    #[test]
    fn an_authorizer_that_is_finished_at_once_has_no_more_events() {
        let input = build(|out| {
            client::begin(out, 1, client::AUTHORIZER, KEEP_CONN);
            client::params_end(out, 1);
        });
        let mut connection = Connection::new(Limits::default());
        let (mut rest, mut replies) = (&input[..], Vec::new());
        assert!(matches!(
            connection.receive(&mut rest, &mut replies),
            Ok(Some(Event::Request { .. }))
        ));
        assert!(!connection.is_between_records());
        connection.finish(1);
        assert!(connection.is_idle());
        assert_eq!(connection.receive(&mut rest, &mut replies), Ok(None));
    }
}

mod waiting {
    use super::*;

    #[test]
    fn a_client_owes_the_rest_of_what_it_sends_in_one_go() {
        let input = get(1, KEEP_CONN);
        let params_ended = input.len() - 8;
        for cut in 0..=input.len() {
            let mut client = client();
            client.send(&input[..cut]);
            let owes = client.connection.awaits_params();
            // All of it, apart from two moments: before the first record, and between the parameters and the body.
            let complete = [0, params_ended, input.len()].contains(&cut);
            assert_eq!(owes, !complete, "after {cut} bytes");
        }
    }

    #[test]
    fn a_body_may_be_slow() {
        let mut client = client();
        let input = build(|out| {
            out.extend(begun(1, KEEP_CONN));
            client::params_end(out, 1);
            client::stdin(out, 1, b"hello, hello");
        });
        client.send(&input[..input.len() - 8]);
        assert!(!client.connection.awaits_params());
        assert!(client.connection.awaits_stdin(1));
        assert!(!client.connection.awaits_stdin(2));
        client.send(&input[input.len() - 8..]);
        assert!(client.connection.awaits_stdin(1));
        client.send(&build(|out| client::stdin_end(out, 1)));
        assert!(!client.connection.awaits_stdin(1));
    }

    #[test]
    fn it_is_idle_only_between_records_and_requests() {
        let input = get(1, KEEP_CONN);
        for cut in 1..input.len() {
            let mut client = client();
            client.send(&input[..cut]);
            assert!(!client.connection.is_idle(), "after {cut} bytes");
        }
        assert!(client().connection.is_idle());
    }
}
