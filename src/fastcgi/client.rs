//! The other side of the protocol, for tests and tools: writes requests, reads answers.

use super::encode;
use super::pairs::{self, Pairs, Piece};
use super::params::Params;
use super::record::{self, Header, ProtocolStatus, VERSION, kind, take};

/// The role of nearly all requests: wants a page.
pub const RESPONDER: u16 = 0x0001;
/// The role that asks whether a page may be seen.
pub const AUTHORIZER: u16 = 0x0002;
/// The role that has a file changed on its way; this server does not know it.
pub const FILTER: u16 = 0x0003;

/// The flag that keeps the connection open after the answer.
pub const KEEP_CONN: u8 = record::KEEP_CONN;

/// Begins a request.
pub fn begin(out: &mut Vec<u8>, id: u16, role: u16, flags: u8) {
    let [role1, role0] = role.to_be_bytes();
    encode::record(
        out,
        kind::BEGIN_REQUEST,
        id,
        &[role1, role0, flags, 0, 0, 0, 0, 0],
    );
}

/// Parameters, in as many records as it takes. Without [`params_end`], more may follow.
pub fn params<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    id: u16,
    pairs: impl IntoIterator<Item = (N, V)>,
) {
    encode::stream(out, kind::PARAMS, id, &encode_pairs(pairs));
}

/// The end of the parameters.
pub fn params_end(out: &mut Vec<u8>, id: u16) {
    encode::record(out, kind::PARAMS, id, &[]);
}

/// A piece of the body, in as many records as it takes. Nothing for an empty one, which would end the stream.
pub fn stdin(out: &mut Vec<u8>, id: u16, content: &[u8]) {
    encode::stream(out, kind::STDIN, id, content);
}

/// The end of the body.
pub fn stdin_end(out: &mut Vec<u8>, id: u16) {
    encode::record(out, kind::STDIN, id, &[]);
}

/// Gives up a request.
pub fn abort(out: &mut Vec<u8>, id: u16) {
    encode::record(out, kind::ABORT_REQUEST, id, &[]);
}

/// Asks about the server, for instance for `FCGI_MAX_REQS`. One record takes some thousands of names; more are not sent.
pub fn get_values<N: AsRef<[u8]>>(out: &mut Vec<u8>, names: impl IntoIterator<Item = N>) {
    let content = encode_pairs(names.into_iter().map(|name| (name, [])));
    let content = content.get(..record::MAX_CONTENT).unwrap_or(&content);
    encode::record(out, kind::GET_VALUES, 0, content);
}

/// A whole request: parameters, and a body of any length.
pub fn request<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    id: u16,
    flags: u8,
    pairs: impl IntoIterator<Item = (N, V)>,
    body: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    begin(&mut out, id, RESPONDER, flags);
    params(&mut out, id, pairs);
    params_end(&mut out, id);
    stdin(&mut out, id, body);
    stdin_end(&mut out, id);
    out
}

/// Any record at all, sensible or not. Content beyond 65535 bytes is not sent. Padding is 0xff, as it means nothing.
pub fn record(out: &mut Vec<u8>, kind: u8, id: u16, content: &[u8], padding: u8) {
    let content = content.get(..0xffff).unwrap_or(content);
    let header = Header {
        padding,
        ..Header::new(kind, id, content.len() as u16)
    };
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(content);
    out.resize(out.len() + usize::from(padding), 0xff);
}

/// Names and values as they are inside records.
pub fn encode_pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    pairs: impl IntoIterator<Item = (N, V)>,
) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        pairs::encode(&mut out, name.as_ref(), value.as_ref());
    }
    out
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A piece of the answer; an empty one is its end.
    Stdout {
        /// The request.
        id: u16,
        /// The piece.
        data: &'a [u8],
    },
    /// A piece of what went wrong; an empty one is its end.
    Stderr {
        /// The request.
        id: u16,
        /// The piece.
        data: &'a [u8],
    },
    /// A request is over.
    EndRequest {
        /// The request.
        id: u16,
        /// What its program would have exited with.
        app_status: u32,
        /// How the protocol sees it.
        status: ProtocolStatus,
    },
    /// What the server says about itself.
    Values(Params),
    /// The server does not know this type of management record.
    UnknownType(u8),
}

/// A server sent something that FastCGI does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The version is not 1.
    #[error("a record has version {0} instead of 1: the server does not speak FastCGI")]
    Version(u8),
    /// The type is one that servers do not send.
    #[error("a record has type {0}, which servers do not send")]
    Kind(u8),
    /// The content does not fit the type, or belongs to the wrong id.
    #[error("the content or the id of a record of type {0} makes no sense")]
    Content(u8),
}

/// Takes a whole record from the beginning of `input`. With none, `input` is left as it is and has to grow.
///
/// # Errors
///
/// A record that a server must not send is taken too, except for one of another version, whose length can't be known.
pub fn receive<'a>(input: &mut &'a [u8]) -> Result<Option<Reply<'a>>, Malformed> {
    let Some((header, content)) = take_record(input)? else {
        return Ok(None);
    };
    let (kind, id) = (header.kind, header.id);
    let reply = match kind {
        kind::STDOUT => Reply::Stdout { id, data: content },
        kind::STDERR => Reply::Stderr { id, data: content },
        kind::END_REQUEST => end_request(id, content).ok_or(Malformed::Content(kind))?,
        kind::GET_VALUES_RESULT => {
            Reply::Values(decode_pairs(content).ok_or(Malformed::Content(kind))?)
        }
        kind::UNKNOWN_TYPE => match content {
            [unknown, 0, 0, 0, 0, 0, 0, 0] => Reply::UnknownType(*unknown),
            _ => return Err(Malformed::Content(kind)),
        },
        _ => return Err(Malformed::Kind(kind)),
    };
    let about_connection = matches!(reply, Reply::Values(_) | Reply::UnknownType(_));
    if about_connection != (id == 0) {
        return Err(Malformed::Content(kind));
    }
    Ok(Some(reply))
}

/// Takes a whole record of any type from the beginning of `input`: its header and its content. With none, `input` is left as
/// it is and has to grow.
///
/// # Errors
///
/// Only for another version.
pub fn take_record<'a>(input: &mut &'a [u8]) -> Result<Option<(Header, &'a [u8])>, Malformed> {
    let Some((bytes, mut rest)) = input.split_first_chunk() else {
        return Ok(None);
    };
    let header = Header::decode(*bytes);
    if header.version != VERSION {
        return Err(Malformed::Version(header.version));
    }
    let (content, padding) = (usize::from(header.content), usize::from(header.padding));
    if rest.len() < content + padding {
        return Ok(None);
    }
    let content = take(&mut rest, content);
    take(&mut rest, padding);
    *input = rest;
    Ok(Some((header, content)))
}

/// The content of `FCGI_END_REQUEST`. Its reserved bytes are zero if the server is as careful as it should be.
fn end_request<'a>(id: u16, content: &[u8]) -> Option<Reply<'a>> {
    let [a, b, c, d, status, 0, 0, 0] = *content else {
        return None;
    };
    Some(Reply::EndRequest {
        id,
        app_status: u32::from_be_bytes([a, b, c, d]),
        status: ProtocolStatus::from_number(status)?,
    })
}

/// Names and values from inside a record; none if it ends inside one.
pub fn decode_pairs(mut content: &[u8]) -> Option<Params> {
    let mut decoder = Pairs::default();
    let mut pairs: Vec<(&[u8], &[u8])> = Vec::new();
    while let Some(piece) = decoder.next(&mut content) {
        match piece {
            Piece::Lengths { .. } => pairs.push((&[], &[])),
            // All content is here, so names and values come in one piece, or end too early.
            Piece::Name { bytes, .. } => pairs.last_mut()?.0 = bytes,
            Piece::Value { bytes, .. } => pairs.last_mut()?.1 = bytes,
        }
    }
    decoder
        .is_between_pairs()
        .then(|| pairs.into_iter().collect())
}
