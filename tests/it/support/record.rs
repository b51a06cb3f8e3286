//! FastCGI records, written byte by byte from the specification. The code under test has its own.

pub(crate) const BEGIN: u8 = 1;
pub(crate) const ABORT: u8 = 2;
pub(crate) const END: u8 = 3;
pub(crate) const PARAMS: u8 = 4;
pub(crate) const STDIN: u8 = 5;
pub(crate) const STDOUT: u8 = 6;
pub(crate) const STDERR: u8 = 7;
pub(crate) const DATA: u8 = 8;
pub(crate) const GET_VALUES: u8 = 9;
pub(crate) const GET_VALUES_RESULT: u8 = 10;
pub(crate) const UNKNOWN_TYPE: u8 = 11;

pub(crate) const RESPONDER: u16 = 1;
pub(crate) const AUTHORIZER: u16 = 2;
pub(crate) const FILTER: u16 = 3;

pub(crate) const REQUEST_COMPLETE: u8 = 0;
pub(crate) const OVERLOADED: u8 = 2;
pub(crate) const UNKNOWN_ROLE: u8 = 3;

/// A record as it arrived.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) version: u8,
    pub(crate) kind: u8,
    pub(crate) id: u16,
    pub(crate) content: Vec<u8>,
    pub(crate) padding: u8,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.content[..self.content.len().min(200)];
        write!(
            f,
            "[type {} id {} {}+{} bytes {:?}]",
            self.kind,
            self.id,
            self.content.len(),
            self.padding,
            String::from_utf8_lossy(shown)
        )
    }
}

pub(crate) fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    padded(kind, id, content, 0)
}

pub(crate) fn padded(kind: u8, id: u16, content: &[u8], padding: u8) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let id = id.to_be_bytes();
    let mut bytes = vec![1, kind, id[0], id[1], length[0], length[1], padding, 0];
    bytes.extend_from_slice(content);
    // Anything but zeros, so that padding taken for content shows.
    bytes.extend(std::iter::repeat_n(b'#', usize::from(padding)));
    bytes
}

/// A stream of any length as records, without its end.
pub(crate) fn stream(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    content
        .chunks(0xffff)
        .flat_map(|piece| record(kind, id, piece))
        .collect()
}

/// BEGIN_REQUEST. Flag 1 keeps the connection.
pub(crate) fn begin(id: u16, role: u16, flags: u8) -> Vec<u8> {
    let role = role.to_be_bytes();
    record(BEGIN, id, &[role[0], role[1], flags, 0, 0, 0, 0, 0])
}

/// A length in its shortest form.
pub(crate) fn length(length: usize) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(short @ ..128) => vec![short],
        _ => long_length(length),
    }
}

/// A length in four bytes, even if one would do.
pub(crate) fn long_length(length: usize) -> Vec<u8> {
    (u32::try_from(length).unwrap() | 1 << 31)
        .to_be_bytes()
        .to_vec()
}

pub(crate) fn pair(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&length(name.len())[..], &length(value.len()), name, value].concat()
}

/// What GET_VALUES and its result carry.
pub(crate) fn read_pairs(mut bytes: &[u8]) -> Vec<(String, String)> {
    fn length(bytes: &mut &[u8]) -> usize {
        if bytes[0] < 128 {
            let length = usize::from(bytes[0]);
            *bytes = &bytes[1..];
            return length;
        }
        let (four, rest) = bytes.split_at(4);
        *bytes = rest;
        (u32::from_be_bytes(four.try_into().unwrap()) & 0x7fff_ffff) as usize
    }
    fn text(bytes: &mut &[u8], length: usize) -> String {
        let (text, rest) = bytes.split_at(length);
        *bytes = rest;
        String::from_utf8(text.to_vec()).unwrap()
    }
    let mut pairs = Vec::new();
    while !bytes.is_empty() {
        let (name, value) = (length(&mut bytes), length(&mut bytes));
        pairs.push((text(&mut bytes, name), text(&mut bytes, value)));
    }
    pairs
}
