//! Reads php-fpm's configuration.
//!
//! [`load`] reads a file and all that it includes and gives either a [`Config`] whose types hold only what makes sense,
//! or every mistake at once, each with its file, its line and its remedy.
//!
//! ```no_run
//! # use howdah::config;
//! # use std::path::Path;
//! match config::load(Path::new("/etc/howdah.conf"), &config::Options::default()) {
//!     Ok(config) => println!("{} pools", config.pools.len()),
//!     Err(errors) => eprintln!("{errors}"),
//! }
//! ```
//!
//! # Layout
//!
//! A file goes through these, in this order:
//!
//! - `ini`: one physical line, in PHP's INI dialect
//! - `file`: lines, sections, includes
//! - `table`: the directives, one row for each
//! - `value`: the types of values
//! - `settings`: what the file says, one field for each directive
//! - `pool`, `listen`, `paths`: what it means
//!
//! Beside them, `dump` (for `-tt`) and `reference` (for the documentation) read the table, and `error` says what can be wrong.

#![forbid(unsafe_code)]

mod dump;
mod error;
mod file;
mod ini;
mod listen;
mod paths;
mod pool;
mod reference;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod value;

use std::path::{Path, PathBuf};

pub use error::{Error, Errors, Hint, Place, Problem, Syntax, Warning};
pub use listen::{Address, Listen};
pub use pool::{Global, LogTarget, PhpIni, Pm, Pool, Timeouts};
pub use reference::reference;
pub use value::{Level, Refusal};

use settings::{GlobalSettings, PoolSettings};

/// What the command line, the build and the system say about how to read a configuration.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// `-p`: what relative paths start at.
    pub prefix: Option<&'a Path>,
    /// What they start at without `-p` (PHP's `PREFIX`).
    pub default_prefix: &'a Path,
    /// What a relative `pid` or `error_log` starts at without `-p` (PHP's `LOCALSTATEDIR`).
    pub local_state_dir: &'a Path,
    /// `-g`: the pid file if the configuration names none.
    pub pid: Option<&'a Path>,
    /// `-D` or `-F`: whatever `daemonize` says.
    pub daemonize: Option<bool>,
    /// The effective user is root.
    pub as_root: bool,
    /// `-R`: root may run PHP.
    pub allow_root: bool,
    /// PHP's `PHP_VERSION_ID`; the value of `E_ALL` depends on it.
    pub php_version_id: u32,
    /// Variables for `${NAME}` and `env[X] = $NAME`.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

impl Default for Options<'_> {
    /// No flags, not root, Debian's directories, PHP 8.4, this process's environment.
    fn default() -> Self {
        Self {
            prefix: None,
            default_prefix: Path::new("/usr"),
            local_state_dir: Path::new("/var"),
            pid: None,
            daemonize: None,
            as_root: false,
            allow_root: false,
            php_version_id: 80_400,
            env: &|name| std::env::var(name).ok(),
        }
    }
}

/// A configuration that makes sense.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    /// The settings of `[global]`.
    pub global: Global,
    /// The pools, in the order their sections first appear; at least one.
    pub pools: Vec<Pool>,
    /// What was odd, to be logged.
    pub warnings: Vec<Warning>,
    /// What the files said, for [`dump`](Self::dump).
    global_settings: GlobalSettings,
    pool_settings: Vec<PoolSettings>,
}

/// Reads a configuration file and all that it includes.
///
/// Besides these files it looks at the directories that the configuration names, and resolves host names in `listen`.
/// It changes nothing: whether accounts exist, sockets can be bound and logs be opened is found out by who uses them.
///
/// # Errors
///
/// Everything that is wrong, see [`Problem`].
pub fn load(file: &Path, options: &Options<'_>) -> Result<Config, Errors> {
    let mut settings = file::read(file, options);
    if let Some(prefix) = options.prefix.filter(|prefix| !prefix.is_dir()) {
        let problem = Problem::NotADirectory {
            name: "global prefix",
            path: prefix.display().to_string(),
        };
        settings.errors.push(Error {
            place: None,
            pool: None,
            problem,
        });
    }
    let global = pool::global(&mut settings, options);
    let pools = pool::pools(file, &mut settings, options);
    if settings.errors.is_empty() {
        Ok(Config {
            file: file.to_owned(),
            global,
            pools,
            warnings: settings.warnings,
            global_settings: settings.global,
            pool_settings: settings.pools,
        })
    } else {
        Err(Errors {
            errors: settings.errors,
            warnings: settings.warnings,
        })
    }
}
