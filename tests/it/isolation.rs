//! Nothing of one request reaches another one: not the next one of the same interpreter, and not those that run at the
//! same time.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::request::Part;
use crate::support::{Request, Response, Server, Setup};

/// All that a script can find out about what was done before it, as far as it could differ.
const PROBE: &str = r#"<?php
function described(mixed $handler): string
{
    return is_scalar($handler) || $handler === null ? var_export($handler, true) : 'set';
}

function probe(): array
{
    $error_handler = set_error_handler(null);
    restore_error_handler();
    $exception_handler = set_exception_handler(null);
    restore_exception_handler();
    $last = error_get_last();
    return [
        'ini' => ini_get_all(null, false),
        'env' => [
            getenv('LEAK'), getenv('KEPT'), getenv()['LEAK'] ?? null, getenv()['KEPT'] ?? null,
            $_ENV['LEAK'] ?? null, $_ENV['KEPT'] ?? null, $_SERVER['LEAK'] ?? null, $_SERVER['HTTP_X_LEAK'] ?? null,
        ],
        // The last two show what C code sees.
        'locale' => [setlocale(LC_ALL, 0), nl_langinfo(CODESET), bin2hex(escapeshellarg("\u{e9}"))],
        'umask' => umask(),
        'cwd' => getcwd(),
        'timezone' => [date_default_timezone_get(), date('H:i', 0)],
        'constants' => get_defined_constants(true)['user'] ?? [],
        'functions' => array_values(array_diff(get_defined_functions()['user'], ['probe', 'described', 'count_up'])),
        'classes' => [class_exists('Leak', false), interface_exists('ILeak', false), class_exists('Alias', false)],
        'statics' => count_up() . ' ' . ++Counter::$count,
        'globals' => isset($GLOBALS['leak']),
        'mbstring' => [
            mb_internal_encoding(), mb_language(), mb_substitute_character(), mb_regex_encoding(), mb_http_output(),
            mb_detect_order(),
        ],
        'error handler' => described($error_handler),
        'exception handler' => described($exception_handler),
        'last error' => $last === null ? null : $last['message'],
        'autoloaders' => count(spl_autoload_functions()),
        'wrappers' => stream_get_wrappers(),
        'filters' => stream_get_filters(),
        'context' => stream_context_get_options(stream_context_get_default()),
        'session' => [session_status(), session_id(), session_name(), session_module_name(), isset($_SESSION)],
        'session cookie' => session_get_cookie_params(),
        'buffers' => [ob_get_level(), ob_list_handlers()],
        'abort' => [ignore_user_abort(), connection_status()],
        'response' => [http_response_code(), headers_list()],
        'collector' => gc_enabled(),
        'memory' => [memory_get_usage(true) > 32 << 20, memory_get_peak_usage(true) > 32 << 20],
        'input' => [$_GET, $_POST, $_COOKIE, $_FILES, $_REQUEST, file_get_contents('php://input')],
        'login' => [$_SERVER['PHP_AUTH_USER'] ?? null, $_SERVER['PHP_AUTH_PW'] ?? null, $_SERVER['AUTH_TYPE'] ?? null],
        'libxml' => [libxml_use_internal_errors(), count(libxml_get_errors())],
        'disabled' => function_exists('strrev') ? strrev('ab') : 'disabled',
    ];
}

function count_up(): int
{
    static $count = 0;
    return ++$count;
}

class Counter
{
    public static int $count = 0;
}
"#;

fn with_probe(setup: Setup) -> Setup {
    setup
        .args(&["-d", "variables_order=EGPCS"])
        .pool("env[KEPT] = original")
        .file("probe.inc", PROBE)
        .file(
            "probe.php",
            "<?php require 'probe.inc'; echo json_encode(probe());",
        )
}

/// One interpreter, whose requests follow one another.
struct Solo {
    server: Server,
    /// What the probe said when nothing had run before it.
    fresh: Value,
}

static SOLO: LazyLock<Solo> = LazyLock::new(|| {
    let server = with_probe(Setup::new().children(1)).start_shared();
    let fresh = server.get("/probe.php").send().json();
    Solo { server, fresh }
});

/// Lets the tests of one interpreter follow one another, so that the one that leaks is the one that fails.
static TURN: Mutex<()> = Mutex::new(());

/// Runs the code. It must change these things while its request lasts, and nothing after.
#[track_caller]
fn expect_no_trace(code: &str, changes: &[&str]) {
    expect_no_trace_of(|request| request, code, changes);
}

/// The same, for code that a request with more to it runs.
#[track_caller]
fn expect_no_trace_of(adorn: impl Fn(Request) -> Request, code: &str, changes: &[&str]) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Solo { server, fresh } = &*SOLO;
    let request = adorn(server.run(&format!(
        "require 'probe.inc'; {code}; $probed = json_encode(probe()); while (ob_get_level()) ob_end_clean(); echo $probed;"
    )));
    // Once more, as some things show only the second time.
    for _ in 0..2 {
        let response = request.send();
        if !changes.is_empty() {
            let spoilt = response.json();
            for &key in changes {
                assert_ne!(
                    fresh[key], spoilt[key],
                    "the code was to change {key:?}, so this tests nothing; it said {:?}",
                    response.stderr
                );
            }
        }
        expect_fresh(&server.get("/probe.php").send(), fresh);
    }
}

#[track_caller]
fn expect_fresh(response: &Response, fresh: &Value) {
    assert_eq!(
        response.status, 200,
        "expected what a fresh interpreter says, came {response:?}"
    );
    let found = differences(fresh, &response.json());
    assert!(
        found.is_empty(),
        "expected what a fresh interpreter says, but:\n{}",
        found.join("\n")
    );
}

fn differences(wanted: &Value, found: &Value) -> Vec<String> {
    let (Value::Object(wanted), Value::Object(found)) = (wanted, found) else {
        return match wanted == found {
            true => Vec::new(),
            false => vec![format!("{wanted} was expected, came {found}")],
        };
    };
    let keys: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    keys.into_iter()
        .flat_map(|key| {
            let side = |object: &serde_json::Map<String, Value>| {
                object.get(key).cloned().unwrap_or(Value::Null)
            };
            differences(&side(wanted), &side(found))
                .into_iter()
                .map(move |difference| format!("{key}: {difference}"))
        })
        .collect()
}

// --- One after another -------------------------------------------------------------------------

#[test]
fn environment_variables_end_with_their_request() {
    expect_no_trace("putenv('LEAK=1'); putenv('KEPT=changed')", &["env"]);
    expect_no_trace("putenv('KEPT')", &["env"]);
    expect_no_trace("$_ENV['LEAK'] = $_SERVER['LEAK'] = '1'", &["env"]);
}

#[test]
fn environment_variables_of_programs_that_scripts_start_end_with_their_request() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = &SOLO.server;
    let show = r#"echo shell_exec('echo "[$LEAK $KEPT]"');"#;
    let clean = server.run(show);
    clean.send().expect_text("[ original]\n");
    server
        .run(&format!("putenv('LEAK=1'); putenv('KEPT=2'); {show}"))
        .send()
        .expect_text("[1 2]\n");
    clean.send().expect_text("[ original]\n");
}

#[test]
fn parameters_end_with_their_request() {
    let adorn = |request: Request| request.param("LEAK", "1").param("HTTP_X_LEAK", "1");
    expect_no_trace_of(adorn, "", &["env"]);
}

#[test]
fn what_the_client_sent_ends_with_its_request() {
    let adorn = |request: Request| {
        request
            .query("leak=query")
            .param("HTTP_COOKIE", "leak=cookie")
            .form("leak=body")
    };
    expect_no_trace_of(adorn, "", &["input"]);
    let upload = |request: Request| {
        request.multipart(&[
            Part::field("a", "b"),
            Part::file("leak", "leak.txt", "text/plain", b"leak"),
        ])
    };
    expect_no_trace_of(upload, "", &["input"]);
    // "user:password"
    let login =
        |request: Request| request.param("HTTP_AUTHORIZATION", "Basic dXNlcjpwYXNzd29yZA==");
    expect_no_trace_of(login, "", &["login"]);
}

#[test]
fn the_locale_ends_with_its_request() {
    expect_no_trace("setlocale(LC_ALL, 'C.UTF-8')", &["locale"]);
}

#[test]
fn the_umask_ends_with_its_request() {
    expect_no_trace("umask(0757)", &["umask"]);
}

#[test]
fn the_working_directory_ends_with_its_request() {
    expect_no_trace("chdir('/')", &["cwd"]);
}

#[test]
fn each_script_starts_in_its_own_directory() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = &SOLO.server;
    server.file(
        "here/cwd.php",
        "<?php echo getcwd(), ' ', file_get_contents('name'); chdir('/');",
    );
    server.file("here/name", "here");
    server.file(
        "there/cwd.php",
        "<?php echo getcwd(), ' ', file_get_contents('name');",
    );
    server.file("there/name", "there");
    for name in ["here", "there", "here"] {
        let dir = server.root().join(name);
        server
            .get(&format!("/{name}/cwd.php"))
            .send()
            .expect_text(&format!("{} {name}", dir.display()));
    }
}

#[test]
fn ini_settings_end_with_their_request() {
    expect_no_trace(
        "ini_set('precision', 5); ini_set('include_path', '/'); ini_set('user_agent', 'leak');
         ini_set('display_errors', 1); ini_set('error_log', '/dev/null'); ini_set('default_charset', 'EUC-JP');
         ini_set('memory_limit', '64M'); ini_set('session.use_cookies', 0); ini_set('arg_separator.output', ';');
         @ini_set('assert.callback', 'leak'); error_reporting(0); set_time_limit(77); bcscale(5)",
        &["ini"],
    );
}

#[test]
fn ini_settings_that_fail_halfway_end_with_their_request() {
    expect_no_trace(
        "ini_set('error_append_string', str_repeat('x', 10000)); trigger_error('x')",
        &["ini"],
    );
    expect_no_trace(
        "ini_set('precision', 5); ini_restore('precision'); ini_set('precision', 6)",
        &["ini"],
    );
}

#[test]
fn the_time_zone_ends_with_its_request() {
    expect_no_trace("date_default_timezone_set('Asia/Tokyo')", &["timezone"]);
    expect_no_trace(
        "ini_set('date.timezone', 'Asia/Tokyo')",
        &["timezone", "ini"],
    );
}

#[test]
fn constants_functions_and_classes_end_with_their_request() {
    expect_no_trace(
        "define('LEAK', 1); eval('function leak() {} class Leak {} interface ILeak {}'); class_alias('Counter', 'Alias');
         $GLOBALS['leak'] = 1",
        &["constants", "functions", "classes", "globals"],
    );
}

#[test]
fn static_variables_end_with_their_request() {
    expect_no_trace("Counter::$count = 5; count_up(); count_up()", &["statics"]);
}

#[test]
fn mbstring_settings_end_with_their_request() {
    expect_no_trace(
        "mb_internal_encoding('EUC-JP'); mb_language('ja'); mb_substitute_character(65); mb_regex_encoding('SJIS');
         mb_http_output('SJIS'); mb_detect_order('SJIS,ASCII')",
        &["mbstring"],
    );
}

#[test]
fn handlers_end_with_their_request() {
    expect_no_trace(
        "set_error_handler(fn () => false); set_exception_handler(fn () => null); @$nothing['x'];
         spl_autoload_register(fn () => null)",
        &["error handler", "exception handler", "autoloaders"],
    );
    expect_no_trace("@trigger_error('leak')", &["last error"]);
    expect_no_trace(
        "libxml_use_internal_errors(true); simplexml_load_string('<')",
        &["libxml"],
    );
    expect_no_trace("gc_disable()", &["collector"]);
}

#[test]
fn shutdown_functions_run_once() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = &SOLO.server;
    let file = server.state().join("shutdown");
    server
        .run(&format!(
            "header_register_callback(fn () => header('X-Once: 1'));
             register_shutdown_function(fn () => file_put_contents('{}', 'x', FILE_APPEND));",
            file.display()
        ))
        .send()
        .expect_text("");
    let after = server.run("echo 'after';").send();
    after.expect_text("after");
    assert!(
        after.headers("X-Once").is_empty(),
        "a callback of the last request: {after:?}"
    );
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "x",
        "times the shutdown function ran"
    );
}

#[test]
fn streams_settings_end_with_their_request() {
    expect_no_trace(
        "class Wrapper { public $context; } class Filter extends php_user_filter {}
         stream_wrapper_register('leak', 'Wrapper'); stream_wrapper_unregister('data');
         stream_filter_register('leak', 'Filter');
         stream_context_set_default(['http' => ['header' => 'X-Leak: 1']])",
        &["wrappers", "filters", "context"],
    );
    // Without it no script could be read.
    expect_no_trace("stream_wrapper_unregister('file')", &["wrappers"]);
}

#[test]
fn sessions_end_with_their_request() {
    expect_no_trace("session_start(); $_SESSION['leak'] = 1", &["session"]);
    let with_cookie = |request: Request| request.param("HTTP_COOKIE", "PHPSESSID=leakedsession");
    expect_no_trace_of(
        with_cookie,
        "session_start(); $_SESSION['leak'] = 1",
        &["session"],
    );
    expect_no_trace(
        "session_name('LEAK'); session_id('leak'); session_set_cookie_params(77, '/leak', 'leak', true, true);
         session_cache_limiter('public')",
        &["session", "session cookie", "ini"],
    );
    expect_no_trace(
        "class Handler extends SessionHandler {} session_set_save_handler(new Handler()); session_start();
         session_abort(); session_module_name('files')",
        &["session"],
    );
}

#[test]
fn php_value_and_php_admin_value_end_with_their_request() {
    let value = |request: Request| request.param("PHP_VALUE", "precision=5\nuser_agent=leak");
    expect_no_trace_of(value, "", &["ini"]);
    let admin = |request: Request| {
        request.param(
            "PHP_ADMIN_VALUE",
            "memory_limit=77M\nopen_basedir=/\nallow_url_fopen=0\nmax_execution_time=77",
        )
    };
    expect_no_trace_of(admin, "", &["ini"]);
    // However it is obeyed, if at all.
    let disable = |request: Request| {
        request.param(
            "PHP_ADMIN_VALUE",
            "disable_functions=strrev\ndisable_classes=ArrayObject",
        )
    };
    expect_no_trace_of(disable, "", &[]);
}

#[test]
fn what_php_admin_value_locked_can_be_set_in_the_next_request() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = &SOLO.server;
    let request = server.run("ini_set('precision', 9); echo ini_get('precision');");
    request
        .clone()
        .param("PHP_ADMIN_VALUE", "precision=5")
        .send()
        .expect_text("5");
    request.send().expect_text("9");
}

#[test]
fn user_ini_is_for_its_own_directory() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = &SOLO.server;
    server.file(
        "prepended/.user.ini",
        "auto_prepend_file=before.php\nauto_append_file=after.php\nprecision=7\n",
    );
    server.file("prepended/before.php", "<?php echo 'before ';");
    server.file("prepended/after.php", "<?php echo ' after';");
    server.file("prepended/script.php", "<?php echo ini_get('precision');");
    server.file("plain/script.php", "<?php echo ini_get('precision');");
    for _ in 0..2 {
        server
            .get("/prepended/script.php")
            .send()
            .expect_text("before 7 after");
        server.get("/plain/script.php").send().expect_text("14");
        expect_fresh(&server.get("/probe.php").send(), &SOLO.fresh);
    }
}

#[test]
fn output_buffers_end_with_their_request() {
    expect_no_trace(
        "ob_start(fn ($text) => $text); ob_implicit_flush()",
        &["buffers"],
    );
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Solo { server, fresh } = &*SOLO;
    server
        .run("ob_start(fn ($text) => strtoupper($text)); ob_start(); output_add_rewrite_var('leak', '1'); echo 'left open';")
        .send()
        .expect_text("LEFT OPEN");
    expect_fresh(&server.get("/probe.php").send(), fresh);
    server
        .run(r#"echo 'a <a href="x.php">link</a>';"#)
        .send()
        .expect_text(r#"a <a href="x.php">link</a>"#);
    server
        .run("ob_start(); echo 'held back'; ob_start(); no_such_function();")
        .send()
        .expect(500, "held back");
    expect_fresh(&server.get("/probe.php").send(), fresh);
}

#[test]
fn ignore_user_abort_ends_with_its_request() {
    expect_no_trace("ignore_user_abort(true)", &["abort", "ini"]);
}

#[test]
fn the_response_ends_with_its_request() {
    expect_no_trace(
        "http_response_code(404); header('X-Leak: 1'); setcookie('leak', '1'); header('Content-Type: text/leak')",
        &["response"],
    );
    expect_no_trace(
        "header('HTTP/1.1 418 Teapot'); header_remove('X-Powered-By')",
        &["response"],
    );
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = &SOLO.server;
    server
        .run("http_response_code(503); header('X-Leak: 1');")
        .send()
        .expect(503, "");
    let after = server.run("echo 'after';").send();
    after.expect_text("after");
    assert!(
        after.headers("X-Leak").is_empty(),
        "a header of the last request: {after:?}"
    );
}

#[test]
fn random_numbers_do_not_go_on_from_anothers_seed() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = &SOLO.server;
    let seeded = server
        .run("mt_srand(42); mt_rand(); echo mt_rand();")
        .send()
        .text();
    server.run("mt_srand(42); echo mt_rand();").send();
    let next = server.run("echo mt_rand();").send().text();
    assert_ne!(next, seeded, "the sequence of the last request goes on");
}

#[test]
fn memory_ends_with_its_request() {
    expect_no_trace("$text = str_repeat('x', 64 << 20)", &["memory"]);
    // What was freed still shows as the highest use.
    expect_no_trace("str_repeat('x', 64 << 20)", &["memory"]);
}

#[test]
fn a_memory_limit_that_was_reached_ends_with_its_request() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Solo { server, fresh } = &*SOLO;
    let greedy = server.run(
        "ini_set('memory_limit', '4M'); $text = str_repeat('x', 16 << 20); echo 'not reached';",
    );
    for _ in 0..3 {
        let response = greedy.send();
        response.expect(500, "");
        assert!(
            response
                .stderr
                .contains("Allowed memory size of 4194304 bytes exhausted"),
            "{response:?}"
        );
        server
            .run("echo strlen(str_repeat('x', 64 << 20));")
            .send()
            .expect_text("67108864");
        expect_fresh(&server.get("/probe.php").send(), fresh);
    }
}

#[test]
fn a_time_limit_ends_with_its_request() {
    let server = Setup::new().children(1).start();
    let busy = server.run("for ($t = hrtime(true); hrtime(true) - $t < 1.5e9;); echo 'finished';");
    server
        .run("set_time_limit(1); echo 'set';")
        .send()
        .expect_text("set");
    busy.send().expect_text("finished");
    // Where threads have no timers of their own, PHP has no time limit that works.
    let old = server
        .run("echo (int) (PHP_ZTS && PHP_VERSION_ID < 80300);")
        .send();
    if old.text() == "0" {
        let late = server
            .run("set_time_limit(1); for ($t = hrtime(true); hrtime(true) - $t < 20e9;); echo 'not reached';")
            .send();
        late.expect(500, "");
        busy.send().expect_text("finished");
    }
}

/// Ways for a script to end, and the status of its answer.
const ENDINGS: &[(&str, u16)] = &[
    ("exit('code');", 200),
    ("exit(7);", 200),
    ("register_shutdown_function(function () { exit(3); });", 200),
    ("register_shutdown_function(function () { exit(3); }); exit(4);", 200),
    ("register_shutdown_function(function () { throw new Exception('late'); }); exit;", 500),
    ("throw new Exception('nobody catches this');", 500),
    ("set_exception_handler(function () { throw new Exception('again'); }); throw new Exception('first');", 500),
    ("no_such_function();", 500),
    ("eval('this is no PHP');", 500),
    ("require 'no-such-file.inc';", 500),
    ("trigger_error('fatal', E_USER_ERROR);", 500),
    ("ini_set('memory_limit', '4M'); $a = []; while (true) $a[] = str_repeat('x', 1000);", 500),
    ("ini_set('memory_limit', '8M'); function deeper($x) { return deeper($x + 1) + 1; } deeper(0);", 500),
    ("class D { function __destruct() { exit; } } $d = new D; exit;", 200),
    ("class D { function __destruct() { throw new Exception('destructor'); } } $d = new D;", 500),
    ("ob_start(function ($text) { throw new Exception('in a buffer'); }); echo 'x';", 500),
    ("ob_start(function ($text) { ob_start(); return ''; }); echo 'x';", 200),
    ("ob_start(function ($text) { exit; }); echo 'x';", 200),
    ("session_start(); $_SESSION['x'] = 1; no_such_function();", 500),
    ("session_set_save_handler(new class extends SessionHandler {
        function write($id, $data): bool { throw new Exception('cannot write'); } }); session_start();", 500),
    ("fastcgi_finish_request(); echo 'late'; header('X-Leak: 1'); http_response_code(404);", 200),
    ("fastcgi_finish_request(); no_such_function();", 200),
    ("fastcgi_finish_request(); file_get_contents('php://input'); exit;", 200),
    ("ini_set('memory_limit', '4M'); register_shutdown_function(function () { ob_start(); echo 'x'; });
      $a = str_repeat('x', 16 << 20);", 500),
    ("$f = new Fiber(function () { Fiber::suspend(); }); $f->start(); exit;", 200),
    ("$f = new Fiber(function () { exit; }); $f->start();", 200),
    ("function gen() { try { yield 1; } finally { exit; } } foreach (gen() as $x) break;", 200),
    ("spl_autoload_register(function () { exit; }); new NoSuchClass;", 200),
    ("putenv('LEAK=1'); setlocale(LC_ALL, 'C.UTF-8'); umask(0); chdir('/'); no_such_function();", 500),
];

#[test]
fn however_a_script_ends_the_next_one_starts_fresh() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Solo { server, fresh } = &*SOLO;
    for (code, status) in ENDINGS {
        let response = server.run(code).send();
        let probe = server.get("/probe.php").send();
        assert_eq!(probe.status, 200, "after {code:?}: {probe:?}");
        let found = differences(fresh, &probe.json());
        assert!(found.is_empty(), "after {code:?}:\n{}", found.join("\n"));
        assert_eq!(response.status, *status, "{code:?}: {response:?}");
    }
}

#[test]
fn uploads_are_gone_before_the_answer_is_complete() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = &SOLO.server;
    for end in [
        "",
        "exit;",
        "throw new Exception('x');",
        "fastcgi_finish_request();",
        "ini_set('memory_limit', '4M'); str_repeat('x', 16 << 20);",
    ] {
        let response = server
            .run(&format!("echo $_FILES['upload']['tmp_name'], ' ', (int) is_file($_FILES['upload']['tmp_name']); {end}"))
            .multipart(&[Part::file("upload", "a.txt", "text/plain", &[b'x'; 50_000])])
            .send();
        let said = response.text();
        let Some((path, "1")) = said.split_once(' ') else {
            panic!("with {end:?}: expected a file, came {response:?}");
        };
        assert!(
            path.starts_with(server.state().to_str().unwrap()),
            "{path:?}"
        );
        // After fastcgi_finish_request() the script still has it.
        if !end.starts_with("fastcgi_finish_request") {
            assert!(
                !fs::exists(path).unwrap(),
                "with {end:?}: {path} is still there"
            );
        }
        crate::support::eventually("the file is removed", || {
            (!fs::exists(path).unwrap()).then_some(())
        });
    }
    // What the script moved stays where it is.
    let kept = server.state().join("kept");
    server
        .run(&format!(
            "echo (int) move_uploaded_file($_FILES['upload']['tmp_name'], '{}');",
            kept.display()
        ))
        .multipart(&[Part::file("upload", "a.txt", "text/plain", b"text")])
        .send()
        .expect_text("1");
    assert_eq!(fs::read(&kept).unwrap(), b"text");
}

// --- At the same time --------------------------------------------------------------------------

const CLIENTS: usize = 8;

/// How long they go on.
const WHILE: Duration = Duration::from_secs(2);

/// Everybody asks again and again for a while, each on a thread.
fn all_at_once(ask: impl Fn(usize) + Sync) {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let ask = &ask;
            scope.spawn(move || {
                while start.elapsed() < WHILE {
                    ask(number);
                }
            });
        }
    });
}

#[test]
fn requests_that_run_at_the_same_time_see_only_what_is_theirs() {
    let server = with_probe(Setup::new()).start();
    for number in 0..CLIENTS {
        server.file(&format!("dir-{number}/name"), number.to_string());
    }
    let state = server.state();
    let request = server
        .run(&format!(
            r#"
            require 'probe.inc';
            // The first one says what a fresh interpreter is like.
            $fresh = probe();
            $n = (int) $_GET['n'];
            $pause = fn () => usleep(random_int(0, 300));
            putenv("LEAK=$n"); putenv("KEPT=$n"); $pause();
            setlocale(LC_ALL, $n % 2 ? 'C.UTF-8' : 'C'); $pause();
            umask($n); $pause();
            chdir("dir-$n"); $pause();
            ini_set('precision', $n + 3); ini_set('user_agent', "leak $n"); ini_set('memory_limit', 100 + $n . 'M');
            set_time_limit(100 + $n); $pause();
            date_default_timezone_set(['UTC', 'Asia/Tokyo', 'Europe/Rome', 'Asia/Kolkata'][$n % 4]); $pause();
            define('LEAK', $n); eval("function leak$n() {{}}"); Counter::$count = $n; $pause();
            mb_internal_encoding(['UTF-8', 'EUC-JP', 'SJIS', 'ASCII'][$n % 4]); mb_regex_encoding('EUC-JP'); $pause();
            if ($n % 2) set_error_handler(fn () => true);
            class Wrapper {{ public $context; }}
            stream_wrapper_register("leak$n", 'Wrapper'); $pause();
            ignore_user_abort($n % 3 == 0); http_response_code(200 + $n); header("X-Number: $n"); $pause();
            for ($i = 0; $i < $n; $i++) ob_start();
            error_reporting(E_ALL & ~$n); $pause();
            $file = "{state}/file-$n-" . bin2hex(random_bytes(8));
            touch($file); $mode = fileperms($file) & 0777; unlink($file);
            $own = [
                'number' => $n, 'probe' => probe(), 'mode' => decoct($mode), 'name' => file_get_contents('name'),
                'real' => fs_of_thread(), 'cookie' => $_COOKIE, 'body' => file_get_contents('php://input'),
            ];
            while (ob_get_level()) ob_end_clean();
            echo json_encode(['fresh' => $fresh, 'own' => $own]);
            // What a program started by this request would see.
            function fs_of_thread(): string {{ return realpath('.'); }}
            "#,
            state = state.display(),
        ))
        .keep();
    let of = |number: usize| {
        request
            .clone()
            .query(&format!("n={number}"))
            .param("HTTP_COOKIE", format!("number={number}"))
            .param("PHP_VALUE", format!("error_prepend_string={number}"))
            .post("text/plain", format!("body of {number}"))
    };
    // How it is when nobody else is there.
    let alone: Vec<Value> = (0..CLIENTS)
        .map(|number| of(number).send().json())
        .collect();
    for (number, answer) in alone.iter().enumerate() {
        let own = &answer["own"];
        assert_eq!(own["number"], number, "{own}");
        assert_eq!(own["name"], number.to_string(), "{own}");
        assert_eq!(own["mode"], format!("{:o}", 0o666 & !number), "{own}");
        assert_eq!(own["probe"]["env"][0], number.to_string(), "{own}");
        assert_eq!(own["probe"]["umask"], number, "{own}");
        let codeset = if number % 2 == 1 {
            "UTF-8"
        } else {
            "ANSI_X3.4-1968"
        };
        assert_eq!(own["probe"]["locale"][1], codeset, "{own}");
    }
    let answers = Mutex::new(vec![0; CLIENTS]);
    let connections: Vec<_> = (0..CLIENTS).map(|_| Mutex::new(server.connect())).collect();
    all_at_once(|number| {
        let response = connections[number].lock().unwrap().request(&of(number));
        let found = differences(&alone[number], &response.json());
        assert!(found.is_empty(), "request {number}:\n{}", found.join("\n"));
        assert_eq!(response.status, 200 + number as u16, "{response:?}");
        assert_eq!(response.header("X-Number"), number.to_string());
        answers.lock().unwrap()[number] += 1;
    });
    let answers = answers.into_inner().unwrap();
    assert!(
        answers.iter().all(|&count| count > 2),
        "too few answers to say anything: {answers:?}"
    );
}

#[test]
fn programs_that_scripts_start_at_the_same_time_inherit_only_what_is_theirs() {
    let server = Setup::new().start();
    for number in 0..CLIENTS {
        fs::create_dir(server.root().join(format!("dir-{number}"))).unwrap();
    }
    let request = server.run(
        r#"$n = $_GET['n'];
        putenv("LEAK=$n"); chdir("dir-$n"); umask((int) $n); usleep(random_int(0, 2000));
        echo shell_exec('echo "$LEAK $(pwd -P) $(umask)"');"#,
    );
    let root = server.root().canonicalize().unwrap();
    all_at_once(|number| {
        let response = request.clone().query(&format!("n={number}")).send();
        response.expect_text(&format!(
            "{number} {}/dir-{number} 000{number}\n",
            root.display()
        ));
    });
}

#[test]
fn user_ini_at_the_same_time_is_for_its_own_directory() {
    let server = Setup::new().start();
    let script =
        "<?php usleep(random_int(0, 1000)); echo ini_get('precision'), ' ', ini_get('user_agent');";
    for number in 0..CLIENTS {
        server.file(&format!("dir-{number}/script.php"), script);
        if number % 2 == 0 {
            let ini = format!(
                "precision={number}\nuser_agent=agent-{number}\nauto_prepend_file=before.php\n"
            );
            server.file(&format!("dir-{number}/.user.ini"), ini);
            server.file(
                &format!("dir-{number}/before.php"),
                format!("<?php echo 'before {number} ';"),
            );
        }
    }
    all_at_once(|number| {
        let response = server.get(&format!("/dir-{number}/script.php")).send();
        response.expect_text(&match number % 2 {
            0 => format!("before {number} {number} agent-{number}"),
            _ => "14 ".to_owned(),
        });
    });
}

#[test]
fn however_others_end_a_request_is_undisturbed() {
    let server = with_probe(Setup::new()).start();
    let fresh = server.get("/probe.php").send().json();
    let endings: Vec<(Request, &(&str, u16))> = ENDINGS
        .iter()
        .map(|ending| (server.run(ending.0), ending))
        .collect();
    let slow = server.run("require 'probe.inc'; usleep(3000); echo json_encode(probe());");
    let next = std::sync::atomic::AtomicUsize::new(0);
    all_at_once(|number| {
        if number % 2 == 0 {
            let response = slow.send();
            assert_eq!(response.status, 200, "{response:?}");
            let found = differences(&fresh, &response.json());
            assert!(found.is_empty(), "{}", found.join("\n"));
        } else {
            let turn = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let (request, (code, status)) = &endings[turn % endings.len()];
            let response = request.send();
            assert_eq!(response.status, *status, "{code:?}: {response:?}");
        }
    });
    assert!(
        next.into_inner() >= ENDINGS.len(),
        "too few requests to say anything"
    );
}

#[test]
fn a_time_limit_ends_only_its_own_request() {
    let server = Setup::new().children(2).start();
    let patient = server.run(
        "set_time_limit(0); for ($t = hrtime(true); hrtime(true) - $t < 2.5e9;); echo 'finished';",
    );
    let hurried = server.run(
        "set_time_limit(1); for ($t = hrtime(true); hrtime(true) - $t < 20e9;); echo 'finished';",
    );
    let (mut patient, mut hurried) = (patient.start(), hurried.start());
    let patient = patient.response(1);
    patient.expect_text("finished");
    // Where threads have no timers of their own, PHP has no time limit that works.
    let old = server
        .run("echo (int) (PHP_ZTS && PHP_VERSION_ID < 80300);")
        .send();
    if old.text() == "0" {
        hurried.response(1).expect(500, "");
    }
}

#[test]
fn a_session_counts_every_request() {
    const EACH: usize = 25;
    let server = Setup::new().start();
    let request = server
        .run(
            "session_start(); $count = $_SESSION['count'] ?? 0; usleep(random_int(0, 500));
             $_SESSION['count'] = $count + 1; echo $count + 1;",
        )
        .param("HTTP_COOKIE", "PHPSESSID=sharedbyall");
    let counts: BTreeSet<u32> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| -> Vec<u32> {
                    (0..EACH)
                        .map(|_| request.send().text().parse().unwrap())
                        .collect()
                })
            })
            .collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    let all: BTreeSet<u32> = (1..=(CLIENTS * EACH) as u32).collect();
    assert_eq!(counts, all, "each number once: the session was locked");
}

#[test]
fn a_sessions_lock_ends_with_its_request() {
    let server = Setup::new().children(2).start();
    let cookie = |request: Request| request.param("HTTP_COOKIE", "PHPSESSID=lockedbyone");
    for end in [
        "exit;",
        "no_such_function();",
        "ini_set('memory_limit', '4M'); str_repeat('x', 16 << 20);",
    ] {
        cookie(server.run(&format!("session_start(); $_SESSION['x'] = 1; {end}"))).send();
        let mut next = cookie(server.run("session_start(); echo 'unlocked';")).start();
        next.response_within(1, Duration::from_secs(2))
            .expect_text("unlocked");
    }
}

#[test]
fn a_signal_mask_ends_with_its_request() {
    let server = Setup::new().children(1).start();
    let blocked =
        "pcntl_sigprocmask(SIG_BLOCK, [], $blocked); sort($blocked); echo json_encode($blocked);";
    let before = server.run(blocked).send().text();
    let during = server
        .run(&format!(
            "pcntl_sigprocmask(SIG_SETMASK, [SIGINT, SIGUSR1, SIGCHLD, SIGALRM]); {blocked}"
        ))
        .send()
        .text();
    assert_ne!(during, before);
    server.run(blocked).send().expect_text(&before);
}
