//! The types of values: how each is read from a file, and how `-tt` shows it.
//!
//! A type that can hold it means the value is good: nothing downstream checks again.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Something a directive can be set to.
pub(super) trait Value: Sized {
    /// What the reference page says the value is.
    const KIND: &'static str;

    /// Reads what a file says; quotes, variables and constants are resolved already.
    fn read(text: &str) -> Result<Self, Refusal>;

    /// As php-fpm's `-tt` shows it.
    fn show(&self) -> String;
}

/// Why a text is not a value; completes the sentence "'5x' …".
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It is not this.
    IsNot(&'static str),
    /// php-fpm knows it, this version of howdah does not.
    NotYet {
        /// What to write instead.
        remedy: &'static str,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsNot(what) => write!(f, "is not {what}"),
            Self::NotYet { remedy } => write!(
                f,
                "is not something this version of howdah can do yet; {remedy}"
            ),
        }
    }
}

/// A value that may be left out. Empty means left out, as in php-fpm.
impl<T: Value> Value for Option<T> {
    const KIND: &'static str = T::KIND;

    fn read(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() {
            Ok(None)
        } else {
            T::read(text).map(Some)
        }
    }

    fn show(&self) -> String {
        self.as_ref()
            .map_or_else(|| "undefined".to_owned(), T::show)
    }
}

impl Value for String {
    const KIND: &'static str = "text";

    fn read(text: &str) -> Result<Self, Refusal> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

/// What a path is relative to is the directive's affair.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PathText(pub(super) String);

impl Value for PathText {
    const KIND: &'static str = "path";

    fn read(text: &str) -> Result<Self, Refusal> {
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account(pub(super) String);

impl Value for Account {
    const KIND: &'static str = "name or number";

    fn read(text: &str) -> Result<Self, Refusal> {
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The text of `listen`; what it means depends on the pool's prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListenText(pub(super) String);

impl Value for ListenText {
    const KIND: &'static str = "`ADDRESS:PORT`, `[IPV6]:PORT`, `PORT` or path";

    fn read(text: &str) -> Result<Self, Refusal> {
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Unquoted, the words arrive as `1` and the empty string; quoted or from a variable, as themselves.
impl Value for bool {
    const KIND: &'static str = "yes or no";

    fn read(text: &str) -> Result<Self, Refusal> {
        let is = |word: &&str| text.eq_ignore_ascii_case(word);
        if ["1", "yes", "true", "on"].iter().any(is) {
            Ok(true)
        } else if ["", "0", "no", "none", "false", "off"].iter().any(is) {
            Ok(false)
        } else {
            Err(Refusal::IsNot("a boolean; use yes or no"))
        }
    }

    fn show(&self) -> String {
        if *self { "yes" } else { "no" }.to_owned()
    }
}

/// A whole number, as php-fpm reads one: empty is zero, so that an unset `${VARIABLE}` leaves the default of most.
fn whole(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if digits.is_empty() {
        return Some(0);
    }
    digits.parse::<i64>().ok().map(|number| sign * number)
}

/// Zero or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count(pub(super) u32);

impl Value for Count {
    const KIND: &'static str = "number";

    fn read(text: &str) -> Result<Self, Refusal> {
        whole(text)
            .filter(|&number| number <= i64::from(i32::MAX))
            .and_then(|number| u32::try_from(number).ok())
            .map(Self)
            .ok_or(Refusal::IsNot("a whole number from 0 to 2147483647"))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// One or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Positive(pub(super) NonZeroU32);

impl Value for Positive {
    const KIND: &'static str = "number, at least 1";

    fn read(text: &str) -> Result<Self, Refusal> {
        Count::read(text)
            .ok()
            .and_then(|Count(number)| NonZeroU32::new(number))
            .map(Self)
            .ok_or(Refusal::IsNot("a whole number from 1 to 2147483647"))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// The second argument of listen(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Backlog(pub(super) i32);

impl Value for Backlog {
    const KIND: &'static str = "number, or -1";

    fn read(text: &str) -> Result<Self, Refusal> {
        whole(text)
            .and_then(|number| i32::try_from(number).ok())
            .filter(|&number| number >= -1)
            .map(Self)
            .ok_or(Refusal::IsNot(
                "a whole number from 0 to 2147483647, or -1 for the system's maximum",
            ))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seconds(pub(super) u32);

impl Seconds {
    /// Zero switches a timeout off.
    pub(super) fn timeout(self) -> Option<Duration> {
        (self.0 != 0).then(|| self.duration())
    }

    pub(super) fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }
}

impl Value for Seconds {
    const KIND: &'static str = "time: seconds, or a number with `s`, `m`, `h` or `d`";

    fn read(text: &str) -> Result<Self, Refusal> {
        let refusal = Refusal::IsNot(
            "a time; use seconds, or a number with the suffix s, m, h or d, such as 30s (at most 68 years)",
        );
        let (number, unit) = match text.as_bytes().last() {
            Some(b's') => (text.strip_suffix('s'), 1),
            Some(b'm') => (text.strip_suffix('m'), 60),
            Some(b'h') => (text.strip_suffix('h'), 60 * 60),
            Some(b'd') => (text.strip_suffix('d'), 24 * 60 * 60),
            _ => (Some(text), 1),
        };
        let number = number.unwrap_or_default().trim();
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refusal);
        }
        number
            .parse::<u32>()
            .ok()
            .and_then(|number| number.checked_mul(unit))
            .filter(|&seconds| seconds <= i32::MAX as u32)
            .map(Self)
            .ok_or(refusal)
    }

    fn show(&self) -> String {
        format!("{}s", self.0)
    }
}

/// The permissions of a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mode(pub(super) u32);

impl Value for Mode {
    const KIND: &'static str = "octal number";

    fn read(text: &str) -> Result<Self, Refusal> {
        text.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| u32::from_str_radix(text, 8).ok())
            .flatten()
            .filter(|&mode| mode <= 0o777)
            .map(Self)
            .ok_or(Refusal::IsNot(
                "the octal permissions of a socket; use a number such as 0660",
            ))
    }

    fn show(&self) -> String {
        format!("{:04o}", self.0)
    }
}

/// How many messages reach the log: those of this level and above.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Level {
    /// For those who look for a fault in howdah or in its configuration.
    Debug,
    /// What happens in the course of things: starts, stops, reloads.
    #[default]
    Notice,
    /// What an administrator should look at some day.
    Warning,
    /// What failed.
    Error,
    /// What needs somebody now.
    Alert,
}

impl Level {
    /// In the log, and in `-tt`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Notice => "NOTICE",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Alert => "ALERT",
        }
    }
}

impl Value for Level {
    const KIND: &'static str = "`debug`, `notice`, `warning`, `error` or `alert`";

    fn read(text: &str) -> Result<Self, Refusal> {
        let all = [
            Self::Debug,
            Self::Notice,
            Self::Warning,
            Self::Error,
            Self::Alert,
        ];
        if text.eq_ignore_ascii_case("warn") {
            return Ok(Self::Warning);
        }
        all.into_iter()
            .find(|level| text.eq_ignore_ascii_case(level.name()))
            .ok_or(Refusal::IsNot(
                "a log level; use debug, notice, warning, error or alert",
            ))
    }

    fn show(&self) -> String {
        self.name().to_owned()
    }
}

/// The file of `error_log`, before its prefix is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LogText(pub(super) String);

impl Value for LogText {
    const KIND: &'static str = "path";

    fn read(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() {
            Err(Refusal::IsNot("a file's path; use one, or /dev/stderr"))
        } else if text.eq_ignore_ascii_case("syslog") {
            Err(Refusal::NotYet {
                remedy: "use a file's path, or /dev/stderr",
            })
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// How a pool's processes come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessManager {
    /// All are there all the time.
    Static,
}

impl Value for ProcessManager {
    const KIND: &'static str = "`static`";

    fn read(text: &str) -> Result<Self, Refusal> {
        let is = |word: &str| text.eq_ignore_ascii_case(word);
        if is("static") {
            Ok(Self::Static)
        } else if is("dynamic") || is("ondemand") {
            Err(Refusal::NotYet {
                remedy: "use pm = static, which keeps pm.max_children of them ready",
            })
        } else {
            Err(Refusal::IsNot("a process manager; use static"))
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Static => "static".to_owned(),
        }
    }
}

/// The entries of `listen.allowed_clients`. A list that is there but empty lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Clients(pub(super) Option<ClientList>);

/// Addresses, and what should have been some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientList {
    pub(super) allowed: Vec<IpAddr>,
    pub(super) wrong: Vec<String>,
    text: String,
}

impl Value for Clients {
    const KIND: &'static str = "IP addresses, separated by commas";

    fn read(text: &str) -> Result<Self, Refusal> {
        let mut list = ClientList {
            allowed: Vec::new(),
            wrong: Vec::new(),
            text: text.to_owned(),
        };
        for entry in text.split(',').map(str::trim) {
            match entry.parse::<IpAddr>() {
                // An IPv4 client of a socket that listens on [::] arrives as ::ffff:192.0.2.1.
                Ok(address) => list.allowed.push(address.to_canonical()),
                Err(_) => list.wrong.push(entry.to_owned()),
            }
        }
        Ok(Self(Some(list)))
    }

    fn show(&self) -> String {
        self.0
            .as_ref()
            .map_or_else(|| "undefined".to_owned(), |list| list.text.clone())
    }
}

/// The endings a script's name may have; none means any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Extensions(pub(super) Vec<String>);

impl Value for Extensions {
    const KIND: &'static str = "endings, separated by blanks";

    fn read(text: &str) -> Result<Self, Refusal> {
        Ok(Self(
            text.split([' ', '\t'])
                .filter(|ending| !ending.is_empty())
                .map(str::to_owned)
                .collect(),
        ))
    }

    fn show(&self) -> String {
        self.0.join(" ")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shown<T: Value>(text: &str) -> Option<String> {
        T::read(text).ok().map(|value| value.show())
    }

    #[test]
    fn booleans_are_phps_words_in_any_case() {
        for text in ["1", "yes", "true", "on", "On", "YES"] {
            assert_eq!(bool::read(text), Ok(true), "{text}");
        }
        for text in ["", "0", "no", "none", "false", "off", "OFF"] {
            assert_eq!(bool::read(text), Ok(false), "{text}");
        }
        for text in ["2", "y", "yes ", "enabled"] {
            assert!(bool::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_suffixes_and_no_overflow() {
        for (text, seconds) in [
            ("0", 0),
            ("30", 30),
            ("30s", 30),
            ("5m", 300),
            ("2h", 7200),
            ("1d", 86400),
            ("5 s", 5),
        ] {
            assert_eq!(Seconds::read(text), Ok(Seconds(seconds)), "{text}");
        }
        for text in [
            "",
            "s",
            "-5",
            "5x",
            "5S",
            "1.5s",
            "x5",
            "99999d",
            "2147483648",
            "99999999999999999999",
        ] {
            assert!(Seconds::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_keep_their_range() {
        for (text, number) in [
            ("", "0"),
            ("-", "0"),
            ("0", "0"),
            ("007", "7"),
            ("2147483647", "2147483647"),
        ] {
            assert_eq!(shown::<Count>(text).as_deref(), Some(number), "{text}");
        }
        for text in [
            "-1",
            "+1",
            "5x",
            "1e3",
            " 1",
            "2147483648",
            "99999999999999999999",
            "٣",
        ] {
            assert!(Count::read(text).is_err(), "{text}");
            assert!(Positive::read(text).is_err(), "{text}");
        }
        assert!(Positive::read("0").is_err() && Positive::read("").is_err());
        assert_eq!(shown::<Backlog>("-1").as_deref(), Some("-1"));
        assert!(Backlog::read("-2").is_err());
    }

    #[test]
    fn modes_are_octal() {
        for (text, mode) in [("0660", 0o660), ("666", 0o666), ("0", 0)] {
            assert_eq!(Mode::read(text), Ok(Mode(mode)), "{text}");
        }
        for text in ["", "0680", "u+rw", "+660", "01777", "0o660"] {
            assert!(Mode::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn levels_have_php_fpms_names() {
        for (text, level) in [
            ("debug", Level::Debug),
            ("Notice", Level::Notice),
            ("warn", Level::Warning),
            ("ALERT", Level::Alert),
        ] {
            assert_eq!(Level::read(text), Ok(level), "{text}");
        }
        assert!(Level::read("info").is_err());
        assert!(Level::Debug < Level::Notice && Level::Error < Level::Alert);
    }

    #[test]
    fn clients_are_whole_addresses() {
        let clients = Clients::read("127.0.0.1, ::1,::ffff:10.0.0.1,xxx,10.0.0.0/8")
            .unwrap()
            .0
            .unwrap();
        let allowed: Vec<String> = clients.allowed.iter().map(ToString::to_string).collect();
        assert_eq!(allowed, ["127.0.0.1", "::1", "10.0.0.1"]);
        assert_eq!(clients.wrong, ["xxx", "10.0.0.0/8"]);
        assert_eq!(
            Clients::read("").unwrap().0.unwrap().allowed,
            [] as [IpAddr; 0],
            "an unset variable lets nobody in"
        );
    }

    #[test]
    fn extensions_are_split_at_blanks() {
        assert_eq!(
            Extensions::read(" .php\t.phar  .php5 ").unwrap().0,
            [".php", ".phar", ".php5"]
        );
        assert_eq!(Extensions::read("").unwrap().0, [""; 0]);
    }
}
