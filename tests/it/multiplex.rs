//! Several requests at once on one connection. With an ordinary PHP a process runs one after the other; with a thread-safe
//! one they run side by side.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::support::record::{ABORT, REQUEST_COMPLETE, STDIN, record};
use super::support::{Request, Server, Setup, eventually};

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Setup::new()
        .children(8)
        .file(
            "echo.php",
            "<?php usleep(5000); echo file_get_contents('php://input');",
        )
        .start_shared()
});

/// Whether requests of one connection run side by side: PHP says whether it has threads.
pub(crate) fn is_thread_safe() -> bool {
    static ANSWER: LazyLock<bool> =
        LazyLock::new(|| SERVER.run("echo PHP_ZTS;").send().text() == "1");
    *ANSWER
}

/// A request that runs until the file is there.
fn wait_for(flag: &str) -> Request {
    SERVER.run(&format!(
        "while (!file_exists('{}')) {{ usleep(2000); clearstatcache(); }} echo 'slow';",
        SERVER.state().join(flag).display()
    ))
}

#[test]
fn the_quick_one_of_two_requests_answers_first() {
    if !is_thread_safe() {
        return;
    }
    let mut client = SERVER.connect();
    client.send(&wait_for("quick").keep().id(1).bytes());
    client.send(&SERVER.run("echo 'quick';").keep().id(2).bytes());
    client.response(2).expect_text("quick");
    std::fs::write(SERVER.state().join("quick"), "").unwrap();
    client.response(1).expect_text("slow");
}

#[test]
fn fifty_streams_with_interleaved_bodies_are_all_right() {
    let requests: Vec<Request> = (1..=50)
        .map(|id: u16| {
            let body = format!("[{id}]").repeat(500 + usize::from(id) * 100);
            SERVER
                .get("/echo.php")
                .post("text/plain", body)
                .keep()
                .id(id)
        })
        .collect();
    let mut client = SERVER.connect();
    for request in &requests {
        client.send(&request.head());
    }
    let mut at = 0;
    while requests.iter().any(|request| at <= request.body.len()) {
        for request in requests.iter().filter(|request| at <= request.body.len()) {
            let piece = &request.body[at..request.body.len().min(at + 333)];
            client.send(&record(STDIN, request.id, piece));
            if piece.len() < 333 && !piece.is_empty() {
                client.send(&record(STDIN, request.id, b""));
            }
        }
        at += 333;
    }
    for request in &requests {
        let response = client.response(request.id);
        assert!(
            response.body == request.body,
            "stream {}: {response:?}",
            request.id
        );
    }
}

#[test]
fn an_abort_ends_one_running_request_and_spares_the_rest() {
    if !is_thread_safe() {
        return;
    }
    let mut client = SERVER.connect();
    for id in 1..=4 {
        client.send(&wait_for("abort").keep().id(id).bytes());
    }
    let start = Instant::now();
    client.send(&record(ABORT, 2, b""));
    let response = client.response(2);
    assert_eq!(response.protocol_status, REQUEST_COMPLETE);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "after {:?}",
        start.elapsed()
    );
    std::fs::write(SERVER.state().join("abort"), "").unwrap();
    for id in [1, 3, 4] {
        client.response(id).expect_text("slow");
    }
}

#[test]
fn a_large_answer_does_not_hold_up_a_small_one() {
    if !is_thread_safe() {
        return;
    }
    let mut client = SERVER.connect();
    let large = SERVER.run("for ($i = 0; $i < 300; $i++) { echo str_repeat('x', 65536); }");
    client.send(&large.keep().id(1).bytes());
    client.send(
        &SERVER
            .run("usleep(20000); echo 'small';")
            .keep()
            .id(2)
            .bytes(),
    );
    // Both are complete, and the small one need not wait for the end of the large one.
    let small = client.response(2);
    small.expect_text("small");
    assert_eq!(client.response(1).body.len(), 300 << 16);
}

#[test]
fn answers_that_waited_in_files_do_not_run_into_each_other() {
    // The client reads nothing until both answers are made, which is more than anybody keeps in memory.
    let answer = |id: u16, letter: char, length: u32| {
        let made = SERVER.state().join(format!("made-{letter}"));
        let code = format!(
            "for ($i = 0; $i < {length}; $i++) echo str_repeat('{letter}', 10007); flush(); touch('{}');",
            made.display()
        );
        (SERVER.run(&code).keep().id(id), made)
    };
    let (large, large_made) = answer(1, 'x', 300);
    let (small, small_made) = answer(2, 'y', 100);
    let mut client = SERVER.connect();
    client.send(&large.bytes());
    client.send(&small.bytes());
    eventually("both answers are made", || {
        (large_made.exists() && small_made.exists()).then_some(())
    });
    assert!(client.response(1).text() == "x".repeat(300 * 10007));
    assert!(client.response(2).text() == "y".repeat(100 * 10007));
}
