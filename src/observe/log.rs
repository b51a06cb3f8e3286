//! The error log.
//!
//! The supervisor alone holds the file, so that it can reopen it, and so that no script can truncate it through an inherited
//! descriptor. The other processes send it their messages over a socket, one message a packet; see [`Log::relay`].

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::panic::Location;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::sink::Sink;
use crate::config::Level;

/// Bytes of a message that are logged. It fits into a packet with the kernel's default buffers, and no PHP message worth
/// reading is longer.
const LONGEST_MESSAGE: usize = 64 * 1024;

/// How long a log that takes nothing is waited for, once, until messages are dropped. The supervisor does nothing else
/// meanwhile, obeying signals included.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the supervisor is waited for, which may be waiting for the log.
const RELAY_PATIENCE: Duration = Duration::from_secs(3);

/// Writes messages of a level and above. Clones write to the same place.
///
/// A log whose reader has stopped holds nobody up for long: messages are dropped then, and their number is logged once there
/// is room again.
#[derive(Debug, Clone)]
pub struct Log {
    level: Level,
    form: Form,
    target: Arc<Sink>,
    /// Gets every line of [`Level::Notice`] and above, too.
    copy: Option<Arc<Sink>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Lines with the time.
    Lines,
    /// A byte for the level, then the message.
    Packets,
}

impl Log {
    /// Writes lines such as `[23-Nov-2026 05:12:52] NOTICE: ready to handle connections`: to a file opened for appending, each
    /// with one write(2), or to a pipe, terminal or socket.
    pub fn new(target: OwnedFd, level: Level) -> Self {
        Self {
            level,
            form: Form::Lines,
            target: Arc::new(Sink::new(target, PATIENCE)),
            copy: None,
        }
    }

    /// Writes lines to standard error, where messages go before there is another log.
    ///
    /// # Errors
    ///
    /// If there is no standard error.
    pub fn stderr(level: Level) -> io::Result<Self> {
        Ok(Self::new(io::stderr().as_fd().try_clone_to_owned()?, level))
    }

    /// Sends messages to a process that holds the log and [passes them on](Self::pass_on), over a socket that keeps the
    /// bounds of packets.
    pub fn relay(socket: OwnedFd, level: Level) -> Self {
        Self {
            level,
            form: Form::Packets,
            target: Arc::new(Sink::new(socket, RELAY_PATIENCE)),
            copy: None,
        }
    }

    /// Writes everything but debug messages there as well, as php-fpm does on standard error until it runs.
    #[must_use]
    pub fn with_copy(self, copy: OwnedFd) -> Self {
        Self {
            copy: Some(Arc::new(Sink::new(copy, PATIENCE))),
            ..self
        }
    }

    /// Messages below this level are dropped.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Writes one message as one line; characters that would make it look like something else are escaped.
    ///
    /// A log that cannot be written to has nobody to be reported to, so there is no error.
    #[track_caller]
    pub fn write(&self, level: Level, message: &str) {
        if level < self.level {
            return;
        }
        let message = shortened(message);
        let message = if self.level == Level::Debug {
            Cow::Owned(format!("{}{message}", origin(Location::caller())))
        } else {
            message
        };
        self.emit(level, &message);
    }

    /// Writes a message that came from a [`relay`](Self::relay) as a packet. It is escaped here, whatever sent it.
    pub fn pass_on(&self, packet: &[u8]) {
        let Some((&code, message)) = packet.split_first() else {
            return;
        };
        let level = LEVELS
            .into_iter()
            .find(|&level| byte(level) == code)
            .unwrap_or(Level::Warning);
        if level >= self.level {
            self.emit(level, &String::from_utf8_lossy(message));
        }
    }

    /// What helps to find a fault in howdah.
    #[track_caller]
    pub fn debug(&self, message: impl Display) {
        // Not formatted for nothing.
        if self.level <= Level::Debug {
            self.write(Level::Debug, &message.to_string());
        }
    }

    /// What happens in the course of things.
    #[track_caller]
    pub fn notice(&self, message: impl Display) {
        self.write(Level::Notice, &message.to_string());
    }

    /// What an administrator should look at some day.
    #[track_caller]
    pub fn warning(&self, message: impl Display) {
        self.write(Level::Warning, &message.to_string());
    }

    /// What failed.
    #[track_caller]
    pub fn error(&self, message: impl Display) {
        self.write(Level::Error, &message.to_string());
    }

    /// What needs somebody now.
    #[track_caller]
    pub fn alert(&self, message: impl Display) {
        self.write(Level::Alert, &message.to_string());
    }

    fn emit(&self, level: Level, message: &str) {
        let form = |level: Level, message: &str| match self.form {
            Form::Packets => [&[byte(level)], message.as_bytes()].concat(),
            Form::Lines => {
                let time = stamp(self.level);
                format!("[{time}] {}: {}\n", level.name(), escaped(message)).into_bytes()
            }
        };
        let report = |dropped: u64| {
            let level = self.level.max(Level::Warning);
            form(
                level,
                &format!("{dropped} messages before this one were dropped, as the log took none"),
            )
        };
        let formed = form(level, message);
        self.target.write(&formed, report);
        if let Some(copy) = self.copy.as_ref().filter(|_| level >= Level::Notice) {
            copy.write(&formed, report);
        }
    }
}

const LEVELS: [Level; 5] = [
    Level::Debug,
    Level::Notice,
    Level::Warning,
    Level::Error,
    Level::Alert,
];

fn byte(level: Level) -> u8 {
    match level {
        Level::Debug => b'D',
        Level::Notice => b'N',
        Level::Warning => b'W',
        Level::Error => b'E',
        Level::Alert => b'A',
    }
}

/// php-fpm's way of writing the time; microseconds are for those who debug.
fn stamp(level: Level) -> impl Display {
    let now = jiff::Zoned::now();
    if level == Level::Debug {
        now.strftime("%d-%b-%Y %H:%M:%S%.6f").to_string()
    } else {
        now.strftime("%d-%b-%Y %H:%M:%S").to_string()
    }
}

/// What php-fpm puts before each message when it debugs. Log parsers want a word before the brackets; a source file's name
/// is one.
fn origin(location: &Location<'_>) -> String {
    let file = Path::new(location.file())
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    format!(
        "pid {}, {file}(), line {}: ",
        std::process::id(),
        location.line()
    )
}

fn shortened(message: &str) -> Cow<'_, str> {
    if message.len() <= LONGEST_MESSAGE {
        return message.into();
    }
    let start = (0..=LONGEST_MESSAGE)
        .rev()
        .find_map(|end| message.get(..end));
    format!("{}...", start.unwrap_or_default()).into()
}

/// A message is one line, and none can pretend to be two, or talk to a terminal. Tabs are harmless.
fn escaped(message: &str) -> Cow<'_, str> {
    let dangerous = |c: char| c.is_control() && c != '\t';
    if !message.contains(dangerous) {
        return message.into();
    }
    let mut text = String::with_capacity(message.len() + 16);
    for c in message.chars() {
        match c {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            c if dangerous(c) => {
                let _ = write!(text, "\\x{:02x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _};

    use super::*;

    fn logged(level: Level, write: impl FnOnce(&Log)) -> String {
        let mut file = tempfile::tempfile().unwrap();
        write(&Log::new(file.try_clone().unwrap().into(), level));
        contents(&mut file)
    }

    fn contents(file: &mut File) -> String {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    /// The line without its time, which is checked.
    fn after_time<'a>(line: &'a str, time: &str) -> &'a str {
        let rest = line.strip_prefix('[').unwrap();
        let (stamp, rest) = rest.split_once("] ").unwrap();
        assert!(
            jiff::civil::DateTime::strptime(time, stamp).is_ok(),
            "{stamp}"
        );
        rest
    }

    #[test]
    fn lines_look_like_php_fpms() {
        let text = logged(Level::Notice, |log| {
            log.notice("ready to handle connections")
        });
        assert_eq!(
            after_time(&text, "%d-%b-%Y %H:%M:%S"),
            "NOTICE: ready to handle connections\n"
        );
        assert_eq!(text.find(']'), Some(21), "{text}");
    }

    #[test]
    fn debug_lines_say_where_they_come_from() {
        let text = logged(Level::Debug, |log| log.warning("x"));
        let line = after_time(&text, "%d-%b-%Y %H:%M:%S%.f");
        assert!(
            line.starts_with(&format!(
                "WARNING: pid {}, log(), line ",
                std::process::id()
            )),
            "{line}"
        );
        assert!(line.ends_with(": x\n"), "{line}");
        assert_eq!(text.find(']'), Some(28), "{text}");
    }

    #[test]
    fn messages_below_the_level_are_dropped() {
        let text = logged(Level::Warning, |log| {
            log.debug("no");
            log.notice("no");
            log.warning("yes");
            log.alert("yes");
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains("no"));
    }

    #[test]
    fn a_message_is_one_line_whatever_it_holds() {
        let text = logged(Level::Notice, |log| {
            log.error("a\n[23-Nov-2026 05:12:52] ALERT: b\r\t\u{1b}[2J\u{7}\u{85}é\\n\0");
        });
        assert_eq!(
            after_time(&text, "%d-%b-%Y %H:%M:%S"),
            "ERROR: a\\n[23-Nov-2026 05:12:52] ALERT: b\\r\t\\x1b[2J\\x07\\x85é\\n\\x00\n"
        );
    }

    #[test]
    fn messages_have_an_end() {
        let text = logged(Level::Notice, |log| log.notice("é".repeat(LONGEST_MESSAGE)));
        assert!(text.len() < LONGEST_MESSAGE + 100);
        assert!(text.ends_with("é...\n"));
    }

    #[test]
    fn a_copy_goes_without_debug_messages() {
        let mut file = tempfile::tempfile().unwrap();
        let text = logged(Level::Debug, |log| {
            let log = log.clone().with_copy(file.try_clone().unwrap().into());
            log.debug("one");
            log.notice("two");
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        let copied = contents(&mut file);
        assert!(
            copied.contains("two") && copied.lines().count() == 1,
            "{copied}"
        );
    }

    #[test]
    fn relayed_messages_arrive_whole_and_in_order() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let (send, receive) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        let relay = Log::relay(send, Level::Notice);
        relay.debug("dropped at the source");
        relay.error("one\ntwo");
        relay.notice("x".repeat(LONGEST_MESSAGE * 2));
        drop(relay);
        let text = logged(Level::Notice, |log| {
            let mut packet = vec![0; LONGEST_MESSAGE * 2];
            loop {
                let length = nix::unistd::read(&receive, &mut packet).unwrap();
                if length == 0 {
                    break;
                }
                log.pass_on(&packet[..length]);
            }
        });
        let lines: Vec<_> = text
            .lines()
            .map(|line| after_time(line, "%d-%b-%Y %H:%M:%S"))
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], "ERROR: one\\ntwo");
        assert!(lines[1].starts_with("NOTICE: xxx") && lines[1].ends_with("x..."));
    }

    #[test]
    fn what_was_dropped_is_reported() {
        use std::io::Write as _;
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut fill = File::from(write.try_clone().unwrap());
        fill.write_all(&[b'x'; 64 * 1024]).unwrap();
        drop(fill);
        let log = Log::new(write, Level::Alert);
        log.alert("one");
        log.alert("two");
        log.error("not for this log");
        let mut read = File::from(read);
        read.read_exact(&mut [0; 64 * 1024]).unwrap();
        log.alert("three");
        drop(log);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        let lines: Vec<_> = text
            .lines()
            .map(|line| after_time(line, "%d-%b-%Y %H:%M:%S"))
            .collect();
        assert_eq!(
            lines,
            [
                "ALERT: 2 messages before this one were dropped, as the log took none",
                "ALERT: three"
            ]
        );
    }

    #[test]
    fn packets_that_nobody_sent_are_harmless() {
        let text = logged(Level::Notice, |log| {
            log.pass_on(b"");
            log.pass_on(b"\xff\xfe\n");
            log.pass_on(b"Dhidden");
        });
        assert_eq!(
            after_time(&text, "%d-%b-%Y %H:%M:%S"),
            "WARNING: \u{fffd}\\n\n"
        );
    }
}
