//! Whole configurations; the table; the reference page.

#![allow(clippy::unwrap_used)]

mod mistakes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::settings::{GlobalSettings, PoolSettings};
use super::table::{DIRECTIVES, Reads};
use super::{Address, Config, Errors, Level, LogTarget, Options, PhpIni, Pool, load};

/// Files in a directory of their own.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Relative paths start at the directory.
    fn load(&self, name: &str, options: Options<'_>) -> Result<Config, Errors> {
        load(
            &self.path(name),
            &Options {
                prefix: Some(self.0.path()),
                ..options
            },
        )
    }

    /// The errors, a line each, with DIR for the directory.
    fn errors(&self, name: &str, options: Options<'_>) -> Vec<String> {
        match self.load(name, options) {
            Ok(_) => Vec::new(),
            Err(errors) => {
                let dir = self.0.path().display().to_string();
                errors
                    .to_string()
                    .replace(&dir, "DIR")
                    .lines()
                    .map(str::to_owned)
                    .collect()
            }
        }
    }
}

/// A pool that is right, to be spoilt.
const WWW: &str = "[www]\nlisten = 127.0.0.1:9000\npm = static\npm.max_children = 2\n";

fn load_text(text: &str, options: Options<'_>) -> Config {
    Files::new(&[("a.conf", text)])
        .load("a.conf", options)
        .unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// The only pool of a good pool section with more lines.
fn pool(lines: &str) -> Pool {
    load_text(&format!("{WWW}{lines}"), Options::default())
        .pools
        .remove(0)
}

#[test]
fn a_small_file_is_a_pool_with_defaults() {
    let config = load_text(
        WWW,
        Options {
            prefix: None,
            ..Options::default()
        },
    );
    assert_eq!(config.warnings, []);
    assert_eq!(
        (
            config.global.pid,
            config.global.log_level,
            config.global.daemonize
        ),
        (None, Level::Notice, true)
    );
    assert_eq!(config.global.process_control_timeout, Duration::ZERO);
    let [pool] = config.pools.as_slice() else {
        panic!("{:?}", config.pools)
    };
    assert_eq!(pool.name, "www");
    assert_eq!(
        pool.listen.address,
        Address::Tcp(vec!["127.0.0.1:9000".parse().unwrap()])
    );
    assert_eq!((pool.listen.backlog, pool.listen.mode), (-1, 0o660));
    assert_eq!(pool.listen.allowed_clients, None);
    assert_eq!(
        (
            pool.pm.max_children.get(),
            pool.pm.processes,
            pool.pm.max_requests,
            pool.pm.max_queue
        ),
        (2, None, None, 4096)
    );
    let minute = Some(Duration::from_secs(60));
    assert_eq!(
        (
            pool.timeouts.queue,
            pool.timeouts.header,
            pool.timeouts.body,
            pool.timeouts.idle
        ),
        (minute, minute, minute, None)
    );
    assert_eq!(pool.limit_extensions, [".php", ".phar"]);
    assert!(pool.clear_env && !pool.catch_workers_output);
    assert_eq!(
        (&pool.user, &pool.chdir, pool.env.len(), pool.php.len()),
        (&None, &None, 0, 0)
    );
}

#[test]
fn every_directive_that_is_read_arrives() {
    let text = "
        [global]
        ; a comment
        PID = run/x.pid
        error_log = /dev/stderr
        log_level = WARN
        process_control_timeout = 1m
        daemonize = no
        [WWW]
        user = www-data
        group = 33
        listen = $pool.sock
        listen.backlog = -1
        listen.owner = nginx
        listen.group = 101
        listen.mode = 0666
        listen.allowed_clients = 127.0.0.1, ::1
        pm = Static
        pm.max_children = 8
        pm.processes = 2
        pm.max_queue = 20
        pm.max_requests = 500
        request_queue_timeout = 0
        request_header_timeout = 1
        request_body_timeout = 2s
        connection_idle_timeout = 3h
        chdir = /
        clear_env = off
        catch_workers_output = \"yes\"
        security.limit_extensions = .php .php5
    ";
    // The margin is of tabs: PHP takes an indented section for something else.
    let files = Files::new(&[("a.conf", &text.replace("        ", "\t"))]);
    let config = files.load("a.conf", Options::default()).unwrap();
    assert_eq!(config.global.pid, Some(files.path("run/x.pid")));
    assert_eq!(config.global.error_log, LogTarget::Stderr);
    assert_eq!(config.global.log_level, Level::Warning);
    assert_eq!(
        config.global.process_control_timeout,
        Duration::from_secs(60)
    );
    assert!(!config.global.daemonize);
    let pool = &config.pools[0];
    assert_eq!(
        (pool.user.as_deref(), pool.group.as_deref()),
        (Some("www-data"), Some("33"))
    );
    assert_eq!(pool.listen.address, Address::Unix(files.path("WWW.sock")));
    assert_eq!((pool.listen.backlog, pool.listen.mode), (-1, 0o666));
    assert_eq!(
        (pool.listen.owner.as_deref(), pool.listen.group.as_deref()),
        (Some("nginx"), Some("101"))
    );
    assert_eq!(pool.listen.allowed_clients.as_ref().map(Vec::len), Some(2));
    assert_eq!(pool.pm.max_children.get(), 8);
    assert_eq!(pool.pm.processes.map(std::num::NonZero::get), Some(2));
    assert_eq!(
        (
            pool.pm.max_queue,
            pool.pm.max_requests.map(std::num::NonZero::get)
        ),
        (20, Some(500))
    );
    let timeouts = &pool.timeouts;
    let seconds = [
        timeouts.queue,
        timeouts.header,
        timeouts.body,
        timeouts.idle,
    ]
    .map(|timeout| timeout.map(|time| time.as_secs()));
    assert_eq!(seconds, [None, Some(1), Some(2), Some(10800)]);
    assert_eq!(pool.chdir.as_deref(), Some(Path::new("/")));
    assert!(!pool.clear_env && pool.catch_workers_output);
    assert_eq!(pool.limit_extensions, [".php", ".php5"]);
}

#[test]
fn the_first_of_two_lines_for_one_name_is_applied_last() {
    let env = |name: &str| (name == "LANG").then(|| "C.UTF-8".to_owned());
    let text = format!(
        "{WWW}env[A] = 1\nenv[L] = $LANG\nenv[N] = $NOT_SET\nenv[A] = 2\nphp_admin_flag[log_errors] = on\nphp_value[memory_limit] = 1M\n\
         php_flag[display_errors] = off\nphp_value[memory_limit] = 2M\nphp_value[error_reporting] = E_ALL\n"
    );
    let pool = load_text(
        &text,
        Options {
            env: &env,
            ..Options::default()
        },
    )
    .pools
    .remove(0);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        pool.env,
        [
            pair("A", "2"),
            pair("N", ""),
            pair("L", "C.UTF-8"),
            pair("A", "1")
        ]
    );
    let ini = |name: &str, value: &str, admin| PhpIni {
        name: name.to_owned(),
        value: value.to_owned(),
        admin,
    };
    assert_eq!(
        pool.php,
        [
            ini("error_reporting", "30719", false),
            ini("memory_limit", "2M", false),
            ini("display_errors", "0", false),
            ini("memory_limit", "1M", false),
            ini("log_errors", "1", true),
        ]
    );
}

#[test]
fn paths_of_php_settings_start_at_the_prefix() {
    let files = Files::new(&[(
        "a.conf",
        "[www]\nlisten = 9000\npm = static\npm.max_children = 1\nphp_admin_value[error_log] = logs/$pool.log\nphp_value[ERROR_LOG] = /x\n\
         php_value[error_log] = syslog\nphp_value[session.save_path] = a\nphp_value[extension_dir] = \"\"\n",
    )]);
    let pool = files
        .load("a.conf", Options::default())
        .unwrap()
        .pools
        .remove(0);
    let values: Vec<&str> = pool.php.iter().map(|ini| ini.value.as_str()).collect();
    assert_eq!(
        values,
        [
            "",
            "a",
            "syslog",
            "/x",
            files.path("logs/www.log").to_str().unwrap()
        ]
    );
}

#[test]
fn relative_paths_start_where_php_fpm_says() {
    let files = Files::new(&[(
        "a.conf",
        "[global]\npid = x.pid\n[www]\nlisten = x.sock\npm = static\npm.max_children = 1\n",
    )]);
    let defaults = Options {
        default_prefix: Path::new("/usr"),
        local_state_dir: Path::new("/var"),
        ..Options::default()
    };
    let config = load(&files.path("a.conf"), &defaults).unwrap();
    assert_eq!(config.global.pid.as_deref(), Some(Path::new("/var/x.pid")));
    assert_eq!(
        config.global.error_log,
        LogTarget::File("/var/log/php-fpm.log".into())
    );
    assert_eq!(
        config.pools[0].listen.address,
        Address::Unix("/usr/x.sock".into())
    );

    let pool_prefix = Files::new(&[(
        "a.conf",
        "[www]\nprefix = .\nlisten = x.sock\npm = static\npm.max_children = 1\nchdir = .\n",
    )]);
    let config = pool_prefix.load("a.conf", Options::default()).unwrap();
    let dir = pool_prefix.path(".");
    assert_eq!(config.pools[0].prefix.as_deref(), Some(dir.as_path()));
    assert_eq!(
        config.pools[0].listen.address,
        Address::Unix(dir.join("x.sock"))
    );
    assert_eq!(
        config.pools[0].chdir,
        Some(PathBuf::from(format!("{}/.", dir.display())))
    );
}

#[test]
fn the_command_line_wins_or_fills_in() {
    let options = Options {
        pid: Some(Path::new("/run/cli.pid")),
        daemonize: Some(false),
        ..Options::default()
    };
    let config = load_text(WWW, options);
    assert_eq!(
        (config.global.pid, config.global.daemonize),
        (Some("/run/cli.pid".into()), false)
    );
    let config = load_text(&format!("[global]\npid = /run/file.pid\n{WWW}"), options);
    assert_eq!(
        config.global.pid,
        Some("/run/file.pid".into()),
        "php-fpm prefers the file's"
    );
}

#[test]
fn sections_that_appear_again_go_on() {
    let text = "[www]\nlisten = 9000\n[Global]\nlog_level = error\n[b]\nlisten = 9001\npm = static\npm.max_children = 1\n\
                [WWW]\npm = static\npm.max_children = 7\n";
    let config = load_text(text, Options::default());
    let pools: Vec<_> = config
        .pools
        .iter()
        .map(|pool| (pool.name.as_str(), pool.pm.max_children.get()))
        .collect();
    assert_eq!(pools, [("www", 7), ("b", 1)]);
    assert_eq!(config.global.log_level, Level::Error);
}

#[test]
fn includes_are_read_in_place_and_in_order() {
    let more = "pm = static\npm.max_children = 1\n";
    let files = Files::new(&[
        (
            "main.conf",
            "[b]\ninclude = more.inc\nlisten = /b\nINCLUDE = *.pool\n[global]\nlog_level = alert\n",
        ),
        ("more.inc", more),
        ("d.pool", &format!("[d]\nlisten = /d\n{more}")),
        ("c.pool", &format!("[c]\nlisten = /c\n{more}")),
        (".hidden.pool", "nonsense"),
    ]);
    std::fs::create_dir(files.path("e.pool")).unwrap();
    let config = files.load("main.conf", Options::default()).unwrap();
    let names: Vec<_> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["b", "c", "d"]);
    assert_eq!(config.global.log_level, Level::Alert);
}

#[test]
fn an_include_of_nothing_is_a_warning() {
    let files = Files::new(&[("a.conf", &format!("include = **.none\n{WWW}"))]);
    let config = files.load("a.conf", Options::default()).unwrap();
    let [warning] = config.warnings.as_slice() else {
        panic!("{:?}", config.warnings)
    };
    assert_eq!(warning.level(), Level::Warning);
    let dir = files.0.path().display();
    let expected =
        format!("Nothing matches the include pattern '{dir}/**.none' from {dir}/a.conf at line 1.");
    assert_eq!(warning.to_string(), expected);
}

#[test]
fn clients_that_are_no_addresses_let_nobody_in() {
    let config = load_text(
        &format!("{WWW}listen.allowed_clients = xxx\n"),
        Options::default(),
    );
    assert_eq!(config.pools[0].listen.allowed_clients, Some(Vec::new()));
    assert_eq!(config.pools[0].listen.wrong_clients, ["xxx"]);
    let warnings: Vec<_> = config
        .warnings
        .iter()
        .map(|warning| (warning.level(), warning.to_string()))
        .collect();
    assert_eq!(warnings.len(), 2);
    assert!(warnings.iter().all(|(level, _)| *level == Level::Error));
    assert!(
        warnings[0]
            .1
            .contains("a.conf:5] [pool www] Wrong IP address 'xxx' in listen.allowed_clients"),
        "{warnings:?}"
    );
    assert_eq!(
        pool("listen.allowed_clients = ${NOT_SET_ANYWHERE}\n")
            .listen
            .allowed_clients,
        Some(Vec::new())
    );
}

#[test]
fn a_pool_survives_the_way_to_its_process() {
    let pool = pool(
        "user = u\nenv[A] = \"b c\"\nphp_admin_value[x] = \"y\u{e9}\"\nchdir = /\nlisten.allowed_clients = ::1\n",
    );
    assert_eq!(Pool::from_bytes(&pool.to_bytes().unwrap()).unwrap(), pool);
    assert!(Pool::from_bytes(b"{}").is_err());
}

#[test]
fn the_dump_has_php_fpms_layout() {
    let text = "[global]\npid = /run/x.pid\nerror_log = /dev/stderr\n[www]\nuser = www-data\nlisten = $pool.sock\npm = static\n\
                pm.max_children = 2\nenv[A] = $SECRET\nphp_value[a] = 1\nphp_flag[b] = on\nphp_admin_flag[c] = off\n";
    let files = Files::new(&[("a.conf", text)]);
    let config = load(&files.path("a.conf"), &Options::default()).unwrap();
    let expected = "[global]
\tpid = /run/x.pid
\terror_log = /dev/stderr
\tlog_level = NOTICE
\tprocess_control_timeout = 0s
\tdaemonize = yes
 
[www]
\tprefix = undefined
\tuser = www-data
\tgroup = undefined
\tlisten = /usr/www.sock
\tlisten.backlog = -1
\tlisten.owner = undefined
\tlisten.group = undefined
\tlisten.mode = undefined
\tlisten.allowed_clients = undefined
\tpm = static
\tpm.max_children = 2
\tpm.processes = undefined
\tpm.max_queue = 0
\tpm.max_requests = 0
\trequest_terminate_timeout = 0s
\trequest_queue_timeout = 60s
\trequest_header_timeout = 60s
\trequest_body_timeout = 60s
\trequest_send_timeout = 300s
\tconnection_idle_timeout = 0s
\tchdir = undefined
\tcatch_workers_output = no
\tclear_env = yes
\tsecurity.limit_extensions = .php .phar
\tenv[A] = $SECRET
\tphp_value[b] = 1
\tphp_value[a] = 1
\tphp_admin_value[c] = 0
 
";
    assert_eq!(config.dump(), expected);
}

#[test]
fn every_default_can_be_read_and_every_name_is_one() {
    for row in DIRECTIVES {
        if let Some(default) = row.default {
            match &row.reads {
                Reads::Global(field) => {
                    (field.read)(&mut GlobalSettings::new(), default, None).unwrap()
                }
                Reads::Pool(field) => {
                    (field.read)(&mut PoolSettings::default(), default, None).unwrap()
                }
                Reads::Include | Reads::Map(_) | Reads::NotYet { .. } => {}
            }
        }
        let twins = DIRECTIVES
            .iter()
            .filter(|other| other.name == row.name && other.scope() == row.scope());
        assert_eq!(twins.count(), 1, "{}", row.name);
        assert!(
            row.doc.ends_with('.') && !row.doc.contains('\n') && !row.doc.contains("  "),
            "{}",
            row.name
        );
        assert_eq!(
            matches!(row.reads, Reads::Map(_)),
            row.takes_key() && !matches!(row.reads, Reads::NotYet { .. }),
            "{}",
            row.name
        );
    }
}

#[test]
fn reference_page() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/directives.md");
    let page = super::reference();
    if std::env::var_os("HOWDAH_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/directives.md is out of date; run: HOWDAH_BLESS=1 cargo test reference_page"
    );
}

proptest! {
    #[test]
    fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.conf");
        std::fs::write(&file, bytes).unwrap();
        let _ = load(&file, &Options::default());
    }

    #[test]
    fn random_words_do_no_harm(words in proptest::collection::vec(
        proptest::sample::select(&["[", "]", "[www]", "=", " ", "\n", "\r", "listen", "pm", "env[", "\"", "'", "$", "${", "}", ":-", "\\", "~", "|", "(", "9", ":", "é", "\0", "static"][..]),
        0..60,
    )) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.conf");
        std::fs::write(&file, words.concat()).unwrap();
        let _ = load(&file, &Options::default());
    }
}
