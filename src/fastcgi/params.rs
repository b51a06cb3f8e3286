//! The parameters of one request.

use std::fmt;
use std::ops::Range;

use super::pairs::{Pairs, Piece};

/// The parameters of one request: what CGI calls environment variables.
///
/// They lie in one buffer, so that a request costs one allocation however many there are, and every name and value has a
/// NUL after it, so that C can read it in place. NULs that a client sent inside of them are kept; who hands them to C has
/// to look.
///
/// A name that a client sent more than once keeps all its values. [`get`](Self::get) gives the last of them, and
/// [`iter`](Self::iter) gives them in the order they came in, so that registering each over the one before it, as
/// `$_SERVER` does, gives the same. That costs nothing on the way in, where finding duplicates at once would cost a hash
/// table for what no web server sends.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Params {
    /// One pair after the other: the length of the name, the length of the value, name, NUL, value, NUL.
    buffer: Vec<u8>,
    /// How many pairs there are.
    len: usize,
}

/// The bytes of one length in the buffer.
const LENGTH: usize = size_of::<usize>();

impl Params {
    /// What a pair takes in the buffer beyond its name and value: two lengths, two NULs.
    pub(super) const PAIR_OVERHEAD: usize = 2 * LENGTH + 2;

    /// The value of `name`; the last one if there are several.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().filter(|(n, _)| *n == name).last().map(|p| p.1)
    }

    /// Gives `name` this value instead of all it had, where the first of them was. A new name goes to the end.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        let Some(Range { start, end }) = self.find(name) else {
            return self.push(name, value);
        };
        let more = self.has_after(end, name);
        let mut pair = Vec::with_capacity(Self::PAIR_OVERHEAD + name.len() + value.len());
        push_pair(&mut pair, name, value);
        let next = start + pair.len();
        self.buffer.splice(start..end, pair);
        if more {
            self.remove_after(next, name);
        }
    }

    /// Takes `name` out, with all its values.
    pub fn remove(&mut self, name: &[u8]) {
        if let Some(found) = self.find(name) {
            self.remove_after(found.start, name);
        }
    }

    /// How many pairs there are, duplicates counted.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All pairs in the order they came in, duplicates among them, without the NULs.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.iter_with_nul()
            .map(|(name, value)| (without_last(name), without_last(value)))
    }

    /// The same; each slice ends in its NUL.
    pub fn iter_with_nul(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.buffer.as_slice();
        std::iter::from_fn(move || {
            let (name, value, after) = split_pair(rest)?;
            rest = after;
            Some((name, value))
        })
    }

    /// Bytes of memory that this holds on to.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Puts a pair at the end, whether or not there is one of this name.
    fn push(&mut self, name: &[u8], value: &[u8]) {
        push_pair(&mut self.buffer, name, value);
        self.len += 1;
    }

    /// Where in the buffer the first pair of this name is.
    fn find(&self, name: &[u8]) -> Option<Range<usize>> {
        let mut rest = self.buffer.as_slice();
        while let Some((n, _, after)) = split_pair(rest) {
            if without_last(n) == name {
                return Some(self.buffer.len() - rest.len()..self.buffer.len() - after.len());
            }
            rest = after;
        }
        None
    }

    /// Whether a pair of this name is at `from` or after it.
    fn has_after(&self, from: usize, name: &[u8]) -> bool {
        let mut rest = self.buffer.get(from..).unwrap_or_default();
        while let Some((n, _, after)) = split_pair(rest) {
            if without_last(n) == name {
                return true;
            }
            rest = after;
        }
        false
    }

    /// Takes out the pairs of this name at `from` and after it, in one pass, as there may be thousands.
    fn remove_after(&mut self, from: usize, name: &[u8]) {
        let mut read = from;
        let mut write = from;
        while let Some((n, _, after)) = self.buffer.get(read..).and_then(split_pair) {
            let gone = without_last(n) == name;
            let next = self.buffer.len() - after.len();
            if gone {
                self.len -= 1;
            } else {
                self.buffer.copy_within(read..next, write);
                write += next - read;
            }
            read = next;
        }
        self.buffer.truncate(write);
    }
}

impl fmt::Debug for Params {
    /// Names only: values can be passwords, and end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Params ")?;
        f.debug_set()
            .entries(self.iter().map(|(name, _)| name.escape_ascii().to_string()))
            .finish()
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Params {
    /// As if a client had sent these; duplicates are kept.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut params = Self::default();
        for (name, value) in pairs {
            params.push(name.as_ref(), value.as_ref());
        }
        params
    }
}

fn push_pair(buffer: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    push_lengths(buffer, name.len(), value.len());
    buffer.extend_from_slice(name);
    buffer.push(0);
    buffer.extend_from_slice(value);
    buffer.push(0);
}

fn push_lengths(buffer: &mut Vec<u8>, name: usize, value: usize) {
    buffer.extend_from_slice(&name.to_ne_bytes());
    buffer.extend_from_slice(&value.to_ne_bytes());
}

/// The first pair of a buffer, each part with its NUL, and what follows it.
fn split_pair(buffer: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = buffer.split_first_chunk()?;
    let (value, rest) = rest.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::from_ne_bytes(*name) + 1)?;
    let (value, rest) = rest.split_at_checked(usize::from_ne_bytes(*value) + 1)?;
    Some((name, value, rest))
}

fn without_last(bytes: &[u8]) -> &[u8] {
    bytes.split_last().map_or(bytes, |(_, before)| before)
}

/// Parameters that are still coming in.
#[derive(Debug, Default)]
pub(super) struct Collector {
    params: Params,
    pairs: Pairs,
    /// What all pairs so far take in the buffer, going by their lengths.
    claimed: usize,
}

/// The parameters would take more than the bytes there are for them.
#[derive(Debug)]
pub(super) struct TooLarge;

impl Collector {
    /// Takes a piece of the stream. `room` is how many bytes of memory there are, beyond what was claimed before, and
    /// shrinks by what this piece claims. A pair that claims more is refused before a byte of it is kept, so nothing is
    /// ever allocated for a length alone.
    pub(super) fn feed(&mut self, mut bytes: &[u8], room: &mut usize) -> Result<(), TooLarge> {
        let buffer = &mut self.params.buffer;
        if buffer.capacity() == 0 {
            // Lengths and NULs take more room here than lengths do on the wire, some 40% with what web servers send. The
            // rest is for what is set later. Only what has arrived counts, not what the record says will.
            buffer.reserve(2 * bytes.len());
        }
        while let Some(piece) = self.pairs.next(&mut bytes) {
            match piece {
                Piece::Lengths { name, value } => {
                    let size = name
                        .saturating_add(value)
                        .saturating_add(Params::PAIR_OVERHEAD);
                    *room = room.checked_sub(size).ok_or(TooLarge)?;
                    self.claimed += size;
                    push_lengths(buffer, name, value);
                }
                Piece::Name { bytes, ends } => {
                    buffer.extend_from_slice(bytes);
                    if ends {
                        buffer.push(0);
                    }
                }
                Piece::Value { bytes, ends } => {
                    buffer.extend_from_slice(bytes);
                    if ends {
                        buffer.push(0);
                        self.params.len += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// See the field.
    pub(super) fn claimed(&self) -> usize {
        self.claimed
    }

    /// Bytes of memory that this holds on to.
    pub(super) fn capacity(&self) -> usize {
        self.params.capacity()
    }

    /// The parameters, unless the stream ended inside a pair.
    pub(super) fn complete(self) -> Option<Params> {
        self.pairs.is_between_pairs().then_some(self.params)
    }
}

#[cfg(test)]
mod tests;
