//! How a script ends, and what still runs then.

use std::fs;
use std::time::Duration;

use super::{SERVER, run};
use crate::support::{PATIENCE, Setup, eventually, within};

#[test]
fn exit_ends_a_script_anywhere() {
    SERVER.file("exits.php", "<?php echo 'before '; exit('said');");
    for (code, expected) in [
        ("echo 'before '; exit('said'); echo 'never';", "before said"),
        ("echo 'before '; exit(3); echo 'never';", "before "),
        ("echo 'before '; exit; echo 'never';", "before "),
        (
            "function f() { echo 'before '; exit('said'); } f(); echo 'never';",
            "before said",
        ),
        ("include 'exits.php'; echo 'never';", "before said"),
        ("ob_start(); echo 'before '; exit('said');", "before said"),
        (
            "try { echo 'before '; exit('said'); } finally { echo 'never'; }",
            "before said",
        ),
        (
            "function g() { yield 1; echo 'before '; exit('said'); } foreach (g() as $x); echo 'never';",
            "before said",
        ),
        (
            "array_map(function () { echo 'before '; exit('said'); }, [1, 2]); echo 'never';",
            "before said",
        ),
        (
            "set_error_handler(function () { echo 'before '; exit('said'); }); echo $undefined; echo 'never';",
            "before said",
        ),
        (
            "class A { function __destruct() { echo 'before '; exit('said'); } } $a = new A; unset($a); echo 'never';",
            "before said",
        ),
        (
            "class A { function __destruct() { echo 'at the end '; exit('said'); } } $a = new A; echo 'first ';",
            "first at the end said",
        ),
        (
            "register_shutdown_function(function () { echo 'then '; exit('said'); }); echo 'first ';",
            "first then said",
        ),
        (
            "register_shutdown_function(function () { echo 'then'; }); echo 'first '; exit;",
            "first then",
        ),
        (
            "ob_start(function ($b) { return \"[$b]\"; }); echo 'before '; exit('said');",
            "[before said]",
        ),
        (
            "set_exception_handler(function () { echo 'before '; exit('said'); }); throw new Exception;",
            "before said",
        ),
    ] {
        let response = run(code).keep().send();
        response.expect_text(expected);
        assert_eq!(response.app_status, 0, "after {code}");
    }
}

#[test]
fn shutdown_functions_and_destructors_still_write() {
    run(
        "class A { function __destruct() { echo 'destructor '; } }
         $a = new A;
         register_shutdown_function(function () { echo 'first '; register_shutdown_function(function () { echo 'nested '; }); });
         register_shutdown_function(function () { echo 'second '; });
         echo 'script ';",
    )
    .send()
    .expect_text("script first second nested destructor ");
}

#[test]
fn headers_may_be_set_as_late_as_in_a_shutdown_function() {
    let response = run("register_shutdown_function(function () { http_response_code(404); header('X-Late: yes'); });").send();
    assert_eq!((response.status, response.header("X-Late")), (404, "yes"));
}

#[test]
fn after_fastcgi_finish_request_the_script_goes_on() {
    let (flag, done) = (
        SERVER.state().join("finish-flag"),
        SERVER.state().join("finish-done"),
    );
    let request = run(&format!(
        "register_shutdown_function(function () {{ echo 'late'; file_put_contents('{done}', 'shutdown', FILE_APPEND); }});
         header('X-A: 1'); echo 'early';
         $first = fastcgi_finish_request();
         echo 'late'; flush(); header('X-Late: 1'); error_log('late');
         while (!file_exists('{flag}')) {{ usleep(1000); clearstatcache(); }}
         $body = file_get_contents('php://input');
         file_put_contents('{done}', var_export([$first, $body], true), FILE_APPEND);",
        flag = flag.display(),
        done = done.display(),
    ))
    .post("text/plain", "the body")
    .keep();
    let mut client = request.connect();
    // The answer is complete while the script waits.
    let response = client.request(&request);
    response.expect_text("early");
    assert_eq!(response.headers("X-Late"), [""; 0]);
    assert_eq!(response.stderr, "");
    fs::write(&flag, "").unwrap();
    let text = eventually("the script ends", || {
        fs::read_to_string(&done)
            .ok()
            .filter(|text| text.ends_with("shutdown"))
    });
    assert!(
        text.contains("0 => true") && text.contains("the body"),
        "{text}"
    );
    // The connection serves on.
    client.request(&SERVER.get("/missing.php").keep());
    client.expect_alive();
}

#[test]
fn fastcgi_finish_request_sends_buffered_output() {
    run("ob_start(); ob_start(); echo 'buffered'; fastcgi_finish_request(); echo 'late';")
        .send()
        .expect_text("buffered");
}

#[test]
fn a_script_may_go_on_without_its_client() {
    let done = SERVER.state().join("ignored");
    let code = format!(
        "ignore_user_abort(true);
         touch('{done}.running');
         while (!connection_aborted()) {{ echo 'x'; flush(); usleep(2000); }}
         file_put_contents('{done}', connection_status() . ' ' . ignore_user_abort());",
        done = done.display()
    );
    let client = run(&code).start();
    let running = done.with_extension("running");
    eventually("the script runs", || running.exists().then_some(()));
    drop(client);
    let text = within(PATIENCE / 3, "the script goes on to its end", || {
        fs::read_to_string(&done)
            .ok()
            .filter(|text| !text.is_empty())
    });
    assert_eq!(text, "1 1");
}

#[test]
fn connection_status_is_normal_as_long_as_the_client_is_there() {
    run("echo 'x'; flush(); echo connection_status(), connection_aborted(), (int) ignore_user_abort();")
        .send()
        .expect_text("x000");
}

#[test]
fn a_time_limit_ends_a_script_that_does_not() {
    let code = "set_time_limit(1); register_shutdown_function(function () { echo 'shutdown'; }); while (true);";
    let response = run(code).send();
    assert!(
        response
            .stderr
            .contains("Maximum execution time of 1 second exceeded"),
        "{response:?}"
    );
    response.expect(500, "shutdown");
    // One request's limit is not another's.
    run("usleep(1200000); $until = hrtime(true) + 1200000000; while (hrtime(true) < $until); echo 'done';")
        .send()
        .expect_text("done");
}

#[test]
fn time_limits_of_requests_at_the_same_time_are_their_own() {
    let server = Setup::new().children(4).start();
    let spin = |limit, time: &str| {
        server.run(&format!(
            "set_time_limit({limit}); $until = hrtime(true) + {time}; while (hrtime(true) < $until); echo 'done';"
        ))
    };
    let mut short = spin(1, "60e9").start();
    let mut long = spin(60, "3e9").start();
    let mut none = spin(0, "3e9").start();
    let response = short.response(1);
    assert!(
        response
            .stderr
            .contains("Maximum execution time of 1 second exceeded"),
        "{response:?}"
    );
    long.response(1).expect_text("done");
    none.response(1).expect_text("done");
}

#[test]
fn max_execution_time_of_the_pool_holds() {
    let server = Setup::new()
        .children(1)
        .pool("php_value[max_execution_time] = 1")
        .start();
    for _ in 0..2 {
        let response = server.run("while (true);").send();
        assert!(
            response
                .stderr
                .contains("Maximum execution time of 1 second exceeded"),
            "{response:?}"
        );
        assert_eq!(response.status, 500);
    }
    server.run("set_time_limit(0); $until = hrtime(true) + 1500000000; while (hrtime(true) < $until); echo 'done';")
        .send()
        .expect_text("done");
    server.expect_alive();
}

#[test]
fn sleep_is_not_interrupted() {
    let start = std::time::Instant::now();
    run("echo sleep(1), ' ', time_nanosleep(0, 200000000) === true ? 'whole' : 'cut';")
        .send()
        .expect_text("0 whole");
    assert!(start.elapsed() >= Duration::from_millis(1200));
}

#[test]
fn children_of_a_script_leave_the_answer_alone() {
    let code = "if (!function_exists('pcntl_fork')) { echo 'parent'; return; }
        echo 'parent';
        $pid = pcntl_fork();
        if ($pid === 0) { echo str_repeat('child', 20000); flush(); exit(3); }
        pcntl_waitpid($pid, $status);
        if (pcntl_wexitstatus($status) !== 3) { echo pcntl_wexitstatus($status); }";
    let request = run(code).keep();
    let mut client = request.connect();
    for _ in 0..3 {
        client.request(&request).expect_text("parent");
    }
    client.expect_alive();
}

#[test]
fn a_script_may_handle_signals() {
    // Of a process with threads nobody knows which one the alarm reaches.
    run(
        "if (PHP_ZTS || !function_exists('pcntl_alarm')) { echo 'rang'; return; }
         pcntl_async_signals(true);
         pcntl_signal(SIGALRM, function () { global $rang; $rang = true; });
         pcntl_alarm(1);
         for ($i = 0; $i < 500 && empty($rang); $i++) { usleep(10000); }
         pcntl_signal(SIGALRM, SIG_DFL);
         echo empty($rang) ? 'did not ring' : 'rang';",
    )
    .send()
    .expect_text("rang");
}

#[test]
fn programs_can_be_run() {
    run("exec('echo one; exit 4', $lines, $code); echo $lines[0], $code, shell_exec('echo two'), trim(`echo three`);
         $p = proc_open(['cat'], [['pipe', 'r'], ['pipe', 'w']], $pipes); fwrite($pipes[0], ' four'); fclose($pipes[0]);
         echo stream_get_contents($pipes[1]), proc_close($p);")
    .send()
    .expect_text("one4two\nthree four0");
}
