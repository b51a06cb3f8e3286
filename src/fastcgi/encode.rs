//! Writes records for a client.
//!
//! Each function appends whole records, padded with zeros to a multiple of eight bytes, so that a buffer may hold several of
//! them for one write.

use super::record::{Header, MAX_CONTENT, ProtocolStatus, kind};

/// A piece of the answer, in as many records as it takes. Nothing for an empty one, which would end the stream.
pub fn stdout(out: &mut Vec<u8>, id: u16, content: &[u8]) {
    stream(out, kind::STDOUT, id, content);
}

/// The end of the answer.
pub fn stdout_end(out: &mut Vec<u8>, id: u16) {
    end_of_stream(out, kind::STDOUT, id);
}

/// A piece of what went wrong, in as many records as it takes. Nothing for an empty one, which would end the stream.
pub fn stderr(out: &mut Vec<u8>, id: u16, content: &[u8]) {
    stream(out, kind::STDERR, id, content);
}

/// The end of what went wrong; only needed if something did.
pub fn stderr_end(out: &mut Vec<u8>, id: u16) {
    end_of_stream(out, kind::STDERR, id);
}

/// A request is over. `app_status` is what its program would have exited with.
pub fn end_request(out: &mut Vec<u8>, id: u16, app_status: u32, status: ProtocolStatus) {
    let [a, b, c, d] = app_status.to_be_bytes();
    record(
        out,
        kind::END_REQUEST,
        id,
        &[a, b, c, d, status as u8, 0, 0, 0],
    );
}

/// The answer to a management record of unknown type.
pub(super) fn unknown_type(out: &mut Vec<u8>, unknown: u8) {
    record(out, kind::UNKNOWN_TYPE, 0, &[unknown, 0, 0, 0, 0, 0, 0, 0]);
}

/// A piece of a stream.
pub(super) fn stream(out: &mut Vec<u8>, kind: u8, id: u16, content: &[u8]) {
    let records = content.len().div_ceil(MAX_CONTENT);
    out.reserve(content.len() + records * Header::LEN + 7);
    for piece in content.chunks(MAX_CONTENT) {
        record(out, kind, id, piece);
    }
}

/// An empty record. It is padded although it need not be: nginx (1.22) takes an unpadded one before the end of an answer that
/// is shorter than its `Content-Length` for a fault of its own, and leaves its visitor waiting.
fn end_of_stream(out: &mut Vec<u8>, kind: u8, id: u16) {
    let header = Header {
        padding: Header::LEN as u8,
        ..Header::new(kind, id, 0)
    };
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(&[0; Header::LEN]);
}

/// One record. `content` is at most [`MAX_CONTENT`] long.
pub(super) fn record(out: &mut Vec<u8>, kind: u8, id: u16, content: &[u8]) {
    debug_assert!(content.len() <= MAX_CONTENT);
    let header = Header::new(kind, id, content.len() as u16);
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(content);
    out.resize(out.len() + usize::from(header.padding), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn a_record_is_padded_with_zeros_to_a_multiple_of_eight_bytes() {
        assert_eq!(
            written(|out| stdout(out, 0x0102, b"hello")),
            b"\x01\x06\x01\x02\0\x05\x03\0hello\0\0\0"
        );
        for length in 0..100 {
            let out = written(|out| stderr(out, 1, &vec![b'x'; length]));
            assert_eq!(out.len(), (length.div_ceil(8) + length.min(1)) * 8);
        }
    }

    #[test]
    fn an_empty_piece_does_not_end_the_stream() {
        assert_eq!(written(|out| stdout(out, 1, b"")), b"");
        assert_eq!(written(|out| stderr(out, 1, b"")), b"");
    }

    #[test]
    fn an_empty_record_ends_the_stream() {
        assert_eq!(
            written(|out| stdout_end(out, 1)),
            b"\x01\x06\0\x01\0\0\x08\0\0\0\0\0\0\0\0\0"
        );
        assert_eq!(
            written(|out| stderr_end(out, 1)),
            b"\x01\x07\0\x01\0\0\x08\0\0\0\0\0\0\0\0\0"
        );
    }

    #[test]
    fn the_end_of_a_request_has_its_status_and_zeros() {
        assert_eq!(
            written(|out| end_request(out, 7, 0x0102_0304, ProtocolStatus::Overloaded)),
            b"\x01\x03\0\x07\0\x08\0\0\x01\x02\x03\x04\x02\0\0\0"
        );
    }

    #[test]
    fn a_long_piece_takes_several_records_of_one_length() {
        let content = vec![b'x'; 2 * 65528 + 1];
        let out = written(|out| stdout(out, 1, &content));
        assert_eq!(out.len(), content.len() + 3 * 8 + 7);
        assert_eq!(out.capacity(), out.len());
        let header = |at: usize| Header::decode(*out[at..].first_chunk().expect("a header"));
        assert_eq!(header(0), Header::new(kind::STDOUT, 1, 65528));
        assert_eq!(header(65536), Header::new(kind::STDOUT, 1, 65528));
        assert_eq!(header(2 * 65536), Header::new(kind::STDOUT, 1, 1));
    }
}
