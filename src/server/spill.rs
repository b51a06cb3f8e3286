//! Bytes that wait in a file without a name, so that memory is for those who move.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// A queue of bytes in a temporary file, which is gone when this is.
#[derive(Debug)]
pub(super) struct Spill {
    file: File,
    written: u64,
    read: u64,
}

impl Spill {
    /// An empty one, in the directory for temporary files.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile()?,
            written: 0,
            read: 0,
        })
    }

    /// Appends. After an error, what was there before is still there.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Takes bytes off the front; 0 when it is empty.
    pub(super) fn pull(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left()).unwrap_or(usize::MAX);
        let room = buffer.len().min(left);
        let Some(buffer) = buffer.get_mut(..room).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let read = self.file.read_at(buffer, self.read)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read += read as u64;
        Ok(read)
    }

    /// Bytes that are in it.
    pub(super) fn left(&self) -> u64 {
        self.written - self.read
    }

    /// Bytes that the file takes on the disk.
    pub(super) fn size(&self) -> u64 {
        self.written
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Spill;

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let mut spill = Spill::new().unwrap();
        let mut buffer = [0; 4];
        assert_eq!(spill.pull(&mut buffer).unwrap(), 0);
        spill.push(b"hello ").unwrap();
        assert_eq!(spill.pull(&mut buffer).unwrap(), 4);
        assert_eq!(&buffer, b"hell");
        spill.push(b"world").unwrap();
        assert_eq!(spill.left(), 7);
        let mut rest = Vec::new();
        loop {
            match spill.pull(&mut buffer).unwrap() {
                0 => break,
                read => rest.extend_from_slice(&buffer[..read]),
            }
        }
        assert_eq!(rest, b"o world");
        assert_eq!((spill.left(), spill.size()), (0, 11));
    }
}
