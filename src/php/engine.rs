//! PHP's process-wide part.

use std::ffi::{CStr, CString, NulError, c_char};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use once_cell::sync::OnceCell;
use php_src_bindings as ffi;

use super::exchange;
use super::interpreter::InterpreterError;
use crate::config::PhpIni;

static ENGINE: OnceCell<Engine> = OnceCell::new();

/// In place of the number of interpreters: there will be none any more.
const STOPPED: usize = usize::MAX;

/// How PHP is started.
#[derive(Debug, Default)]
pub struct EngineConfig {
    /// `-c`: a php.ini, or the directory of one; `None` for PHP's own places.
    pub ini_path: Option<PathBuf>,
    /// `-n`: read no php.ini.
    pub ignore_ini: bool,
    /// `-d`: lines of INI text, read after every file.
    pub ini_entries: Vec<String>,
    /// This program, for `PHP_BINARY`.
    pub executable: PathBuf,
    /// The pool's own settings, in the order in which they are applied.
    pub pool_ini: Vec<PhpIni>,
}

/// Why PHP does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A text that PHP takes as a C string holds a NUL byte.
    #[error("{what} holds a NUL byte; remove it")]
    Nul {
        /// Which text.
        what: &'static str,
    },
    /// PHP said why, on standard error.
    #[error("PHP could not be started; the messages before this one say why")]
    Start,
}

/// What PHP's INI files say that the rest of the program must know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `cgi.fix_pathinfo`
    pub fix_pathinfo: bool,
    /// `cgi.discard_path`
    pub discard_path: bool,
    /// `doc_root`
    pub doc_root: Option<Vec<u8>>,
    /// opcache is on, but this PHP is thread-safe and older than 8.4: opcache's restarts (`opcache_reset()`, full memory)
    /// and its JIT are kept off, as threads do not survive them.
    pub opcache_restricted: bool,
    /// The php.ini that was read.
    pub ini_file: Option<PathBuf>,
    /// The other INI files that were read, as PHP lists them.
    pub ini_scanned: Option<String>,
}

/// PHP, started. There is one for each process, and for the processes forked from it.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    /// How many interpreters exist, or [`STOPPED`].
    interpreters: AtomicUsize,
    /// Who started it, in this process and in those forked from it.
    thread: ThreadId,
}

impl Engine {
    /// Starts PHP, which reads its INI files and loads its extensions; later calls give the engine that is there.
    ///
    /// Call it while the process has one thread: extensions may start threads or change signals of their own.
    ///
    /// # Errors
    ///
    /// [`EngineError::Start`] if PHP refuses, which it explains on standard error.
    pub fn start(config: &EngineConfig) -> Result<&'static Self, EngineError> {
        ENGINE.get_or_try_init(|| start(config))
    }

    /// What the INI files said.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Writes to standard output what `-i` shows: phpinfo() as text. False: PHP could not, or this is not the thread that
    /// started the engine.
    pub fn print_info(&self) -> bool {
        // SAFETY: the engine was started, by this thread, which is what the function asks for.
        self.is_home() && unsafe { ffi::howdah_print_info() }
    }

    /// Writes to standard output what `-m` shows: the extensions. False as for [`print_info`](Self::print_info).
    pub fn print_modules(&self) -> bool {
        // SAFETY: as for `print_info`.
        self.is_home() && unsafe { ffi::howdah_print_modules() }
    }

    fn is_home(&self) -> bool {
        thread::current().id() == self.thread && !self.is_stopped()
    }

    /// Closes descriptors in every process that a script forks (`pcntl_fork`), so that no child of a script can hold or
    /// touch a connection. The first 64 count.
    pub fn close_in_children(&self, descriptors: &[i32]) {
        // SAFETY: the array is valid for the call, which copies it.
        unsafe { ffi::howdah_close_in_children(descriptors.as_ptr(), descriptors.len()) };
    }

    /// Shuts PHP down. It cannot be started again in this process.
    ///
    /// Does nothing while interpreters exist: PHP would pull the ground from under them. An interpreter that broke counts
    /// for ever, and the process is about to end anyway. Does nothing either on another thread than the one that started
    /// the engine.
    pub fn stop(&self) {
        if thread::current().id() != self.thread {
            return;
        }
        let none_left =
            self.interpreters
                .compare_exchange(0, STOPPED, Ordering::AcqRel, Ordering::Acquire);
        if none_left.is_ok() {
            // SAFETY: the engine was started by this thread, no interpreter is left, and the exchange keeps new ones and a
            // second call away.
            unsafe { ffi::howdah_engine_stop() };
        }
    }

    /// Counts one more interpreter.
    pub(super) fn admit(&self) -> Result<(), InterpreterError> {
        let most = if ffi::ZTS { STOPPED - 1 } else { 1 };
        self.interpreters
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (count < most).then_some(count + 1)
            })
            .map(|_| ())
            .map_err(|count| match count {
                STOPPED => InterpreterError::Stopped,
                _ => InterpreterError::OnlyOne,
            })
    }

    /// Counts one less.
    pub(super) fn dismiss(&self) {
        self.interpreters.fetch_sub(1, Ordering::AcqRel);
    }

    fn is_stopped(&self) -> bool {
        self.interpreters.load(Ordering::Acquire) == STOPPED
    }
}

fn start(config: &EngineConfig) -> Result<Engine, EngineError> {
    let text = |what: &'static str, bytes: Vec<u8>| {
        CString::new(bytes).map_err(|_: NulError| EngineError::Nul { what })
    };
    let path = |what, path: &PathBuf| text(what, path.as_os_str().as_encoded_bytes().to_vec());
    let ini_path = config
        .ini_path
        .as_ref()
        .map(|ini| path("the path of php.ini (-c)", ini))
        .transpose()?;
    let executable = path("the path of this program", &config.executable)?;
    let mut entries = String::new();
    for entry in &config.ini_entries {
        entries.push_str(entry);
        entries.push('\n');
    }
    let entries = text("an INI entry (-d)", entries.into_bytes())?;
    let pool_ini: Vec<(CString, CString, bool)> = config
        .pool_ini
        .iter()
        .map(|ini| {
            let what = "a php_value or php_admin_value of the pool";
            Ok((
                text(what, ini.name.clone().into_bytes())?,
                text(what, ini.value.clone().into_bytes())?,
                ini.admin,
            ))
        })
        .collect::<Result<_, EngineError>>()?;
    let pool_ini: Vec<ffi::howdah_ini> = pool_ini
        .iter()
        .map(|(name, value, admin)| ffi::howdah_ini {
            name: name.as_ptr(),
            value: value.as_ptr(),
            admin: *admin,
        })
        .collect();
    let config = ffi::howdah_engine_config {
        // PHP keeps these three for the life of the process, so they are given away.
        ini_path: ini_path.map_or(std::ptr::null(), |path| path.into_raw().cast_const()),
        ignore_ini: config.ignore_ini,
        ini_entries: entries.into_raw().cast_const(),
        executable: executable.into_raw().cast_const(),
        pool_ini: pool_ini.as_ptr(),
        pool_ini_count: pool_ini.len(),
        callbacks: exchange::CALLBACKS,
    };
    // SAFETY: `OnceCell` lets one thread in, once it has succeeded; the strings live as long as the header asks. After a
    // failure nothing of PHP is used: the caller reports it and the process ends.
    if !unsafe { ffi::howdah_engine_start(&raw const config) } {
        return Err(EngineError::Start);
    }
    // SAFETY: the engine runs.
    let settings = unsafe { ffi::howdah_engine_settings() };
    Ok(Engine {
        settings: Settings {
            fix_pathinfo: settings.fix_pathinfo,
            discard_path: settings.discard_path,
            doc_root: bytes(settings.doc_root),
            opcache_restricted: settings.opcache_restricted,
            ini_file: bytes(settings.ini_file)
                .map(|path| String::from_utf8_lossy(&path).into_owned().into()),
            ini_scanned: bytes(settings.ini_scanned)
                .map(|list| String::from_utf8_lossy(&list).into_owned()),
        },
        interpreters: AtomicUsize::new(0),
        thread: thread::current().id(),
    })
}

/// Where this PHP was made to live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// `--prefix`
    pub prefix: PathBuf,
    /// `--sysconfdir`: php-fpm.conf is here.
    pub sysconfdir: PathBuf,
    /// `--localstatedir`: logs and pid files with relative paths are below this.
    pub localstatedir: PathBuf,
}

/// Where this PHP was made to live. Needs no engine.
pub fn paths() -> Paths {
    // SAFETY: it returns constants.
    let paths = unsafe { ffi::howdah_php_paths() };
    let path = |text| {
        PathBuf::from(std::ffi::OsString::from_vec(
            bytes(text).unwrap_or_default(),
        ))
    };
    Paths {
        prefix: path(paths.prefix),
        sysconfdir: path(paths.sysconfdir),
        localstatedir: path(paths.localstatedir),
    }
}

fn bytes(text: *const c_char) -> Option<Vec<u8>> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and the header promises a string that ends in NUL and outlives this call.
    Some(unsafe { CStr::from_ptr(text) }.to_bytes().to_vec())
}
