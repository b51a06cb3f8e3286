//! What processes write to their standard output and standard error, line by line.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Bytes of a line; longer ones are logged in pieces.
const LONGEST_LINE: usize = 4096;

/// How much is read at once, so that a process that never stops writing does not keep the reader from other things.
const PORTION: usize = 64 * 1024;

/// The reading end of a pipe that somebody writes lines into.
#[derive(Debug)]
pub(super) struct Output {
    pipe: OwnedFd,
    partial: Vec<u8>,
}

/// A line that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// The pipe was closed in the middle of it.
    pub(super) cut: bool,
}

impl Output {
    pub(super) fn new(pipe: OwnedFd) -> io::Result<Self> {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self {
            pipe,
            partial: Vec::new(),
        })
    }

    /// The lines that have arrived, and whether more may come.
    pub(super) fn read(&mut self) -> (Vec<Line>, bool) {
        let mut lines = Vec::new();
        let mut buffer = vec![0; PORTION];
        let open = loop {
            match nix::unistd::read(&self.pipe, &mut buffer) {
                Ok(0) => break false,
                Ok(length) => {
                    self.take(buffer.get(..length).unwrap_or_default(), &mut lines);
                    break true;
                }
                Err(Errno::EINTR) => {}
                Err(error) => break error == Errno::EAGAIN,
            }
        };
        if !open && !self.partial.is_empty() {
            lines.push(line(&std::mem::take(&mut self.partial), true));
        }
        (lines, open)
    }

    fn take(&mut self, bytes: &[u8], lines: &mut Vec<Line>) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let ended = piece.last() == Some(&b'\n');
            let mut rest = piece.strip_suffix(b"\n").unwrap_or(piece);
            loop {
                let room = LONGEST_LINE.saturating_sub(self.partial.len());
                let (fits, more) = rest.split_at(room.min(rest.len()));
                self.partial.extend_from_slice(fits);
                rest = more;
                if rest.is_empty() {
                    break;
                }
                lines.push(line(&std::mem::take(&mut self.partial), false));
            }
            if ended {
                lines.push(line(&std::mem::take(&mut self.partial), false));
            }
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

fn line(bytes: &[u8], cut: bool) -> Line {
    Line {
        text: String::from_utf8_lossy(bytes).into_owned(),
        cut,
    }
}

impl std::fmt::Display for Line {
    /// As php-fpm ends its message of what a child said.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = if self.cut { ", pipe is closed" } else { "" };
        write!(f, "\"{}\"{end}", self.text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pipe() -> (Output, OwnedFd) {
        let (read, write) = nix::unistd::pipe().unwrap();
        (Output::new(read).unwrap(), write)
    }

    fn texts(lines: Vec<Line>) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lines_come_when_they_are_whole() {
        let (mut output, write) = pipe();
        nix::unistd::write(&write, b"one\ntw").unwrap();
        let (lines, open) = output.read();
        assert_eq!((texts(lines), open), (vec!["\"one\"".to_owned()], true));
        assert_eq!(output.read(), (vec![], true));
        nix::unistd::write(&write, b"o\n\nthree").unwrap();
        drop(write);
        assert_eq!(texts(output.read().0), ["\"two\"", "\"\""]);
        let (lines, open) = output.read();
        assert_eq!(
            (texts(lines), open),
            (vec!["\"three\", pipe is closed".to_owned()], false)
        );
    }

    #[test]
    fn long_lines_come_in_pieces() {
        let (mut output, write) = pipe();
        let mut text = vec![b'x'; 2 * LONGEST_LINE];
        text.push(b'\n');
        text.extend_from_slice(&[b'y'; LONGEST_LINE + 1]);
        nix::unistd::write(&write, &text).unwrap();
        drop(write);
        let mut lines = output.read().0;
        lines.append(&mut output.read().0);
        let lengths: Vec<_> = lines.iter().map(|line| line.text.len()).collect();
        assert_eq!(lengths, [LONGEST_LINE, LONGEST_LINE, LONGEST_LINE, 1]);
    }

    #[test]
    fn lines_need_not_be_text() {
        let (mut output, write) = pipe();
        nix::unistd::write(&write, b"\xff\0\n").unwrap();
        assert_eq!(texts(output.read().0), ["\"\u{fffd}\0\""]);
    }
}
