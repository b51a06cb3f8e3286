//! The table of directives: one row for each, and all there is to know about it.
//!
//! A row yields the parser of the directive, its line in `-tt` and its entry in `docs/directives.md`. To add a
//! directive, add a field to `settings.rs` and a row here. To make one of php-fpm's work that is not read yet, give its
//! row the field: replace `not_yet(…)`.
//!
//! The rows stand in the order of php-fpm's `-tt`, ours beside what they belong to.

use super::error::Place;
use super::settings::{GlobalSettings, PoolSettings};
use super::value::{Refusal, Value};

/// A directive.
pub(super) struct Directive {
    pub(super) name: &'static str,
    /// As it would be written in a file; `None` where there is none.
    pub(super) default: Option<&'static str>,
    pub(super) reads: Reads,
    /// php-fpm does not have it.
    pub(super) ours: bool,
    /// Plain sentences for the reference page.
    pub(super) doc: &'static str,
}

/// Where a directive may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Global,
    Pool,
    Anywhere,
}

/// What happens to a directive's value.
pub(super) enum Reads {
    /// A file is read in its place.
    Include,
    Global(Field<GlobalSettings>),
    Pool(Field<PoolSettings>),
    /// `name[key] = value`
    Map(Map),
    /// php-fpm reads it, this version does not: it is an error to use it.
    NotYet {
        scope: Scope,
        kind: &'static str,
    },
}

/// A field of the settings.
pub(super) struct Field<S> {
    pub(super) read: fn(&mut S, &str, Option<&Place>) -> Result<(), Refusal>,
    pub(super) show: fn(&S) -> String,
    pub(super) kind: &'static str,
}

/// A list of named values in the settings of a pool.
pub(super) struct Map {
    pub(super) read: fn(&mut PoolSettings, key: &str, value: &str) -> Result<(), Refusal>,
    /// The list, in the order of the file; `None` when another directive shows it.
    pub(super) show: Option<fn(&PoolSettings) -> &Named>,
    pub(super) kind: &'static str,
}

/// Values and their names.
pub(super) type Named = [(String, String)];

impl Directive {
    pub(super) fn scope(&self) -> Scope {
        match self.reads {
            Reads::Include => Scope::Anywhere,
            Reads::Global(_) => Scope::Global,
            Reads::Pool(_) | Reads::Map(_) => Scope::Pool,
            Reads::NotYet { scope, .. } => scope,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match &self.reads {
            Reads::Include => "pattern",
            Reads::Global(field) => field.kind,
            Reads::Pool(field) => field.kind,
            Reads::Map(map) => map.kind,
            Reads::NotYet { kind, .. } => kind,
        }
    }

    /// Whether a file writes `name[key] = value`. The brackets are part of such a row's name.
    pub(super) fn takes_key(&self) -> bool {
        self.name.ends_with("[]")
    }

    /// The name as a file writes it, without brackets.
    pub(super) fn bare_name(&self) -> &'static str {
        self.name.strip_suffix("[]").unwrap_or(self.name)
    }

    pub(super) fn is_in(&self, scope: Scope) -> bool {
        self.scope() == scope || self.scope() == Scope::Anywhere
    }
}

/// The row of `name = value` (or of `name[key] = value`) in a section.
pub(super) fn find(name: &str, takes_key: bool, scope: Scope) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|row| {
        row.takes_key() == takes_key
            && row.is_in(scope)
            && row.bare_name().eq_ignore_ascii_case(name)
    })
}

/// A field of `GlobalSettings`.
macro_rules! global {
    ($field:ident) => {
        Reads::Global(Field {
            read: |settings, text, place| settings.$field.read(text, place),
            show: |settings| settings.$field.show(),
            kind: kind_of(|settings: &GlobalSettings| &settings.$field.value),
        })
    };
}

/// A field of `PoolSettings`.
macro_rules! pool {
    ($field:ident) => {
        Reads::Pool(Field {
            read: |settings, text, place| settings.$field.read(text, place),
            show: |settings| settings.$field.show(),
            kind: kind_of(|settings: &PoolSettings| &settings.$field.value),
        })
    };
}

/// Infers a field's type from the way to it.
const fn kind_of<S, T: Value>(_: fn(&S) -> &T) -> &'static str {
    T::KIND
}

const fn row(
    name: &'static str,
    default: Option<&'static str>,
    reads: Reads,
    doc: &'static str,
) -> Directive {
    Directive {
        name,
        default,
        reads,
        ours: false,
        doc,
    }
}

const fn ours(
    name: &'static str,
    default: Option<&'static str>,
    reads: Reads,
    doc: &'static str,
) -> Directive {
    Directive {
        name,
        default,
        reads,
        ours: true,
        doc,
    }
}

const fn not_yet(scope: Scope, kind: &'static str) -> Reads {
    Reads::NotYet { scope, kind }
}

use Scope::{Global, Pool};

/// All of php-fpm's directives (up to 8.4, those of every system and build), and ours.
pub(super) static DIRECTIVES: &[Directive] = &[
    row(
        "include",
        None,
        Reads::Include,
        "Reads the files that match the pattern, in alphabetical order, in place of this line. A relative pattern starts at the \
         prefix (`-p`), not at the file's own directory; files may include files, at most five deep.",
    ),
    row(
        "pid",
        None,
        global!(pid),
        "The file that holds the supervisor's process number while it runs. A relative path starts at the local state directory, \
         or at the prefix given with `-p`.",
    ),
    row(
        "error_log",
        Some("log/php-fpm.log"),
        global!(error_log),
        "The file that messages are appended to. A relative path starts at the local state directory, or at the prefix given \
         with `-p`; `/dev/stderr` is the standard error that howdah was started with, whatever kind of file that is.",
    ),
    row(
        "syslog.ident",
        Some("php-fpm"),
        not_yet(Global, "text"),
        "The name before each message in the system log.",
    ),
    row(
        "syslog.facility",
        Some("DAEMON"),
        not_yet(Global, "facility"),
        "What kind of program the system log takes this for.",
    ),
    row(
        "log_buffering",
        Some("yes"),
        not_yet(Global, "yes or no"),
        "Whether messages are collected before they are written.",
    ),
    row(
        "log_level",
        Some("notice"),
        global!(log_level),
        "Messages below this level are not logged.",
    ),
    row(
        "log_limit",
        Some("1024"),
        not_yet(Global, "number"),
        "The length in bytes at which lines from scripts are wrapped.",
    ),
    row(
        "emergency_restart_interval",
        Some("0"),
        not_yet(Global, "time"),
        "The time within which `emergency_restart_threshold` crashes lead to a reload.",
    ),
    row(
        "emergency_restart_threshold",
        Some("0"),
        not_yet(Global, "number"),
        "How many crashes within `emergency_restart_interval` lead to a reload.",
    ),
    row(
        "process_control_timeout",
        Some("0"),
        global!(process_control_timeout),
        "How long running requests may go on after a graceful stop or a reload has been asked for. With 0 they may take as long as they take; php-fpm would end them at once.",
    ),
    row(
        "process.max",
        Some("0"),
        not_yet(Global, "number"),
        "The most processes that all pools together may have.",
    ),
    row(
        "process.priority",
        None,
        not_yet(Global, "number"),
        "The nice(2) value of all processes, from -19 to 20.",
    ),
    row(
        "daemonize",
        Some("yes"),
        global!(daemonize),
        "Whether howdah goes into the background once it is ready.",
    ),
    row(
        "rlimit_files",
        Some("0"),
        not_yet(Global, "number"),
        "How many files the supervisor may open.",
    ),
    row(
        "rlimit_core",
        Some("0"),
        not_yet(Global, "number or `unlimited`"),
        "The largest core file the supervisor may leave.",
    ),
    row(
        "events.mechanism",
        None,
        not_yet(Global, "name"),
        "How the supervisor waits for events.",
    ),
    row(
        "systemd_interval",
        Some("10s"),
        not_yet(Global, "time"),
        "How often systemd is told how the pools are doing.",
    ),
    row(
        "prefix",
        None,
        pool!(prefix),
        "The directory that the pool's relative paths start at; by default the one given with `-p`.",
    ),
    row(
        "user",
        None,
        pool!(user),
        "Who runs the pool's PHP. Required when howdah is started by root, and without effect otherwise.",
    ),
    row(
        "group",
        None,
        pool!(group),
        "The group of the pool's PHP; by default the user's own group.",
    ),
    row(
        "listen",
        None,
        pool!(listen),
        "Where the pool accepts connections. Required. A port alone means all of the machine's addresses; a relative path \
         starts at the pool's prefix.",
    ),
    row(
        "listen.backlog",
        Some("-1"),
        pool!(listen_backlog),
        "How many connections may wait to be accepted; -1 is the system's maximum.",
    ),
    row(
        "listen.acl_users",
        None,
        not_yet(Pool, "names, separated by commas"),
        "Users that may connect to the Unix socket.",
    ),
    row(
        "listen.acl_groups",
        None,
        not_yet(Pool, "names, separated by commas"),
        "Groups that may connect to the Unix socket.",
    ),
    row(
        "listen.owner",
        None,
        pool!(listen_owner),
        "The owner of the Unix socket; by default whoever starts howdah.",
    ),
    row(
        "listen.group",
        None,
        pool!(listen_group),
        "The group of the Unix socket; by default that of `listen.owner`, or of whoever starts howdah.",
    ),
    row(
        "listen.mode",
        None,
        pool!(listen_mode),
        "The permissions of the Unix socket; by default 0660.",
    ),
    row(
        "listen.allowed_clients",
        None,
        pool!(listen_allowed_clients),
        "The addresses that may connect over TCP; by default all. An entry that is no address lets nobody in, and an empty list \
         refuses everybody.",
    ),
    row(
        "listen.setfib",
        Some("-1"),
        not_yet(Pool, "number"),
        "The routing table of the listening socket, on FreeBSD.",
    ),
    row(
        "process.priority",
        None,
        not_yet(Pool, "number"),
        "The nice(2) value of the pool's processes, from -19 to 20.",
    ),
    row(
        "process.dumpable",
        Some("no"),
        not_yet(Pool, "yes or no"),
        "Whether the pool's processes may be traced by their user.",
    ),
    row(
        "pm",
        None,
        pool!(pm),
        "How the pool's processes come and go. Required. With `static`, `pm.max_children` of them are there all the time.",
    ),
    row(
        "pm.max_children",
        None,
        pool!(pm_max_children),
        "How many requests the pool runs at once. Required. With an ordinary PHP these are processes, with a thread-safe PHP threads.",
    ),
    ours(
        "pm.processes",
        None,
        pool!(pm_processes),
        "Thread-safe PHP only: how many processes the pool's threads are divided among; by default 1. Each process has an opcache \
         of its own.",
    ),
    ours(
        "pm.max_queue",
        Some("0"),
        pool!(pm_max_queue),
        "How many requests that have been read may wait for their turn; any beyond are answered at once that the pool is \
         overloaded. 0 means as many as `listen.backlog`, or 4096 where that is -1.",
    ),
    row(
        "pm.start_servers",
        Some("0"),
        not_yet(Pool, "number"),
        "How many processes a dynamic pool starts with.",
    ),
    row(
        "pm.min_spare_servers",
        Some("0"),
        not_yet(Pool, "number"),
        "How many idle processes a dynamic pool has at least.",
    ),
    row(
        "pm.max_spare_servers",
        Some("0"),
        not_yet(Pool, "number"),
        "How many idle processes a dynamic pool has at most.",
    ),
    row(
        "pm.max_spawn_rate",
        Some("32"),
        not_yet(Pool, "number"),
        "How many processes a dynamic pool starts in a second at most.",
    ),
    row(
        "pm.process_idle_timeout",
        Some("10s"),
        not_yet(Pool, "time"),
        "How long an idle process of an ondemand pool is kept.",
    ),
    row(
        "pm.max_requests",
        Some("0"),
        pool!(pm_max_requests),
        "After how many requests an interpreter is replaced by a fresh one, which keeps leaks small; 0 is never.",
    ),
    row(
        "pm.status_path",
        None,
        not_yet(Pool, "URI path"),
        "The URI that answers with the pool's status.",
    ),
    row(
        "pm.status_listen",
        None,
        not_yet(Pool, "address"),
        "An address of its own for the pool's status.",
    ),
    row(
        "ping.path",
        None,
        not_yet(Pool, "URI path"),
        "The URI that answers while the pool is alive.",
    ),
    row(
        "ping.response",
        Some("pong"),
        not_yet(Pool, "text"),
        "What `ping.path` answers.",
    ),
    row(
        "access.log",
        None,
        not_yet(Pool, "path"),
        "The file that gets a line for each request.",
    ),
    row(
        "access.format",
        Some("%R - %u %t \"%m %r\" %s"),
        not_yet(Pool, "format"),
        "The line of `access.log`.",
    ),
    row(
        "access.suppress_path[]",
        None,
        not_yet(Pool, "URI path"),
        "A URI whose requests are left out of `access.log`.",
    ),
    row(
        "slowlog",
        None,
        not_yet(Pool, "path"),
        "The file that gets the backtraces of slow requests.",
    ),
    row(
        "request_slowlog_timeout",
        Some("0"),
        not_yet(Pool, "time"),
        "After how long a request is slow; 0 is never.",
    ),
    row(
        "request_slowlog_trace_depth",
        Some("20"),
        not_yet(Pool, "number"),
        "How many calls a backtrace shows.",
    ),
    row(
        "request_terminate_timeout",
        Some("0"),
        pool!(request_terminate_timeout),
        "How long a request may run before it is ended, whatever its own time limit is; 0 is for ever. The client is answered \
         504 if it has seen nothing yet; the script ends as by a fatal error, shutdown functions included, at its next \
         instruction or when a system call that blocks is broken; where PHP itself waits on, as for another server's answer, it \
         occupies its interpreter until that wait is over. The time it waited for its turn does not count.",
    ),
    row(
        "request_terminate_timeout_track_finished",
        Some("no"),
        not_yet(Pool, "yes or no"),
        "Whether that also ends scripts which run on after their answer is complete.",
    ),
    ours(
        "request_queue_timeout",
        Some("60s"),
        pool!(request_queue_timeout),
        "How long a request may wait for its turn before it is answered that the pool is overloaded; 0 is for ever.",
    ),
    ours(
        "request_header_timeout",
        Some("60s"),
        pool!(request_header_timeout),
        "How long a client may take to send the parameters of a request it has begun; 0 is for ever.",
    ),
    ours(
        "request_body_timeout",
        Some("60s"),
        pool!(request_body_timeout),
        "How long a client may be silent in the middle of a request's body; 0 is for ever.",
    ),
    ours(
        "request_send_timeout",
        Some("300s"),
        pool!(request_send_timeout),
        "How long a client may take nothing of an answer before its connection is closed; 0 is for ever. The kernel waits until much \
         of its buffer has been read, so leave this long for slow clients.",
    ),
    ours(
        "connection_idle_timeout",
        Some("0"),
        pool!(connection_idle_timeout),
        "How long a connection that the client keeps open stays open between requests; 0 is for ever. An idle connection costs a \
         descriptor and no interpreter, and a server that closes first can hit a request on its way, so leave the closing to \
         the web server.",
    ),
    row(
        "rlimit_files",
        Some("0"),
        not_yet(Pool, "number"),
        "How many files each of the pool's processes may open.",
    ),
    row(
        "rlimit_core",
        Some("0"),
        not_yet(Pool, "number or `unlimited`"),
        "The largest core file a process of the pool may leave.",
    ),
    row(
        "chroot",
        None,
        not_yet(Pool, "path"),
        "The directory that is the root of the pool's processes.",
    ),
    row(
        "chdir",
        None,
        pool!(chdir),
        "The directory the pool's processes start in; by default `/`. PHP changes into each script's own directory for its request.",
    ),
    row(
        "catch_workers_output",
        Some("no"),
        pool!(catch_workers_output),
        "Whether what scripts write to the standard output and standard error is logged; otherwise it is dropped.",
    ),
    row(
        "decorate_workers_output",
        Some("yes"),
        not_yet(Pool, "yes or no"),
        "Whether those lines are logged with the time, the pool and the process.",
    ),
    row(
        "clear_env",
        Some("yes"),
        pool!(clear_env),
        "Whether scripts see only the variables of `env[]`, and not howdah's own environment. Large bodies and answers wait in \
         the directory for temporary files, which is `env[TMPDIR]`, or /tmp.",
    ),
    row(
        "security.limit_extensions",
        Some(".php .phar"),
        pool!(limit_extensions),
        "Only files whose name ends in one of these are run; upper and lower case differ. An empty value allows every file, which \
         lets visitors run what they upload.",
    ),
    row(
        "apparmor_hat",
        None,
        not_yet(Pool, "name"),
        "The AppArmor hat that the pool's processes put on.",
    ),
    row(
        "env[]",
        None,
        Reads::Map(Map {
            read: |settings, key, value| {
                if value.is_empty() {
                    return Err(Refusal::IsNot(
                        "a value for a variable; give it one, or remove the line",
                    ));
                }
                settings.env.push((key.to_owned(), value.to_owned()));
                Ok(())
            },
            show: Some(|settings| &settings.env),
            kind: "text",
        }),
        "An environment variable for scripts. `$NAME` as the whole value copies the variable NAME of howdah's own environment. Of \
         two lines for one variable the first wins.",
    ),
    row(
        "php_value[]",
        None,
        Reads::Map(Map {
            read: |settings, key, value| {
                settings.php_values.push((key.to_owned(), value.to_owned()));
                Ok(())
            },
            show: Some(|settings| &settings.php_values),
            kind: "text",
        }),
        "A setting of php.ini, which scripts may change. Of two lines for one setting the first wins.",
    ),
    row(
        "php_flag[]",
        None,
        Reads::Map(Map {
            read: |settings, key, value| {
                settings.php_values.push((key.to_owned(), flag(value)?));
                Ok(())
            },
            show: None,
            kind: <bool as Value>::KIND,
        }),
        "The same for a setting that is on or off.",
    ),
    row(
        "php_admin_value[]",
        None,
        Reads::Map(Map {
            read: |settings, key, value| {
                settings
                    .php_admin_values
                    .push((key.to_owned(), value.to_owned()));
                Ok(())
            },
            show: Some(|settings| &settings.php_admin_values),
            kind: "text",
        }),
        "A setting of php.ini, which scripts and `.user.ini` cannot change. Of two lines for one setting the first wins.",
    ),
    row(
        "php_admin_flag[]",
        None,
        Reads::Map(Map {
            read: |settings, key, value| {
                settings
                    .php_admin_values
                    .push((key.to_owned(), flag(value)?));
                Ok(())
            },
            show: None,
            kind: <bool as Value>::KIND,
        }),
        "The same for a setting that is on or off.",
    ),
];

/// PHP is given a switch as 1 or 0.
fn flag(text: &str) -> Result<String, Refusal> {
    bool::read(text).map(|on| if on { "1" } else { "0" }.to_owned())
}
