//! The command line: php-fpm's flags.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgAction, Parser};

use crate::php::{self, Engine, EngineConfig, Settings};
use crate::supervisor::{self, Php, Start, exit};

/// The configuration's name in PHP's directory for such files, without `-y` and `-p`.
const DEFAULT_CONFIG: &str = "php-fpm.conf";

/// Where it is below the directory of `-p`.
const PREFIXED_CONFIG: &str = "etc/php-fpm.conf";

/// Serves PHP over FastCGI, in the place of php-fpm
///
/// It reads php-fpm's configuration, takes its flags and signals, and runs PHP in its own processes.
#[derive(Debug, Clone, Parser, PartialEq, Eq)]
#[command(
    name = "howdah",
    disable_help_flag = true,
    disable_version_flag = true,
    args_override_self = true,
    max_term_width = 100,
    after_help = AFTER_HELP
)]
#[allow(clippy::struct_excessive_bools)]
struct Flags {
    /// Read the configuration from FILE
    #[arg(short = 'y', long = "fpm-config", value_name = "FILE", help_heading = SERVER)]
    config: Option<PathBuf>,

    /// Test the configuration and exit; twice (-tt), show it as well
    #[arg(short = 't', long = "test", action = ArgAction::Count, help_heading = SERVER)]
    test: u8,

    /// Stay in the foreground, whatever the configuration says
    #[arg(short = 'F', long = "nodaemonize", overrides_with = "daemonize", help_heading = SERVER)]
    foreground: bool,

    /// Go into the background, whatever the configuration says
    #[arg(short = 'D', long = "daemonize", overrides_with = "foreground", help_heading = SERVER)]
    daemonize: bool,

    /// With -F: log to standard error even if it is no terminal
    #[arg(short = 'O', long = "force-stderr", help_heading = SERVER)]
    force_stderr: bool,

    /// Directory that relative paths start at
    #[arg(short = 'p', long = "prefix", value_name = "DIR", help_heading = SERVER)]
    prefix: Option<PathBuf>,

    /// Write the process number to FILE, unless the configuration names another
    #[arg(short = 'g', long = "pid", value_name = "FILE", help_heading = SERVER)]
    pid: Option<PathBuf>,

    /// Let root run PHP
    #[arg(short = 'R', long = "allow-to-run-as-root", help_heading = SERVER)]
    allow_root: bool,

    /// Look for php.ini in this directory, or read this file instead
    #[arg(short = 'c', long = "php-ini", value_name = "PATH", help_heading = PHP)]
    ini_path: Option<PathBuf>,

    /// Read no php.ini
    #[arg(short = 'n', long = "no-php-ini", help_heading = PHP)]
    ignore_ini: bool,

    /// Set PHP's NAME to VALUE, or to 1; may be repeated
    #[arg(
        short = 'd',
        long = "define",
        value_name = "NAME[=VALUE]",
        allow_hyphen_values = true,
        help_heading = PHP
    )]
    defines: Vec<String>,

    /// Accepted, without effect: php-fpm's information for debuggers
    #[arg(short = 'e', long = "profile-info", help_heading = PHP)]
    extended_info: bool,

    /// Show what phpinfo() shows
    #[arg(short = 'i', long = "info", help_heading = HELP)]
    info: bool,

    /// Show the extensions that PHP has loaded
    #[arg(short = 'm', long = "modules", help_heading = HELP)]
    modules: bool,

    /// Show the versions of howdah and of PHP, and the INI files that PHP reads
    #[arg(short = 'v', long = "version", help_heading = HELP)]
    version: bool,

    /// Show this help
    #[arg(
        short = 'h',
        short_alias = '?',
        long = "help",
        alias = "usage",
        action = ArgAction::HelpShort,
        help_heading = HELP
    )]
    help: Option<bool>,

    /// What the supervisor starts a pool with
    #[arg(long = "pool-leader", value_name = "DESCRIPTOR", hide = true)]
    pool_leader: Option<i32>,
}

const SERVER: &str = "Server";
const PHP: &str = "PHP";
const HELP: &str = "Help";

const AFTER_HELP: &str = "\
Signals:
  TERM, INT  stop at once
  QUIT       finish the requests that run, then stop
  USR1       reopen the error log

Exit codes:
  0   all went well
  64  the command line is wrong
  70  the program or the system failed
  78  the configuration is wrong, or cannot be put into effect

Without -y, the configuration is php-fpm.conf in the directory for configurations that PHP was built
with (/etc on Debian), or with -p DIR, DIR/etc/php-fpm.conf.";

/// Does what the command line says; the first argument is the program's name. Gives the exit code.
///
/// Call it while the process has one thread.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let flags = match Flags::try_parse_from(arguments) {
        Ok(flags) => flags,
        Err(error) => {
            // If there is nobody to read it, there is nobody to tell.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp => exit::OK,
                _ => exit::USAGE,
            };
        }
    };
    if let Some(descriptor) = flags.pool_leader {
        return supervisor::lead(descriptor);
    }
    if flags.info {
        return with_php(&flags.php(), |engine| engine.print_info());
    }
    if flags.modules {
        return with_php(&flags.php(), |engine| engine.print_modules());
    }
    if flags.version {
        return version(&flags.php());
    }
    let start = flags.start();
    match flags.test {
        0 => supervisor::start(&start),
        1 => supervisor::test(&start, false),
        _ => supervisor::test(&start, true),
    }
}

impl Flags {
    fn start(&self) -> Start {
        let config = match (&self.config, &self.prefix) {
            (Some(file), _) => file.clone(),
            (None, Some(prefix)) => prefix.join(PREFIXED_CONFIG),
            (None, None) => php::paths().sysconfdir.join(DEFAULT_CONFIG),
        };
        Start {
            config,
            prefix: self.prefix.clone(),
            pid: self.pid.clone(),
            daemonize: (self.daemonize || self.foreground).then_some(self.daemonize),
            allow_root: self.allow_root,
            force_stderr: self.force_stderr,
            php: self.php(),
        }
    }

    fn php(&self) -> Php {
        Php {
            ini_path: self.ini_path.clone(),
            ignore_ini: self.ignore_ini,
            ini_entries: self
                .defines
                .iter()
                .map(|define| ini_entry(define))
                .collect(),
        }
    }
}

/// A line of INI text for `-d`. A value that INI text would understand in its own way is quoted, as PHP's programs do it.
fn ini_entry(define: &str) -> String {
    let Some((name, value)) = define.split_once('=') else {
        return format!("{define}=1");
    };
    match value.bytes().next() {
        Some(first) if !first.is_ascii_alphanumeric() && !matches!(first, b'"' | b'\'') => {
            format!("{name}=\"{value}\"")
        }
        _ => define.to_owned(),
    }
}

/// `-v`. PHP itself knows best which INI files it reads, so it is started.
fn version(php: &Php) -> u8 {
    let threads = if php::is_zts() {
        "ZTS: thread-safe, many interpreters in one process"
    } else {
        "NTS: one interpreter in each process"
    };
    let head = format!(
        "howdah {}\nPHP {} ({threads})\n",
        env!("CARGO_PKG_VERSION"),
        php::version()
    );
    say(&head);
    with_php(php, |engine| {
        say(&ini_files(engine.settings(), php.ignore_ini));
        true
    })
}

/// Starts PHP for a question that it answers itself.
fn with_php(php: &Php, ask: impl FnOnce(&Engine) -> bool) -> u8 {
    let config = EngineConfig {
        ini_path: php.ini_path.clone(),
        ignore_ini: php.ignore_ini,
        ini_entries: php.ini_entries.clone(),
        executable: std::env::current_exe().unwrap_or_default(),
        pool_ini: Vec::new(),
    };
    match Engine::start(&config) {
        Ok(engine) => {
            let answered = ask(engine);
            engine.stop();
            if answered { exit::OK } else { exit::SOFTWARE }
        }
        Err(error) => {
            eprintln!("howdah: {error}");
            exit::SOFTWARE
        }
    }
}

/// Where PHP's settings come from, a line for each file.
fn ini_files(settings: &Settings, ignored: bool) -> String {
    let mut text = match (&settings.ini_file, ignored) {
        (Some(file), _) => format!("php.ini: {}\n", file.display()),
        (None, true) => "php.ini: none (-n)\n".to_owned(),
        (None, false) => "php.ini: none found\n".to_owned(),
    };
    // PHP's list has commas and line breaks.
    let scanned = settings.ini_scanned.as_deref().unwrap_or_default();
    let files = scanned.split(',').map(str::trim);
    for file in files.filter(|file| !file.is_empty()) {
        let _ = writeln!(text, "         {file}");
    }
    text
}

/// If there is nobody to read it, there is nobody to tell.
fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    fn flags(line: &str) -> Flags {
        let arguments = std::iter::once("howdah").chain(line.split_whitespace());
        Flags::try_parse_from(arguments).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn code(line: &str) -> u8 {
        let arguments = std::iter::once("howdah").chain(line.split_whitespace());
        run(arguments.map(OsString::from))
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        Flags::command().debug_assert();
    }

    #[test]
    fn flags_are_php_fpms_short_and_long() {
        for (short, long) in [
            ("-y a.conf", "--fpm-config a.conf"),
            ("-ya.conf", "--fpm-config=a.conf"),
            ("-t", "--test"),
            ("-tt", "--test --test"),
            ("-F", "--nodaemonize"),
            ("-D", "--daemonize"),
            ("-O", "--force-stderr"),
            ("-p /srv", "--prefix /srv"),
            ("-g x.pid", "--pid x.pid"),
            ("-R", "--allow-to-run-as-root"),
            ("-c /etc", "--php-ini /etc"),
            ("-n", "--no-php-ini"),
            ("-da=b", "--define a=b"),
            ("-e", "--profile-info"),
            ("-i", "--info"),
            ("-m", "--modules"),
            ("-v", "--version"),
        ] {
            assert_eq!(flags(short), flags(long), "{short}");
        }
    }

    #[test]
    fn a_line_as_php_fpms_tests_write_it() {
        let start = flags("-n -y t.ini -F -O -dextension_dir= -d foo -d a=b -R").start();
        assert_eq!(start.config, Path::new("t.ini"));
        assert_eq!(start.daemonize, Some(false));
        assert!(start.force_stderr && start.allow_root && start.php.ignore_ini);
        assert_eq!(start.php.ini_entries, ["extension_dir=", "foo=1", "a=b"]);
    }

    #[test]
    fn the_last_of_contrary_flags_counts() {
        assert_eq!(flags("-F -D").start().daemonize, Some(true));
        assert_eq!(flags("-DF").start().daemonize, Some(false));
        assert_eq!(flags("").start().daemonize, None);
        assert_eq!(flags("-y a -y b").start().config, Path::new("b"));
    }

    #[test]
    fn the_configuration_has_a_place() {
        assert_eq!(
            flags("").start().config,
            php::paths().sysconfdir.join("php-fpm.conf")
        );
        assert_eq!(
            flags("-p /srv").start().config,
            Path::new("/srv/etc/php-fpm.conf")
        );
    }

    #[test]
    fn defined_values_are_quoted_where_php_quotes_them() {
        for (define, entry) in [
            ("a", "a=1"),
            ("a=", "a="),
            ("a=b c", "a=b c"),
            ("a=1", "a=1"),
            ("a=/tmp;x", "a=\"/tmp;x\""),
            ("a=-1", "a=\"-1\""),
            ("a=\"q\"", "a=\"q\""),
            ("a='q'", "a='q'"),
            ("a=b=c", "a=b=c"),
        ] {
            assert_eq!(ini_entry(define), entry);
        }
    }

    #[test]
    fn mistakes_and_questions_have_their_codes() {
        for line in ["--nonsense", "-Z", "-y", "stray"] {
            assert_eq!(code(line), exit::USAGE, "{line}");
        }
        for line in ["-h", "--help", "-?", "--usage"] {
            assert_eq!(code(line), exit::OK, "{line}");
        }
    }
}
