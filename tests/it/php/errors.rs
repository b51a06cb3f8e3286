//! What goes wrong in a script: the client is told, the log is told, the next request does not notice.

use super::{SERVER, run};
use crate::support::{Response, Setup};

/// The script failed in this way; both STDERR and the log say so, and the server serves on.
#[track_caller]
fn expect_failure(code: &str, message: &str) -> Response {
    let response = run(code).send();
    assert_eq!(response.status, 500, "after {code}: {response:?}");
    assert!(
        response.stderr.contains(message),
        "expected {message:?} on STDERR after {code}, came {response:?}"
    );
    SERVER.expect_log(&[message]);
    SERVER.expect_alive();
    response
}

#[test]
fn error_log_reaches_the_client_and_the_log() {
    let response =
        run("error_log('first of two'); error_log('second of two'); echo 'body';").send();
    response.expect_text("body");
    assert_eq!(
        response.stderr,
        "PHP message: first of two; PHP message: second of two"
    );
    SERVER.expect_log(&["NOTICE", "PHP message: first of two"]);
    SERVER.expect_log(&["NOTICE", "PHP message: second of two"]);
}

#[test]
fn error_log_may_go_to_a_file() {
    let path = SERVER.state().join("own-log");
    let response = run(&format!(
        "ini_set('error_log', '{}'); error_log('into the file'); echo $undefined;",
        path.display()
    ))
    .send();
    assert_eq!(response.stderr, "");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(
        text.contains("into the file") && text.contains("Undefined variable $undefined"),
        "{text}"
    );
}

#[test]
fn a_log_line_is_one_line_without_control_characters() {
    run(r#"error_log("an \x1b[31mescape\x07 and a \0 nul"); echo 1;"#).send();
    let line = SERVER.expect_log(&["escape"]);
    assert!(!line.contains(['\x1b', '\x07', '\0']), "{line:?}");
}

#[test]
fn a_warning_is_logged_and_the_script_goes_on() {
    let response = run("echo $undefined; echo 'goes on';").send();
    response.expect_text("goes on");
    assert!(
        response
            .stderr
            .contains("PHP Warning:  Undefined variable $undefined in "),
        "{response:?}"
    );
    SERVER.expect_log(&["PHP Warning:  Undefined variable $undefined in "]);
}

#[test]
fn errors_are_shown_if_wanted() {
    let response = run("ini_set('display_errors', '1'); echo $undefined; echo 'goes on';").send();
    assert!(
        response
            .text()
            .contains("Warning: Undefined variable $undefined in "),
        "{response:?}"
    );
}

#[test]
fn a_fatal_error_is_a_500_unless_it_is_shown() {
    expect_failure(
        "undefined_function();",
        "Call to undefined function undefined_function()",
    );
    let response = run("ini_set('display_errors', '1'); undefined_function();").send();
    assert_eq!(response.status, 200, "{response:?}");
    assert!(response.text().contains("Fatal error"), "{response:?}");
}

#[test]
fn an_uncaught_exception_is_a_500() {
    let response = expect_failure(
        "header('X-A: 1'); throw new LogicException('nobody catches this');",
        "Uncaught LogicException: nobody catches this",
    );
    assert_eq!(response.text(), "");
    expect_failure(
        "register_shutdown_function(function () { throw new Exception('in a shutdown function'); });",
        "in a shutdown function",
    );
    expect_failure(
        "class A { function __destruct() { throw new Exception('in a destructor'); } } $a = new A; unset($a);",
        "in a destructor",
    );
}

#[test]
fn an_error_after_the_first_output_cannot_change_the_status() {
    let response = run("echo 'begun'; flush(); throw new Exception('late');").send();
    response.expect_text("begun");
    assert!(response.stderr.contains("late"), "{response:?}");
}

#[test]
fn a_script_that_cannot_be_parsed_is_a_500() {
    expect_failure("this is not PHP;", "syntax error");
}

#[test]
fn handlers_of_a_script_are_called() {
    run("set_error_handler(function ($no, $text) { echo \"handled: $text\"; return true; }); echo $undefined;")
        .send()
        .expect_text("handled: Undefined variable $undefined");
    run("set_exception_handler(function ($e) { http_response_code(418); echo 'handled: ', $e->getMessage(); }); throw new Exception('thrown');")
        .send()
        .expect(418, "handled: thrown");
    let response = run("register_shutdown_function(function () { echo error_get_last()['message']; }); undefined_function();").send();
    assert!(
        response.text().contains("undefined_function()"),
        "{response:?}"
    );
}

#[test]
fn the_memory_limit_ends_a_script() {
    let message = "Allowed memory size of 16777216 bytes exhausted";
    expect_failure(
        "ini_set('memory_limit', '16M'); $a = []; while (true) { $a[] = str_repeat('x', 10000); }",
        message,
    );
    expect_failure(
        "ini_set('memory_limit', '16M'); str_repeat('x', 100000000);",
        message,
    );
    // In places where PHP has been seen to fall over.
    expect_failure(
        "ini_set('memory_limit', '16M');
         register_shutdown_function(function () { ob_start(function ($b) { return $b; }); echo 'shutdown'; str_repeat('x', 100000000); });
         $a = []; while (true) { $a[] = str_repeat('x', 10000); }",
        message,
    );
    expect_failure(
        "ini_set('memory_limit', '16M');
         class A { public $data; function __destruct() { str_repeat('x', 100000000); } } $a = new A;",
        message,
    );
    run(
        "ini_set('memory_limit', '16M'); ob_start(function ($b) { return str_repeat($b, 100000000); }); echo 'x';",
    )
    .send();
    SERVER.expect_alive();
}

#[test]
fn failures_while_php_cleans_up_are_survived() {
    let exhaust = "str_repeat('x', 100000000)";
    let server = Setup::new()
        .children(1)
        .pool("php_value[memory_limit] = 16M")
        .start();
    for code in [
        // In output callbacks, which run last.
        "ob_start(function ($b) { undefined_function(); }); echo 'x';".to_owned(),
        "ob_start(function ($b) { throw new Exception('x'); }); echo 'x';".to_owned(),
        "ob_start(function ($b) { exit('x'); }); echo 'x';".to_owned(),
        format!("ob_start(function ($b) {{ return {exhaust}; }}); ob_start(); echo 'x';"),
        format!("register_shutdown_function(function () {{ ob_start(function ($b) {{ return {exhaust}; }}); echo 'x'; }});"),
        // When the headers are sent.
        "header_register_callback(function () { undefined_function(); }); echo 'x';".to_owned(),
        format!("header_register_callback(function () {{ {exhaust}; }}); echo 'x';"),
        "header_register_callback(function () { exit('x'); });".to_owned(),
        // In destructors, of objects that live to the end.
        "class A { static $a; function __destruct() { undefined_function(); } } A::$a = new A;".to_owned(),
        format!("class A {{ static $a; function __destruct() {{ {exhaust}; }} }} A::$a = new A;"),
        "class A { function __destruct() { $GLOBALS['x'] = new A; exit('x'); } } $a = new A; $b = $a; $a->self = $a;".to_owned(),
        // In a session's handler, which PHP calls at the end.
        format!(
            "class H extends SessionHandler {{ function write($id, $data): bool {{ return {exhaust}; }} }}
             session_set_save_handler(new H); session_start(); $_SESSION['a'] = 1;"
        ),
        "class H extends SessionHandler { function close(): bool { throw new Exception('x'); } }
         session_set_save_handler(new H, false); session_start(); $_SESSION['a'] = 1;"
            .to_owned(),
        // In a stream that is closed at the end.
        "class S { public $context; function stream_open() { return true; } function stream_write($d) { return strlen($d); }
            function stream_flush() { undefined_function(); } function stream_close() { undefined_function(); } }
         stream_wrapper_register('s', 'S'); $GLOBALS['s'] = fopen('s://x', 'w'); fwrite($GLOBALS['s'], 'x');"
            .to_owned(),
        // And several of them.
        format!(
            "class A {{ function __destruct() {{ {exhaust}; }} }} $a = new A;
             register_shutdown_function(function () {{ undefined_function(); }});
             ob_start(function ($b) {{ undefined_function(); }}); session_start(); throw new Exception('x');"
        ),
    ] {
        let request = server.run(&code).keep();
        let mut client = request.connect();
        let first = client.request(&request);
        let second = client.request(&request);
        drop(client);
        assert_eq!(first.status, second.status, "the second time is like the first one after {code}");
        server.run("echo 'next';").send().expect_text("next");
    }
    let log = server.log();
    assert!(!log.contains("exited"), "a process did not survive:\n{log}");
}

#[test]
fn endless_recursion_ends_with_an_error() {
    let response =
        run("ini_set('memory_limit', '32M'); function f($n) { return f($n + 1) + 1; } f(0);")
            .send();
    assert_eq!(response.status, 500, "{response:?}");
    SERVER.expect_alive();
}

#[test]
fn deep_recursion_has_stack_enough() {
    // Each level goes through C code, so this takes the thread's own stack: megabytes.
    run("function f($n) { return $n === 0 ? 0 : array_map('f', [$n - 1])[0] + 1; } echo f(4000);")
        .send()
        .expect_text("4000");
    run("$a = []; for ($i = 0; $i < 4000; $i++) { $a = [$a]; } echo strlen(serialize($a)) > 4000 ? 'deep' : 'shallow'; unset($a); echo ' freed';")
        .send()
        .expect_text("deep freed");
}

#[test]
fn a_regular_expression_that_goes_too_deep_fails_alone() {
    run("var_dump(preg_match('/^(a|b|ab)*c/', str_repeat('ab', 50000)) !== 1);")
        .send()
        .expect_text("bool(true)\n");
    SERVER.expect_alive();
}

#[test]
fn a_user_error_ends_a_script() {
    let response =
        run("echo 'before'; trigger_error('by hand', E_USER_WARNING); echo 'after';").send();
    response.expect_text("beforeafter");
    assert!(
        response.stderr.contains("PHP Warning:  by hand"),
        "{response:?}"
    );
}

#[test]
fn long_messages_arrive() {
    let response = run("error_log(str_repeat('long ', 30000)); echo 'body';").send();
    response.expect_text("body");
    assert!(
        response.stderr.len() > 100_000,
        "{} bytes of STDERR",
        response.stderr.len()
    );
}

#[test]
fn what_one_pool_does_not_log_it_does_not_send() {
    let server = Setup::new()
        .pool("php_admin_flag[log_errors] = off")
        .start();
    let response = server.run("echo $undefined; echo 'body';").send();
    response.expect_text("body");
    assert_eq!(response.stderr, "");
}
