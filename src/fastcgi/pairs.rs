//! Names and values (section 3.4), from a stream that may be cut anywhere.

use super::record::take;

/// A part of a pair. Each pair is a `Lengths`, then one or more `Name`, then one or more `Value`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A pair begins. These are claims: the bytes may never come.
    Lengths { name: usize, value: usize },
    /// The next bytes of the name, possibly none; `ends` says that there are no more.
    Name { bytes: &'a [u8], ends: bool },
    /// The same for the value.
    Value { bytes: &'a [u8], ends: bool },
}

/// Where in a pair the stream is. It holds no names or values, only the lengths that a cut left incomplete.
#[derive(Debug, Clone)]
pub(super) enum Pairs {
    /// Before or in the lengths: the bytes of them that have come.
    Lengths { bytes: [u8; 8], len: usize },
    /// In the name; bytes of it and of the value yet to come.
    Name { left: usize, value: usize },
    /// In the value.
    Value { left: usize },
}

impl Default for Pairs {
    fn default() -> Self {
        Self::Lengths {
            bytes: [0; 8],
            len: 0,
        }
    }
}

impl Pairs {
    /// Takes the next piece from `input`; none if it takes more bytes.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        match *self {
            Self::Lengths {
                ref mut bytes,
                ref mut len,
            } => {
                let (name, value) = take_lengths(bytes, len, input)?;
                *self = Self::Name { left: name, value };
                Some(Piece::Lengths { name, value })
            }
            Self::Name { left, value } => {
                let bytes = take_some(left, input)?;
                let left = left - bytes.len();
                *self = match left {
                    0 => Self::Value { left: value },
                    _ => Self::Name { left, value },
                };
                Some(Piece::Name {
                    bytes,
                    ends: left == 0,
                })
            }
            Self::Value { left } => {
                let bytes = take_some(left, input)?;
                let left = left - bytes.len();
                *self = match left {
                    0 => Self::default(),
                    _ => Self::Value { left },
                };
                Some(Piece::Value {
                    bytes,
                    ends: left == 0,
                })
            }
        }
    }

    /// No pair is incomplete: the stream may end here.
    pub(super) fn is_between_pairs(&self) -> bool {
        matches!(self, Self::Lengths { len: 0, .. })
    }
}

/// Up to `left` bytes; none if some are wanted and there are none.
fn take_some<'a>(left: usize, input: &mut &'a [u8]) -> Option<&'a [u8]> {
    (left == 0 || !input.is_empty()).then(|| take(input, left))
}

/// Both lengths, of which `held` keeps the first `len` bytes while others are missing.
fn take_lengths(held: &mut [u8; 8], len: &mut usize, input: &mut &[u8]) -> Option<(usize, usize)> {
    if *len == 0
        && let Some((name, value, rest)) = decode_lengths(input)
    {
        *input = rest;
        return Some((name, value));
    }
    // Eight bytes always hold two lengths, so this ends with both or with no more input.
    for at in *len..held.len() {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        *len = at + 1;
        if let Some(slot) = held.get_mut(at) {
            *slot = byte;
        }
        if let Some((name, value, _)) = held.get(..*len).and_then(decode_lengths) {
            return Some((name, value));
        }
    }
    None
}

fn decode_lengths(bytes: &[u8]) -> Option<(usize, usize, &[u8])> {
    let (name, rest) = decode_length(bytes)?;
    let (value, rest) = decode_length(rest)?;
    Some((name, value, rest))
}

/// One byte up to 127, or four with the highest bit set. Short lengths in four bytes are allowed.
fn decode_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first & 0x80 == 0 {
        return Some((usize::from(first), rest));
    }
    let (four, rest) = bytes.split_first_chunk()?;
    Some(((u32::from_be_bytes(*four) & 0x7fff_ffff) as usize, rest))
}

/// Appends a pair.
pub(super) fn encode(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    encode_length(out, name.len());
    encode_length(out, value.len());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

fn encode_length(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short @ ..=0x7f) => out.push(short),
        // The highest bit marks the form; no name or value in memory here comes near the 2 GiB that this leaves.
        _ => out.extend_from_slice(&(length as u32 | 0x8000_0000).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name and value lengths of a stream that holds nothing else.
    fn lengths(mut stream: &[u8]) -> Option<(usize, usize)> {
        match Pairs::default().next(&mut stream)? {
            Piece::Lengths { name, value } => Some((name, value)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_length_up_to_127_takes_one_byte_and_a_longer_one_four() {
        for (length, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x00, 0x00, 0x80]),
            (0x0102_0304, &[0x81, 0x02, 0x03, 0x04]),
        ] {
            let mut out = Vec::new();
            encode_length(&mut out, length);
            assert_eq!(out, bytes);
            assert_eq!(decode_length(bytes), Some((length, &[][..])));
        }
    }

    #[test]
    fn a_short_length_in_four_bytes_is_understood() {
        assert_eq!(lengths(b"\x80\0\0\x05\x03"), Some((5, 3)));
        assert_eq!(lengths(b"\x80\0\0\0\x80\0\0\0"), Some((0, 0)));
    }

    #[test]
    fn the_longest_lengths_are_understood_and_nothing_is_kept_for_them() {
        let most = 0x7fff_ffff;
        let mut stream: &[u8] = b"\xff\xff\xff\xff\xff\xff\xff\xffab";
        let mut pairs = Pairs::default();
        assert_eq!(
            pairs.next(&mut stream),
            Some(Piece::Lengths {
                name: most,
                value: most
            })
        );
        assert_eq!(
            pairs.next(&mut stream),
            Some(Piece::Name {
                bytes: b"ab",
                ends: false
            })
        );
        assert_eq!(pairs.next(&mut stream), None);
        assert!(!pairs.is_between_pairs());
    }

    #[test]
    fn an_empty_name_and_an_empty_value_need_no_further_byte() {
        let mut stream: &[u8] = b"\0\0";
        let mut pairs = Pairs::default();
        assert!(pairs.next(&mut stream).is_some());
        let ends = true;
        assert_eq!(
            pairs.next(&mut stream),
            Some(Piece::Name { bytes: b"", ends })
        );
        assert_eq!(
            pairs.next(&mut stream),
            Some(Piece::Value { bytes: b"", ends })
        );
        assert!(pairs.is_between_pairs());
    }

    #[test]
    fn lengths_are_understood_wherever_they_are_cut() {
        let stream: &[u8] = b"\x80\0\0\x90\x80\0\x01\x02";
        for cut in 0..stream.len() {
            let (mut first, mut second) = stream.split_at(cut);
            let mut pairs = Pairs::default();
            assert_eq!(pairs.next(&mut first), None);
            assert_eq!(pairs.is_between_pairs(), cut == 0);
            assert_eq!(
                pairs.next(&mut second),
                Some(Piece::Lengths {
                    name: 0x90,
                    value: 0x102
                })
            );
        }
    }
}
