//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ini::SyntaxError;
use super::value::{Level, Refusal};

/// A line of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named: on the command line, or by an `include`.
    pub file: Arc<Path>,
    /// The line, counted from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}:{}]", self.file.display(), self.line)
    }
}

/// One mistake: what it is, and the line that makes it, where there is one.
///
/// It reads like php-fpm's own message: `[/etc/howdah.conf:12] unknown entry 'lisen'; did you mean 'listen'?`
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The line to change.
    pub place: Option<Place>,
    /// The pool that is wrong, when the mistake is the pool's as a whole.
    pub pool: Option<String>,
    /// What is wrong there.
    pub problem: Problem,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place} ")?;
        }
        if let Some(pool) = &self.pool {
            write!(f, "[pool {pool}] ")?;
        }
        write!(f, "{}", self.problem)
    }
}

/// What can be wrong. Each message names the thing, its value and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A file cannot be read.
    #[error("failed to open configuration file '{}': {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// Files include files include files.
    #[error(
        "include = {path}: failed to include more than 5 files recursively; include them from the main file"
    )]
    IncludedTooDeep {
        /// The file that would be the sixth.
        path: String,
    },
    /// An `include` whose pattern is none, or leads into a directory that cannot be read.
    #[error("include = {pattern}: {reason}; correct the pattern or the directory's permissions")]
    BadInclude {
        /// The pattern, as a full path.
        pattern: String,
        /// Why it cannot be followed.
        reason: String,
    },
    /// The line is not INI.
    #[error("{0}")]
    Syntax(#[from] Syntax),
    /// `name` without `= value`.
    #[error("'{name}' has no value; write '{name} = VALUE', or remove the line")]
    NoValue {
        /// The directive.
        name: String,
    },
    /// A section without a name.
    #[error("a section without a name; write the pool's name between the brackets: [www]")]
    NamelessSection,
    /// No directive has this name.
    #[error("unknown entry '{name}'{hint}")]
    Unknown {
        /// The name as it was written.
        name: String,
        /// What the writer may have meant.
        hint: Hint,
    },
    /// No directive of this name takes a key.
    #[error("unknown directive '{name}'{hint}")]
    UnknownElement {
        /// The name as it was written, without its key.
        name: String,
        /// What the writer may have meant.
        hint: Hint,
    },
    /// `env[] = x`. The wording is php-fpm's to the letter; its tests look for it.
    #[error("You must provide a key for field '{name}'")]
    MissingKey {
        /// The directive.
        name: String,
    },
    /// A key that cannot be one.
    #[error("{name}[{key}]: '{key}' cannot be a variable's name; use a name without '='")]
    BadKey {
        /// The directive.
        name: String,
        /// The key.
        key: String,
    },
    /// `env[X] = x` in `[global]`.
    #[error(
        "{name}[{key}]: Array are not allowed in the global section; move the line into a pool's section"
    )]
    ElementInGlobal {
        /// The directive.
        name: String,
        /// The key.
        key: String,
    },
    /// A directive of php-fpm which howdah does not have yet.
    #[error("{name} = {value}: this version of howdah does not read {name} yet; remove the line")]
    NotYet {
        /// The directive, with its key if it has one.
        name: String,
        /// The value it was given.
        value: String,
    },
    /// A value that is none.
    #[error("unable to parse value for entry '{name}': '{value}' {refusal}")]
    BadValue {
        /// The directive, with its key if it has one.
        name: String,
        /// The value it was given.
        value: String,
        /// What is wrong with it.
        refusal: Refusal,
    },
    /// `$pool` outside of a pool.
    #[error("{name} = {value}: Can't use '$pool' when the pool is not defined; write the path out")]
    NoPoolName {
        /// The directive.
        name: String,
        /// The value it was given.
        value: String,
    },
    /// A configuration without a pool serves nothing.
    #[error("No pool defined. at least one pool section must be specified in config file '{}'; add one, such as [www]", file.display())]
    NoPools {
        /// The main file.
        file: PathBuf,
    },
    /// The pool has no address.
    #[error("no listen address have been defined!; add a line such as 'listen = 127.0.0.1:9000'")]
    MissingListen,
    /// The pool does not say how its processes are managed.
    #[error("the process manager is missing; add the line 'pm = static'")]
    MissingPm,
    /// The pool does not say how many requests it may run at once.
    #[error("pm.max_children must be a positive value; add a line such as 'pm.max_children = 5'")]
    MissingMaxChildren,
    /// Started by root, and nobody to run PHP as.
    #[error(
        "user has not been defined; add a line such as 'user = www-data' (or start with -R to run PHP as root)"
    )]
    MissingUser,
    /// Started by root, and told to run PHP as root.
    #[error(
        "{name} = {value}: please specify user and group other than root (or start with -R to run PHP as root)"
    )]
    RootUser {
        /// `user` or `group`.
        name: &'static str,
        /// The value it was given.
        value: String,
    },
    /// `prefix` or `chdir` is no directory.
    #[error(
        "the {name} '{path}' does not exist or is not a directory; create it or correct the path"
    )]
    NotADirectory {
        /// What the path is for.
        name: &'static str,
        /// The full path.
        path: String,
    },
    /// A Unix socket's address has 108 bytes, one of them for the final NUL.
    #[error(
        "listen = {path}: the path is {length} bytes long, a Unix socket's path has at most 107; choose a shorter one"
    )]
    SocketPathTooLong {
        /// The full path.
        path: String,
        /// Its length in bytes.
        length: usize,
    },
    /// A port that is none.
    #[error("listen = {address}: invalid port value '{port}'; use a number from 1 to 65535")]
    BadPort {
        /// The address as it was written.
        address: String,
        /// The part after the last colon.
        port: String,
    },
    /// A host name that leads nowhere.
    #[error(
        "listen = {address}: the host '{host}' cannot be resolved: {reason}; use an IP address, or the port alone for all of them"
    )]
    BadHost {
        /// The address as it was written.
        address: String,
        /// The part before the last colon.
        host: String,
        /// The resolver's reason.
        reason: String,
    },
    /// Two pools cannot share an address.
    #[error(
        "unable to set listen address as it's already used in another pool '{other}' ({address}); give each pool its own"
    )]
    DuplicateListen {
        /// The pool that has the address already.
        other: String,
        /// The address.
        address: String,
    },
}

/// Why a line is not INI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct Syntax(#[from] pub(super) SyntaxError);

/// What the writer of an unknown name may have meant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// Nothing comes to mind.
    None,
    /// The name is like this one.
    Like(&'static str),
    /// The name is right, the section is not.
    InGlobal,
    /// The name is right, the section is not.
    InPool,
    /// The name wants a key.
    WantsKey(&'static str),
    /// The name takes no key.
    TakesNoKey(&'static str),
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("; correct or remove the line"),
            Self::Like(name) => write!(f, "; did you mean '{name}'?"),
            Self::InGlobal => f.write_str(" in a pool's section; move the line into [global]"),
            Self::InPool => {
                f.write_str(" in the global section; move the line into a pool's section")
            }
            Self::WantsKey(name) => write!(f, "; write '{name}[NAME] = VALUE'"),
            Self::TakesNoKey(name) => write!(f, "; write '{name} = VALUE'"),
        }
    }
}

/// All that is wrong with a configuration, and what was odd about it besides. There is at least one error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    /// In the order of the lines as they were read, then what is wrong with the pools as a whole.
    pub errors: Vec<Error>,
    /// May explain the errors: a pattern that no file matches leaves a pool undefined.
    pub warnings: Vec<Warning>,
}

impl std::error::Error for Errors {}

impl fmt::Display for Errors {
    /// One error a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

/// Something odd that does not keep a configuration from being used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// An `include` that includes nothing.
    NothingIncluded {
        /// The pattern, as a full path.
        pattern: String,
        /// The line that includes it.
        place: Place,
    },
    /// An entry of `listen.allowed_clients` that is no address. It lets nobody in, as in php-fpm.
    NotAnAddress {
        /// The pool.
        pool: String,
        /// The entry.
        entry: String,
        /// The line that holds it.
        place: Option<Place>,
    },
    /// `listen.allowed_clients` is set, and lets nobody in.
    NobodyAllowed {
        /// The pool.
        pool: String,
        /// The line that says so.
        place: Option<Place>,
    },
}

impl Warning {
    /// The level php-fpm logs it at.
    pub fn level(&self) -> Level {
        match self {
            Self::NothingIncluded { .. } => Level::Warning,
            Self::NotAnAddress { .. } | Self::NobodyAllowed { .. } => Level::Error,
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |f: &mut fmt::Formatter<'_>, place: &Option<Place>, pool: &str| {
            if let Some(place) = place {
                write!(f, "{place} ")?;
            }
            write!(f, "[pool {pool}] ")
        };
        match self {
            Self::NothingIncluded { pattern, place } => {
                let (file, line) = (place.file.display(), place.line);
                write!(
                    f,
                    "Nothing matches the include pattern '{pattern}' from {file} at line {line}."
                )
            }
            Self::NotAnAddress { pool, entry, place } => {
                at(f, place, pool)?;
                write!(
                    f,
                    "Wrong IP address '{entry}' in listen.allowed_clients; write addresses such as {}",
                    IpAddr::from([127, 0, 0, 1])
                )
            }
            Self::NobodyAllowed { pool, place } => {
                at(f, place, pool)?;
                f.write_str("There are no allowed addresses; every connection will be refused until listen.allowed_clients holds one or is removed")
            }
        }
    }
}
