//! Slow and large clients cost little memory, and no interpreter.

use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::client::Socket;
use crate::support::record::{self, record};
use crate::support::request::Part;
use crate::support::{Address, Client, PATIENCE, Server, Setup, within};

/// What all of a server's processes together may take more than before.
const LIMIT: u64 = 64 << 20;

/// How soon others are answered.
const SOON: Duration = Duration::from_secs(1);

/// One after another: each of these takes much of the machine, and measures time.
static TURN: LazyLock<Mutex<()>> = LazyLock::new(|| {
    // Both ends of a thousand connections.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(soft.max(10_000)), hard).unwrap();
    Mutex::default()
});

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pool of two.
fn server() -> Server {
    let server = Setup::new()
        .children(2)
        .args(&[
            "-d",
            "post_max_size=1G",
            "-d",
            "upload_max_filesize=1G",
            "-d",
            "memory_limit=64M",
        ])
        .file("hello.php", "hello")
        // Ends when two of it run at the same time.
        .file(
            "meet.php",
            "<?php
            touch(\"{$_GET['dir']}/{$_GET['me']}\");
            for ($t = hrtime(true); hrtime(true) - $t < 5e9; usleep(500)) {
                clearstatcache();
                if (is_file(\"{$_GET['dir']}/{$_GET['you']}\")) exit('met');
            }
            echo 'alone';",
        )
        .start();
    // What starts with the first request is there before anything is measured.
    for _ in 0..3 {
        expect_free(&server);
    }
    server
}

/// Both interpreters are free.
#[track_caller]
fn expect_free(server: &Server) {
    let took = meet(server);
    assert!(
        took < SOON,
        "two ordinary requests took {took:?}: an interpreter is taken"
    );
}

/// How long two requests take that wait for each other, and so for both interpreters.
fn meet(server: &Server) -> Duration {
    static NUMBER: Mutex<u32> = Mutex::new(0);
    let number = {
        let mut number = NUMBER.lock().unwrap();
        *number += 1;
        *number
    };
    let dir = server.state();
    let dir = dir.display();
    let mut pair = [("a", "b"), ("b", "a")].map(|(me, you)| {
        server
            .get(&format!(
                "/meet.php?dir={dir}&me={me}{number}&you={you}{number}"
            ))
            .start()
    });
    let since = Instant::now();
    for client in &mut pair {
        let response = client.response(1);
        assert_eq!(response.status, 200, "{response:?}");
    }
    since.elapsed()
}

/// What these processes take and cannot give back: anonymous and shared memory.
///
/// By "proportional set size": RSS counts pages that processes share, such as opcache's, once for each process that has
/// touched them, and so grows with every process that does. Pages of files on the disk are left out: the system takes
/// those away when it needs them, and how many of libphp's are a process's own share depends on who else runs.
/// Files that are only memory (memfd) are not in either number, so they are added.
fn memory(server: &Server) -> u64 {
    let mut files = HashSet::new();
    let mut total = 0;
    for process in server.tree() {
        let text =
            fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).unwrap_or_default();
        total += text
            .lines()
            .filter_map(|line| {
                line.strip_prefix("Pss_Anon:")
                    .or(line.strip_prefix("Pss_Shmem:"))
            })
            .filter_map(|number| number.trim().strip_suffix(" kB")?.parse::<u64>().ok())
            .sum::<u64>()
            * 1024;
        let descriptors = fs::read_dir(format!("/proc/{}/fd", process.pid));
        for path in descriptors
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
        {
            let is_memory = fs::read_link(&path).is_ok_and(|target| target.starts_with("/memfd:"));
            if let (true, Ok(file)) = (is_memory, fs::metadata(&path))
                && files.insert((file.dev(), file.ino()))
            {
                total += file.blocks() * 512;
            }
        }
    }
    total
}

/// Runs this, and looks all the time at how much memory the server takes.
#[track_caller]
fn expect_little_memory(server: &Server, during: impl FnOnce()) {
    let before = memory(server);
    assert!(
        before > 1 << 20,
        "{before} bytes cannot be all that the server takes"
    );
    let done = AtomicBool::new(false);
    let peak = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = before;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(memory(server));
                std::thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        // Ends the thread if this panics.
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let end = Done(&done);
        during();
        drop(end);
        watch.join().unwrap()
    });
    let (grown, limit) = ((peak - before) >> 10, LIMIT >> 10);
    assert!(
        grown < limit,
        "memory grew by {grown} KB, {limit} are allowed ({} before)",
        before >> 10
    );
}

/// An ordinary request is answered soon.
#[track_caller]
fn expect_answer(server: &Server) {
    let since = Instant::now();
    server.get("/hello.php").send().expect_text("hello");
    let took = since.elapsed();
    assert!(took < SOON, "an ordinary request took {took:?}");
}

/// Does that again and again while something goes on.
fn expect_answers_while(server: &Server, goes_on: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let other = scope.spawn(goes_on);
        while !other.is_finished() {
            expect_answer(server);
            std::thread::sleep(Duration::from_millis(20));
        }
        other.join().unwrap();
    });
}

fn connect(server: &Server) -> UnixStream {
    let Address::Unix(path) = &server.address else {
        panic!("the server listens on a Unix socket");
    };
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

// --- Large -------------------------------------------------------------------------------------

#[test]
fn an_upload_of_256_megabytes() {
    const SIZE: usize = 256 << 20;
    let _turn = turn();
    let server = server();
    let start = b"--the-boundary\r\nContent-Disposition: form-data; name=\"file\"; filename=\"large\"\r\n\r\n";
    let end = b"\r\n--the-boundary--\r\n";
    let request = server
        .run("echo $_FILES['file']['error'], ' ', filesize($_FILES['file']['tmp_name']);")
        .method("POST")
        .param("CONTENT_TYPE", "multipart/form-data; boundary=the-boundary")
        .param(
            "CONTENT_LENGTH",
            (start.len() + SIZE + end.len()).to_string(),
        );
    expect_little_memory(&server, || {
        let mut client = request.connect();
        let mut socket = client.sender();
        socket.write_all(&request.head()).unwrap();
        socket.write_all(&record(record::STDIN, 1, start)).unwrap();
        let piece = record(record::STDIN, 1, &[b'x'; 32 << 10]);
        let send = |socket: &mut Socket, count: usize| {
            for _ in 0..count {
                socket.write_all(&piece).unwrap();
            }
        };
        let half = SIZE / (32 << 10) / 2;
        expect_answers_while(&server, || send(&mut socket, half));
        // While the client makes a pause, nobody waits for it.
        expect_free(&server);
        expect_answers_while(&server, || {
            send(&mut socket, half);
            socket.write_all(&record(record::STDIN, 1, end)).unwrap();
            socket.write_all(&record(record::STDIN, 1, b"")).unwrap();
            client.response(1).expect_text(&format!("0 {SIZE}"));
        });
    });
}

#[test]
fn a_response_of_512_megabytes() {
    const SIZE: usize = 512 << 20;
    let _turn = turn();
    let server = server();
    let request = server.run(&format!(
        "set_time_limit(0); for ($i = 0; $i < 512; $i++) echo str_repeat(chr(97 + $i % 26), 1 << 20);
         touch('{}/done');",
        server.state().display()
    ));
    expect_little_memory(&server, || {
        let mut socket = connect(&server);
        socket.write_all(&request.bytes()).unwrap();
        // The client reads nothing yet. The script comes to its end all the same.
        within(PATIENCE, "the interpreter is free", || {
            expect_answer(&server);
            server.state().join("done").exists().then_some(())
        });
        expect_free(&server);
        expect_answers_while(&server, || {
            let received = read_content(&mut socket);
            // The headers come first.
            let body = received.checked_sub(SIZE as u64);
            assert!(
                body.is_some_and(|headers| headers < 1000),
                "{received} bytes came"
            );
        });
    });
}

/// Reads records up to END_REQUEST. How many bytes of STDOUT came.
fn read_content(socket: &mut UnixStream) -> u64 {
    let mut reader = std::io::BufReader::with_capacity(1 << 18, socket);
    let mut content = vec![0; (1 << 16) + 256];
    let mut total = 0;
    loop {
        let mut header = [0; 8];
        reader.read_exact(&mut header).unwrap();
        let length = u16::from_be_bytes([header[4], header[5]]);
        let all = usize::from(length) + usize::from(header[6]);
        reader.read_exact(&mut content[..all]).unwrap();
        match header[1] {
            record::STDOUT => total += u64::from(length),
            record::END => return total,
            other => panic!(
                "a record of type {other} among STDOUT: {:?}",
                &content[..all]
            ),
        }
    }
}

// --- Slow --------------------------------------------------------------------------------------

#[test]
fn five_hundred_clients_that_read_a_kilobyte_a_second() {
    const CLIENTS: usize = 500;
    const SIZE: u64 = 512 << 10;
    let _turn = turn();
    let server = server();
    let made = server.state().join("made");
    let request = server.run(&format!(
        "echo str_repeat('x', {SIZE}); file_put_contents('{}', 'x', FILE_APPEND | LOCK_EX);",
        made.display()
    ));
    let bytes = request.bytes();
    expect_little_memory(&server, || {
        let mut clients: Vec<SlowReader> = (0..CLIENTS)
            .map(|_| {
                let mut socket = connect(&server);
                socket.write_all(&bytes).unwrap();
                SlowReader { socket, taken: 0 }
            })
            .collect();
        let seconds = |count: usize, clients: &mut [SlowReader]| {
            for _ in 0..count {
                let next = Instant::now() + Duration::from_secs(1);
                clients.iter_mut().for_each(SlowReader::take_some);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        };
        // No interpreter waits for them, so all answers are made soon, though it will take minutes to read them.
        within(Duration::from_secs(10), "all answers are made", || {
            seconds(1, &mut clients);
            let count = fs::metadata(&made).map_or(0, |file| file.len());
            (count == CLIENTS as u64).then_some(())
        });
        expect_free(&server);
        expect_answers_while(&server, || seconds(3, &mut clients));
        expect_free(&server);
        // They get all of it, if they live to see it.
        for client in clients.iter_mut().step_by(50) {
            client.socket.set_nonblocking(false).unwrap();
            let mut rest = Vec::new();
            client.socket.read_to_end(&mut rest).unwrap();
            let came = client.taken + rest.len();
            assert!(came as u64 > SIZE, "only {came} bytes came");
        }
    });
}

struct SlowReader {
    socket: UnixStream,
    taken: usize,
}

impl SlowReader {
    fn take_some(&mut self) {
        self.socket.set_nonblocking(true).unwrap();
        match self.socket.read(&mut [0; 1024]) {
            Ok(0) => panic!("a slow client's connection was closed"),
            Ok(count) => self.taken += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }
}

#[test]
fn five_hundred_clients_that_send_a_kilobyte_a_second() {
    const CLIENTS: usize = 500;
    let _turn = turn();
    let server = server();
    let request = server
        .run("echo strlen(file_get_contents('php://input'));")
        .post("text/plain", vec![b'x'; 200 << 10]);
    expect_little_memory(&server, || {
        // They have sent most of it, and go on slowly.
        let start = [
            request.head(),
            record::stream(record::STDIN, 1, &request.body[..196 << 10]),
        ]
        .concat();
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send(&start);
        }
        within(PATIENCE, "what they sent at once is dealt with", || {
            (meet(&server) < SOON).then_some(())
        });
        expect_answers_while(&server, || {
            for _ in 0..3 {
                let next = Instant::now() + Duration::from_secs(1);
                for client in &mut clients {
                    client.send(&record(record::STDIN, 1, &[b'x'; 1024]));
                }
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        expect_free(&server);
        for client in clients.iter_mut().step_by(50) {
            client.send(&record(record::STDIN, 1, &[b'x'; 1024]));
            client.send(&record(record::STDIN, 1, b""));
            client.response(1).expect_text(&(200 << 10).to_string());
        }
    });
}

// --- Idle --------------------------------------------------------------------------------------

#[test]
fn a_thousand_idle_connections() {
    const CLIENTS: usize = 1000;
    let _turn = turn();
    let server = server();
    let request = server.get("/hello.php").keep();
    expect_little_memory(&server, || {
        // Every other one has asked for something, and may ask again.
        let mut clients: Vec<Client> = (0..CLIENTS)
            .map(|number| {
                let mut client = server.connect();
                if number % 2 == 0 {
                    client.request(&request).expect_text("hello");
                }
                client
            })
            .collect();
        expect_free(&server);
        expect_answer(&server);
        for client in clients.iter_mut().step_by(25) {
            client.send(&request.bytes());
            client.response_within(1, SOON).expect_text("hello");
        }
        expect_free(&server);
    });
}

#[test]
fn a_thousand_connections_that_stop_in_the_middle_of_a_request() {
    const CLIENTS: usize = 1000;
    let _turn = turn();
    let server = server();
    let request = server.get("/hello.php").keep();
    let bytes = request.bytes();
    expect_little_memory(&server, || {
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
        // In a header, in parameters, before the end of STDIN, at a record's end and elsewhere.
        let cut = |number: usize| number % bytes.len();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(&bytes[..cut(number)]);
        }
        expect_free(&server);
        expect_answer(&server);
        for (number, client) in clients.iter_mut().enumerate().step_by(25) {
            client.send(&bytes[cut(number)..]);
            client.response_within(1, SOON).expect_text("hello");
        }
        expect_free(&server);
    });
}

// --- In the long run ---------------------------------------------------------------------------

/// Serves requests of all kinds, most of which leave something to clean up.
fn serve_all_kinds(server: &Server, rounds: usize) {
    let requests = [
        server.get("/hello.php").keep(),
        server.get("/kinds/large.php").keep(),
        server.get("/kinds/session.php").keep(),
        server.get("/kinds/fatal.php").keep(),
        server.get("/kinds/memory.php").keep(),
        server.get("/kinds/late.php").keep(),
        server.get("/kinds/handlers.php").keep(),
        server.get("/kinds/no-such-file.php").keep(),
        server
            .get("/hello.php")
            .keep()
            .param("PHP_VALUE", "precision=5\nuser_agent=agent"),
        server.get("/hello.php").keep().multipart(&[Part::file(
            "file",
            "a.txt",
            "text/plain",
            &[b'x'; 10_000],
        )]),
        server
            .get("/kinds/body.php")
            .keep()
            .post("text/plain", vec![b'x'; 80_000]),
        // Each on a connection of its own.
        server.get("/hello.php"),
    ];
    let mut kept = server.connect();
    for _ in 0..rounds {
        for request in &requests {
            match request.flags {
                0 => request.send(),
                _ => kept.request(request),
            };
        }
    }
}

fn expect_no_growth(setup: Setup) {
    const ALLOWED: u64 = 4 << 20;
    let _turn = turn();
    let server = setup
        .children(2)
        .file("hello.php", "hello")
        .file("kinds/large.php", "<?php echo str_repeat('x', 100000);")
        .file("kinds/session.php", "<?php session_start(); $_SESSION['x'] = 1; session_destroy();")
        .file("kinds/fatal.php", "<?php class A { public $a; } $a = new A; $a->a = $a; putenv('X=1'); no_such_function();")
        .file("kinds/memory.php", "<?php ini_set('memory_limit', '4M'); str_repeat('x', 16 << 20);")
        .file("kinds/late.php", "<?php fastcgi_finish_request(); echo 'late'; exit;")
        .file(
            "kinds/handlers.php",
            "<?php set_error_handler(fn () => true); ob_start(fn ($text) => $text); setlocale(LC_ALL, 'C.UTF-8');
             stream_filter_register('x', 'Filter'); class Filter extends php_user_filter {}
             register_shutdown_function(fn () => trigger_error('x')); throw new Exception('x');",
        )
        .file("kinds/body.php", "<?php echo strlen(file_get_contents('php://input'));")
        .start();
    // An interpreter is small when it is fresh, and there may be one more for a moment: the middle of many looks counts.
    let middle_of_25_looks = || {
        let mut looks: Vec<u64> = (0..25)
            .map(|_| {
                serve_all_kinds(&server, 1);
                memory(&server)
            })
            .collect();
        looks.sort_unstable();
        looks[12]
    };
    let before = middle_of_25_looks();
    serve_all_kinds(&server, 75);
    let after = middle_of_25_looks();
    let (grown, allowed) = (after.saturating_sub(before) >> 10, ALLOWED >> 10);
    assert!(
        grown < allowed,
        "1200 requests made memory grow by {grown} KB, from {} KB",
        before >> 10
    );
}

#[test]
fn many_requests_take_no_more_memory_than_some() {
    expect_no_growth(Setup::new());
}

#[test]
fn many_fresh_interpreters_take_no_more_memory_than_some() {
    expect_no_growth(Setup::new().pool("pm.max_requests = 10"));
}
