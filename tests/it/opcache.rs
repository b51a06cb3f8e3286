//! opcache's memory is thrown away while requests run: `opcache_reset()`, and memory that is full of old scripts.
//!
//! Between processes opcache waits until nobody uses it. Between threads it does so from PHP 8.4 on; before, it must not be
//! done at all.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, Request, Server, Setup};

const SCRIPTS: usize = 300;

/// How long clients do their worst.
const STRESS: Duration = Duration::from_secs(3);

/// A site of many scripts, and opcache with little memory for them.
fn start() -> Server {
    let settings = [
        // Distributions load it, and a PHP that was built from source does not.
        "opcache.memory_consumption=8",
        "opcache.interned_strings_buffer=1",
        "opcache.max_wasted_percentage=1",
        // Scripts are kept even when they are new.
        "opcache.file_update_protection=0",
        "opcache.jit_buffer_size=16M",
        "opcache.jit=tracing",
    ];
    let setup = || {
        let mut setup = Setup::new().children(4);
        for setting in settings {
            setup = setup.args(&["-d", setting]);
        }
        setup
    };
    let mut server = setup().start();
    let loaded = server.run("echo json_encode(function_exists('opcache_reset'));");
    if loaded.send().text() != "true" {
        server = setup().args(&["-d", "zend_extension=opcache"]).start();
    }
    for number in 0..SCRIPTS {
        server.file(&format!("parts/{number}.php"), part(number));
    }
    server.file(
        "use.php",
        format!(
            "<?php for ($i = 0; $i < 4; $i++) {{
                 $number = ($_GET['n'] + $i) % {SCRIPTS};
                 require __DIR__ . \"/parts/$number.php\";
                 $class = \"Part$number\";
                 $names[] = (new $class)->name(3);
             }}
             echo implode(',', $names);"
        ),
    );
    server.file(
        "drop.php",
        format!(
            "<?php for ($i = 0; $i < 20; $i++) {{
                 $number = ($_GET['n'] + $i) % {SCRIPTS};
                 opcache_invalidate(__DIR__ . \"/parts/$number.php\", true);
             }}
             echo 'dropped';"
        ),
    );
    server.file("reset.php", "<?php @opcache_reset(); echo 'reset';");
    server
}

/// A class that takes some kilobytes of opcache's memory.
fn part(number: usize) -> String {
    let methods: String = (0..15)
        .map(|method| {
            format!("function method{method}($x) {{ return implode(',', array_fill(0, $x, 'text {number} {method}')); }}\n")
        })
        .collect();
    format!(
        "<?php class Part{number} {{
             const NAME = 'part {number}';
             {methods}
             function name($x) {{ return strlen($this->method1($x)) ? self::NAME : ''; }}
         }}"
    )
}

/// Clients that keep their connections get the right answers, while now and then one sends `disturbance`.
fn stress(server: &Server, disturbance: impl Fn(usize) -> (Request, &'static str) + Sync) {
    let until = Instant::now() + STRESS;
    thread::scope(|scope| {
        for client in 0..8 {
            let disturbance = &disturbance;
            scope.spawn(move || {
                let mut connection: Client = server.connect();
                // Every client goes through the scripts in a different order.
                let (mut number, step) = (client * 31, [7, 11, 13, 17][client % 4]);
                for turn in 1.. {
                    if Instant::now() >= until {
                        break;
                    }
                    number = (number + step) % SCRIPTS;
                    if turn % 20 == 0 {
                        let (request, answer) = disturbance(number);
                        connection.request(&request.keep()).expect_text(answer);
                        continue;
                    }
                    let names: Vec<String> = (number..number + 4)
                        .map(|number| format!("part {}", number % SCRIPTS))
                        .collect();
                    connection
                        .request(&server.get(&format!("/use.php?n={number}")).keep())
                        .expect_text(&names.join(","));
                }
            });
        }
    });
    let log = server.log();
    assert!(!log.contains("exited"), "a process died:\n{log}");
    server.expect_alive();
}

#[test]
fn resets_while_requests_run() {
    let server = start();
    stress(&server, |_| (server.get("/reset.php"), "reset"));
}

#[test]
fn memory_full_of_old_scripts_while_requests_run() {
    let server = start();
    stress(&server, |number| {
        (server.get(&format!("/drop.php?n={number}")), "dropped")
    });
}

#[test]
fn what_is_switched_off_is_said() {
    let server = start();
    let facts = server
        .run(
            "$status = opcache_get_status(false);
             echo json_encode([PHP_ZTS && PHP_VERSION_ID < 80400, $status['jit']['enabled'] ?? false, opcache_reset(), error_get_last()['message'] ?? '']);",
        )
        .send()
        .json();
    let warned = server.log().contains("is older than 8.4: opcache");
    let reset_failed = facts[3].as_str().unwrap().contains("older than 8.4");
    if facts[0] == true {
        assert_eq!(
            (&facts[1], &facts[2]),
            (&false.into(), &false.into()),
            "{facts}"
        );
        assert!(warned && reset_failed, "{facts}{}", server.said());
    } else {
        assert_eq!(facts[2], true, "{facts}");
        assert!(!warned && !reset_failed, "{facts}{}", server.said());
    }
}
