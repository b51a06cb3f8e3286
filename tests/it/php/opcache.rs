//! opcache: scripts are compiled once for all interpreters.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::processes::account;
use crate::support::{Server, Setup};

/// Starts a server with opcache, which distributions load and a PHP built from source does not.
fn start(setup: impl Fn() -> Setup) -> Server {
    // By default it does not keep files that are younger than two seconds.
    let fresh = ["-d", "opcache.file_update_protection=0"];
    let plain = setup().args(&fresh);
    let server = plain.start();
    if server
        .run("var_dump(function_exists('opcache_get_status'));")
        .send()
        .text()
        == "bool(true)\n"
    {
        return server;
    }
    setup()
        .args(&fresh)
        .args(&["-d", "zend_extension=opcache"])
        .start()
}

#[test]
fn scripts_are_served_from_memory() {
    let server = start(Setup::new);
    let script = server
        .run("echo json_encode(opcache_get_status(false)['opcache_statistics']['hits'] ?? null);");
    let hits = || -> u64 {
        let response = script.send();
        response
            .json()
            .as_u64()
            .unwrap_or_else(|| panic!("opcache is not on: {response:?}"))
    };
    for _ in 0..10 {
        hits();
    }
    let before = hits();
    for _ in 0..20 {
        hits();
    }
    let after = hits();
    // All interpreters share it.
    assert!(
        after >= before + 20,
        "hits were {before}, and 21 requests later {after}"
    );
}

#[test]
fn a_changed_script_is_seen() {
    let server = start(|| Setup::new().pool("php_value[opcache.revalidate_freq] = 0"));
    let path = server.file("changing.php", "<?php echo 'before';");
    for _ in 0..8 {
        server.get("/changing.php").send().expect_text("before");
    }
    server.file("changing.php", "<?php echo 'after';");
    let time = fs::metadata(&path).unwrap().modified().unwrap() + Duration::from_secs(5);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    for _ in 0..8 {
        server.get("/changing.php").send().expect_text("after");
    }
}

#[test]
fn a_script_can_be_dropped_from_memory() {
    let server = start(|| Setup::new().pool("php_admin_flag[opcache.validate_timestamps] = off"));
    server.file("fixed.php", "<?php echo 'before';");
    server.get("/fixed.php").send().expect_text("before");
    server.file("fixed.php", "<?php echo 'after';");
    server.get("/fixed.php").send().expect_text("before");
    server
        .run(&format!(
            "var_dump(opcache_invalidate('{}/fixed.php', true));",
            server.root().display()
        ))
        .send()
        .expect_text("bool(true)\n");
    server.get("/fixed.php").send().expect_text("after");
}

#[test]
fn scripts_can_be_loaded_before_all_requests() {
    let user = account().map_or(String::new(), |account| {
        format!("opcache.preload_user={account}")
    });
    let server = start(|| {
        let setup = Setup::new()
            .file(
                "preload.php",
                "<?php function preloaded() { return 'preloaded'; }",
            )
            .args(&["-d", "opcache.preload={root}/preload.php"]);
        if user.is_empty() {
            setup
        } else {
            setup.args(&["-d", &user])
        }
    });
    server
        .run("echo preloaded();")
        .send()
        .expect_text("preloaded");
}

#[test]
fn resets_under_load_do_no_harm() {
    let server = start(|| {
        let mut setup = Setup::new().children(4);
        for number in 0..20 {
            setup = setup.file(
                &format!("part-{number}.php"),
                format!("<?php class Part{number} {{ const NAME = 'part {number}'; function name() {{ return self::NAME; }} }}"),
            );
        }
        setup
    });
    let use_all = server.run(
        "for ($i = 0; $i < 20; $i++) { require __DIR__ . \"/part-$i.php\"; $class = \"Part$i\"; $names[] = (new $class)->name(); }
         echo implode(',', $names);",
    );
    let reset = server.run("opcache_reset(); echo 'reset';");
    let expected: Vec<String> = (0..20).map(|number| format!("part {number}")).collect();
    let expected = expected.join(",");
    let until = Instant::now() + Duration::from_secs(3);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while Instant::now() < until {
                    for _ in 0..20 {
                        use_all.send().expect_text(&expected);
                    }
                    reset.send().expect_text("reset");
                }
            });
        }
    });
    let log = server.log();
    assert!(!log.contains("exited"), "a process died:\n{log}");
}
