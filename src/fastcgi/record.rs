//! What records are made of (sections 3.3 and 8).

/// The only version of the protocol.
pub(super) const VERSION: u8 = 0x01;

/// `FCGI_KEEP_CONN`, the only flag of `FCGI_BEGIN_REQUEST`.
pub(super) const KEEP_CONN: u8 = 0x01;

/// The most content that is put into one record: the largest length that needs no padding to end at a multiple of
/// eight bytes. A record can carry 65535 bytes, and such records are accepted.
pub const MAX_CONTENT: usize = 0xfff8;

/// The types of records.
pub mod kind {
    /// A client begins a request.
    pub const BEGIN_REQUEST: u8 = 0x01;
    /// A client gives up a request.
    pub const ABORT_REQUEST: u8 = 0x02;
    /// A request is over.
    pub const END_REQUEST: u8 = 0x03;
    /// A piece of the parameters.
    pub const PARAMS: u8 = 0x04;
    /// A piece of the request's body.
    pub const STDIN: u8 = 0x05;
    /// A piece of the answer.
    pub const STDOUT: u8 = 0x06;
    /// A piece of what went wrong.
    pub const STDERR: u8 = 0x07;
    /// A piece of the file that a Filter works on.
    pub const DATA: u8 = 0x08;
    /// A client asks about the server.
    pub const GET_VALUES: u8 = 0x09;
    /// The answer to that.
    pub const GET_VALUES_RESULT: u8 = 0x0a;
    /// The answer to a management record of a type that nobody knows.
    pub const UNKNOWN_TYPE: u8 = 0x0b;
}

/// The eight bytes that every record begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// 1 in all valid records.
    pub version: u8,
    /// See [`kind`].
    pub kind: u8,
    /// The request that the record belongs to; 0 for the connection as a whole.
    pub id: u16,
    /// Bytes of content.
    pub content: u16,
    /// Bytes after the content that mean nothing.
    pub padding: u8,
}

impl Header {
    /// Bytes of an encoded header.
    pub const LEN: usize = 8;

    /// The header of a record that ends at a multiple of eight bytes, as section 3.3 recommends.
    pub fn new(kind: u8, id: u16, content: u16) -> Self {
        Self {
            version: VERSION,
            kind,
            id,
            content,
            padding: (content.wrapping_neg() & 0x07) as u8,
        }
    }

    /// The header in its eight bytes. The last is reserved, and nothing is read from it.
    pub fn decode(bytes: [u8; Self::LEN]) -> Self {
        let [
            version,
            kind,
            id1,
            id0,
            content1,
            content0,
            padding,
            _reserved,
        ] = bytes;
        Self {
            version,
            kind,
            id: u16::from_be_bytes([id1, id0]),
            content: u16::from_be_bytes([content1, content0]),
            padding,
        }
    }

    /// The eight bytes.
    pub fn encode(self) -> [u8; Self::LEN] {
        let [id1, id0] = self.id.to_be_bytes();
        let [content1, content0] = self.content.to_be_bytes();
        [
            self.version,
            self.kind,
            id1,
            id0,
            content1,
            content0,
            self.padding,
            0x00,
        ]
    }
}

/// What a request wants done (section 6).
///
/// `FCGI_FILTER` is not among them, and is refused as a role that is not known: a Filter's answer is made from its DATA
/// stream, which PHP scripts have no means to read. An answer without it would look whole and be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A page.
    Responder,
    /// Whether another page may be seen. There is no body.
    Authorizer,
}

impl Role {
    /// The role with this number.
    pub fn from_number(number: u16) -> Option<Self> {
        match number {
            0x0001 => Some(Self::Responder),
            0x0002 => Some(Self::Authorizer),
            _ => None,
        }
    }

    /// Its name in the specification, without the prefix `FCGI_`; php-fpm has it in `$_SERVER['FCGI_ROLE']`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Responder => "RESPONDER",
            Self::Authorizer => "AUTHORIZER",
        }
    }
}

/// How a request ended, as the protocol sees it (section 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ProtocolStatus {
    /// It was answered, or given up by the client.
    RequestComplete = 0x00,
    /// It came while another one ran, and only one at a time can.
    CantMpxConn = 0x01,
    /// There is no room for it now.
    Overloaded = 0x02,
    /// It wants something done that this server does not do.
    UnknownRole = 0x03,
}

impl ProtocolStatus {
    /// The status with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0x00 => Some(Self::RequestComplete),
            0x01 => Some(Self::CantMpxConn),
            0x02 => Some(Self::Overloaded),
            0x03 => Some(Self::UnknownRole),
            _ => None,
        }
    }
}

/// Eight bytes that may arrive one at a time: a header, or the content of `FCGI_BEGIN_REQUEST`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EightBytes {
    bytes: [u8; 8],
    len: usize,
}

impl EightBytes {
    /// Takes what is missing from `input`. Gives the bytes once there are eight, and is empty again.
    pub(super) fn fill(&mut self, input: &mut &[u8]) -> Option<[u8; 8]> {
        if self.len == 0
            && let Some((whole, rest)) = input.split_first_chunk()
        {
            *input = rest;
            return Some(*whole);
        }
        for slot in self.bytes.iter_mut().skip(self.len) {
            let (&byte, rest) = input.split_first()?;
            *input = rest;
            *slot = byte;
            self.len += 1;
        }
        self.len = 0;
        Some(self.bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Takes up to `most` bytes from the beginning of `input`.
pub(super) fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    taken
}
