//! Sessions, with PHP's own files.

use std::fs;
use std::time::{Duration, Instant};

use super::{SERVER, run};
use crate::support::{Request, Response};

fn cookie(response: &Response) -> String {
    let cookie = response.header("Set-Cookie");
    cookie.split(';').next().unwrap().to_owned()
}

fn with_cookie(request: Request, cookie: &str) -> Request {
    request.param("HTTP_COOKIE", cookie)
}

#[test]
fn a_session_lives_from_request_to_request() {
    let count =
        run("session_start(); $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; echo $_SESSION['n'];");
    let first = count.send();
    first.expect_text("1");
    let cookie = cookie(&first);
    assert!(cookie.starts_with("PHPSESSID="), "{first:?}");
    for expected in ["2", "3", "4"] {
        let response = with_cookie(count.clone(), &cookie).send();
        response.expect_text(expected);
        assert_eq!(response.headers("Set-Cookie"), [""; 0]);
        assert!(
            response.header("Cache-Control").contains("no-store"),
            "{response:?}"
        );
    }
    let destroy = run("session_start(); session_destroy(); echo 'destroyed';");
    with_cookie(destroy, &cookie)
        .send()
        .expect_text("destroyed");
    with_cookie(count, &cookie).send().expect_text("1");
}

#[test]
fn sessions_of_two_visitors_are_two() {
    let remember = run("session_start(); $_SESSION['who'] = $_GET['who']; echo session_id();");
    let (anna, bert) = (
        remember.clone().query("who=anna").send(),
        remember.query("who=bert").send(),
    );
    assert_ne!(anna.text(), bert.text());
    let recall = run("session_start(); echo $_SESSION['who'];");
    with_cookie(recall.clone(), &cookie(&anna))
        .send()
        .expect_text("anna");
    with_cookie(recall, &cookie(&bert))
        .send()
        .expect_text("bert");
}

#[test]
fn a_session_is_locked_until_its_request_ends() {
    let first = run("session_start(); echo 1;").send();
    let cookie = cookie(&first);
    let flag = SERVER.state().join("session-flag");
    let holds = run(&format!(
        "session_start(); touch('{flag}.running'); while (!file_exists('{flag}')) {{ usleep(1000); clearstatcache(); }}
         $_SESSION['by'] = 'the first';",
        flag = flag.display()
    ));
    let mut holder = with_cookie(holds, &cookie).start();
    let running = flag.with_extension("running");
    crate::support::eventually("the script runs", || running.exists().then_some(()));
    let wants = run("session_start(); echo $_SESSION['by'] ?? 'nobody';");
    let mut waiter = with_cookie(wants, &cookie).start();
    // It waits, and so does not answer yet.
    let start = Instant::now();
    assert!(
        waiter.record_within(Duration::from_millis(200)).is_err(),
        "after {:?}",
        start.elapsed()
    );
    fs::write(&flag, "").unwrap();
    holder.response(1).expect_text("");
    waiter.response(1).expect_text("the first");
}

#[test]
fn a_failed_request_does_not_keep_the_lock() {
    let first = run("session_start(); echo 1;").send();
    let cookie = cookie(&first);
    for code in [
        "session_start(); undefined_function();",
        "session_start(); exit;",
        "session_start(); ini_set('memory_limit', '4M'); str_repeat('x', 100000000);",
    ] {
        with_cookie(run(code), &cookie).send();
        with_cookie(run("session_start(); echo 'mine';"), &cookie)
            .send()
            .expect_text("mine");
    }
}

#[test]
fn a_session_may_have_a_handler_of_its_own() {
    let path = SERVER.state().join("handler");
    run(&format!(
        "class H implements SessionHandlerInterface {{
            function open($p, $n): bool {{ return true; }}
            function close(): bool {{ return true; }}
            function read($id): string|false {{ return ''; }}
            function write($id, $data): bool {{ file_put_contents('{}', $data); return true; }}
            function destroy($id): bool {{ return true; }}
            function gc($t): int|false {{ return 0; }}
         }}
         session_set_save_handler(new H, true); session_start(); $_SESSION['a'] = 'b'; echo 'done';",
        path.display()
    ))
    .send()
    .expect_text("done");
    assert_eq!(fs::read_to_string(path).unwrap(), "a|s:1:\"b\";");
}
