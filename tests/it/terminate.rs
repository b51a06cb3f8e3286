//! `request_terminate_timeout`: what runs for too long is ended, and nothing else is.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::support::{PATIENCE, Server, Setup, eventually};

/// How soon an answer must be there after a limit of one second, on a machine that has other things to do. What is ended here
/// would go on for longer.
const SOON: Duration = Duration::from_secs(7);

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Setup::new()
        .children(12)
        .pool("request_terminate_timeout = 1s\nphp_value[max_execution_time] = 0")
        .start_shared()
});

/// Runs code that would go on for 30 seconds or for ever: the client is told in time, the log says what it was, and the
/// interpreter is free again.
fn expect_end(name: &str, code: &str) {
    let done = expect_answer(name, code);
    eventually("the script has ended", || done.exists().then_some(()));
}

/// The same, but for the end: gives the file that the script's shutdown makes.
fn expect_answer(name: &str, code: &str) -> PathBuf {
    let done = SERVER.state().join(name);
    let request = SERVER
        .run(&format!(
            "register_shutdown_function(function () {{ touch('{}'); }}); {code}",
            done.display()
        ))
        .param("REQUEST_URI", format!("/{name}?x=1"));
    let start = Instant::now();
    let response = request.send();
    let took = start.elapsed();
    assert_eq!(response.status, 504, "{name}: {response:?}");
    assert!(took < SOON, "{name}: the answer took {took:?}");
    assert!(
        took >= Duration::from_secs(1),
        "{name}: ended after {took:?}"
    );
    SERVER.expect_log(&[
        "WARNING: [pool www] child",
        &format!("(request: \"GET /{name}?x=1\") execution timed out"),
        "terminating",
    ]);
    done
}

#[test]
fn an_endless_loop_is_ended() {
    expect_end("loop", "while (true);");
}

#[test]
fn a_script_that_sleeps_is_ended() {
    expect_end("sleep", "sleep(30);");
}

#[test]
fn a_script_that_waits_for_a_lock_is_ended() {
    let path = SERVER.state().join("lock");
    let file = std::fs::File::create(&path).unwrap();
    let _held = Flock::lock(file, FlockArg::LockExclusive).unwrap();
    expect_end(
        "flock",
        &format!("flock(fopen('{}', 'r'), LOCK_SH);", path.display()),
    );
}

#[test]
fn the_client_of_a_script_that_waits_for_another_server_is_told() {
    // PHP goes on waiting until its own time-out, whatever interrupts it; nobody else has to.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    expect_answer(
        "socket",
        &format!(
            "$socket = stream_socket_client('tcp://{}'); stream_set_timeout($socket, 8); fread($socket, 1);",
            listener.local_addr().unwrap()
        ),
    );
}

#[test]
fn a_regular_expression_that_backtracks_is_ended() {
    expect_end(
        "regex",
        "ini_set('pcre.jit', 0); ini_set('pcre.backtrack_limit', 1 << 40);
         for (;;) preg_match('/^(a+)+$/', str_repeat('a', 22) . 'b');",
    );
}

#[test]
fn an_answer_that_has_begun_ends_where_it_is() {
    let response = SERVER.run("echo 'begun'; flush(); while (true);").send();
    assert_eq!(response.status, 200);
    assert!(response.text().starts_with("begun"), "{response:?}");
}

#[test]
fn a_request_that_waits_for_its_turn_has_time() {
    let server = Setup::new()
        .children(1)
        .pool("request_terminate_timeout = 2s")
        .start();
    let request = server.run("usleep(900000); echo 'done';");
    let mut clients: Vec<_> = (0..4).map(|_| request.start()).collect();
    for client in &mut clients {
        client.response_within(1, PATIENCE).expect_text("done");
    }
}

#[test]
fn others_go_on_while_one_is_ended() {
    let slow = SERVER.run("while (true);").start();
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        SERVER.expect_alive();
    }
    drop(slow);
}
