//! A request's body, from when it begins to arrive until PHP has read it.

#![forbid(unsafe_code)]

use std::io;

use super::spill::Spill;

/// What is kept in memory, in bytes; the rest goes to a file. Larger than nearly all forms, and 500 slow uploads take less
/// than 32 MiB.
const IN_MEMORY: usize = 64 << 10;

/// A request's body: first it grows, then it is read.
#[derive(Debug, Default)]
pub(super) struct Body {
    memory: Vec<u8>,
    read: usize,
    file: Option<Spill>,
    length: u64,
}

impl Body {
    /// Appends what STDIN brought.
    ///
    /// # Errors
    ///
    /// If the file cannot be written: the disk is full, most often.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        if self.file.is_none() {
            let room = IN_MEMORY - self.memory.len();
            let (here, there) = bytes.split_at(room.min(bytes.len()));
            self.memory.extend_from_slice(here);
            bytes = there;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.file {
            Some(file) => file.push(bytes),
            none => none.insert(Spill::new()?).push(bytes),
        }
    }

    /// How many bytes came.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Reads on; 0 at the end.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let memory = self.memory.get(self.read..).unwrap_or_default();
        if memory.is_empty() {
            return self.file.as_mut().map_or(Ok(0), |file| file.pull(buffer));
        }
        let count = memory.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), memory.get(..count)) {
            to.copy_from_slice(from);
        }
        self.read += count;
        Ok(count)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Body, IN_MEMORY};

    #[test]
    fn a_body_is_read_as_it_came_wherever_it_was_kept() {
        for length in [0, 1, IN_MEMORY - 1, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY] {
            let sent: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let mut body = Body::default();
            for piece in sent.chunks(1000) {
                body.push(piece).unwrap();
            }
            assert_eq!(body.length(), length as u64);
            let (mut read, mut buffer) = (Vec::new(), [0; 777]);
            loop {
                match body.read(&mut buffer).unwrap() {
                    0 => break,
                    count => read.extend_from_slice(&buffer[..count]),
                }
            }
            assert!(read == sent, "{length} bytes");
        }
    }
}
