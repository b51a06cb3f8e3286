//! What a client asks about this server: `FCGI_GET_VALUES` (section 4.1).

use super::encode;
use super::pairs::{self, Pairs, Piece};
use super::record::kind;

/// The names that the specification defines. Each has its place in [`Query::asked`].
const NAMES: [&[u8]; 3] = [b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS", b"FCGI_MPXS_CONNS"];

/// The length of the longest name.
const LONGEST: usize = 15;

/// A query that is coming in. It takes no memory beyond this, however long the query is.
#[derive(Debug, Clone, Default)]
pub(super) struct Query {
    pairs: Pairs,
    /// The beginning of the name that is coming in.
    name: [u8; LONGEST],
    /// Its length so far, or any that is too long.
    len: usize,
    /// Which of the names were asked for. One that is asked for twice is answered once, so that an answer is never much
    /// larger than its question.
    asked: [bool; NAMES.len()],
}

impl Query {
    /// Takes a piece of the query.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(piece) = self.pairs.next(&mut bytes) {
            match piece {
                Piece::Lengths { .. } => self.len = 0,
                Piece::Name { bytes, ends } => {
                    let end = self.len + bytes.len();
                    if let Some(free) = self.name.get_mut(self.len..end) {
                        free.copy_from_slice(bytes);
                    }
                    self.len = end;
                    if ends && let Some(name) = self.name.get(..end) {
                        for (known, asked) in NAMES.iter().zip(&mut self.asked) {
                            *asked |= *known == name;
                        }
                    }
                }
                // Section 4.1: values are sent empty, and mean nothing.
                Piece::Value { .. } => {}
            }
        }
    }

    /// The query may end here.
    pub(super) fn is_between_pairs(&self) -> bool {
        self.pairs.is_between_pairs()
    }

    /// Appends the answer. Names that nobody knows are left out, as the specification wants.
    pub(super) fn answer(&self, max_conns: u32, max_reqs: u32, replies: &mut Vec<u8>) {
        let mut content = Vec::new();
        // A connection always carries several requests.
        let values = [max_conns, max_reqs, 1];
        for ((name, value), _) in NAMES
            .iter()
            .zip(values)
            .zip(self.asked)
            .filter(|(_, asked)| *asked)
        {
            pairs::encode(&mut content, name, value.to_string().as_bytes());
        }
        encode::record(replies, kind::GET_VALUES_RESULT, 0, &content);
    }
}
