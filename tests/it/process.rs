//! Processes: how they start, who they are, how they end, and what becomes of requests meanwhile.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::client::NoRecord;
use crate::support::processes::{self, Process, account};
use crate::support::record::OVERLOADED;
use crate::support::server::{binary, directory, free_port, spawn, write};
use crate::support::{
    Address, Client, PATIENCE, Request, Response, Server, Setup, eventually, within,
};

/// How soon a process that died is replaced, and others are answered meanwhile.
const SECOND: Duration = Duration::from_secs(1);

/// "At once", on a machine that has other things to do.
const AT_ONCE: Duration = Duration::from_secs(2);

// --- What the tests are made of ----------------------------------------------------------------

/// A request that runs until it is let go.
struct Held {
    client: Client,
    /// The process it runs in.
    pid: i32,
    uri: String,
    go: PathBuf,
}

impl Held {
    /// Returns when the script runs.
    fn start(server: &Server) -> Self {
        let mut held = Self::send(server);
        held.await_start();
        held
    }

    /// Returns when the request is sent. It may have to wait for its turn.
    fn send(server: &Server) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let go = server.state().join(format!("go-{number}"));
        let path = go.display();
        let request = server
            .run(&format!(
                "file_put_contents('{path}.pid', getmypid());
                 rename('{path}.pid', '{path}.started');
                 set_time_limit(0);
                 while (!file_exists('{path}')) usleep(1000);
                 echo 'finished';"
            ))
            .query(&format!("held={number}"));
        Self {
            uri: request.text("REQUEST_URI"),
            client: request.start(),
            pid: 0,
            go,
        }
    }

    fn await_start(&mut self) {
        let started = self.go.with_extension("started");
        self.pid = eventually("the script runs", || {
            fs::read_to_string(&started).ok()?.parse().ok()
        });
    }

    fn let_go(&self) {
        fs::write(&self.go, "").unwrap();
    }

    #[track_caller]
    fn finish(mut self) {
        self.let_go();
        self.client.response(1).expect_text("finished");
    }

    /// The answer never came to its end.
    #[track_caller]
    fn expect_cut(mut self, limit: Duration) {
        match self.client.try_response(1, limit) {
            Err((NoRecord::Closed(_), _)) => {}
            other => panic!("expected the end of the connection within {limit:?}, came: {other:?}"),
        }
    }
}

fn is_threaded(server: &Server) -> bool {
    server.run("echo (int) PHP_ZTS;").send().text() == "1"
}

/// The processes that have the same parent.
fn siblings(server: &Server, parent: i32) -> Vec<Process> {
    let mut tree = server.tree();
    tree.retain(|process| process.parent == parent && process.pid != server.pid);
    tree
}

/// A server without the harness's care, ended when this is dropped.
pub(crate) struct Loose(i32);

impl Drop for Loose {
    fn drop(&mut self) {
        let tree = processes::tree(self.0);
        processes::kill(self.0, libc::SIGTERM);
        let start = Instant::now();
        while Process::find(self.0).is_some() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        for process in tree.iter().filter(|process| process.is_alive()) {
            processes::kill(process.pid, libc::SIGKILL);
        }
    }
}

/// Runs the binary under test to its end.
fn run(args: &[&str]) -> Output {
    let dir = directory();
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| dir.path().join(name));
    let mut command = Command::new(binary());
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(File::create(&stdout).unwrap())
        .stderr(File::create(&stderr).unwrap());
    let status = finish(command, &format!("{args:?}"));
    Output {
        status,
        stdout: fs::read(stdout).unwrap(),
        stderr: fs::read(stderr).unwrap(),
    }
}

fn finish(command: Command, what: &str) -> ExitStatus {
    let mut child = spawn(command);
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > PATIENCE {
            drop(Loose(child.id().cast_signed()));
            panic!("not at its end within {PATIENCE:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// It ended with this code and printed all of this, to standard output or standard error.
#[track_caller]
fn expect_output(output: &Output, code: i32, words: &[&str]) {
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(code),
        "expected exit code {code}; it said:\n{said}"
    );
    for word in words {
        assert!(said.contains(word), "expected {word:?}; it said:\n{said}");
    }
}

// --- Who they are ------------------------------------------------------------------------------

#[test]
fn privileges_are_gone_before_the_first_request() {
    let server = Setup::new()
        .children(2)
        .file("secret.php", "<?php echo 'a secret';")
        .start();
    fs::set_permissions(
        server.root().join("secret.php"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let first = server
        .run("echo json_encode([posix_getuid(), posix_geteuid(), posix_getgid(), posix_getegid(), posix_getgroups()]);")
        .send()
        .json();
    let user = match account() {
        Some(name) => nix::unistd::User::from_name(name).unwrap().unwrap(),
        None => nix::unistd::User::from_uid(nix::unistd::getuid())
            .unwrap()
            .unwrap(),
    };
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    assert_eq!(
        first.as_array().unwrap()[..4],
        [uid, uid, gid, gid].map(serde_json::Value::from),
        "expected PHP to run as {}, came {first}",
        user.name
    );
    if account().is_none() {
        return;
    }
    assert_eq!(
        first[4],
        serde_json::json!([gid]),
        "supplementary groups: {first}"
    );
    for process in server.tree() {
        let (uids, caps) = (process.status("Uid"), process.status("CapEff"));
        if process.pid == server.pid {
            assert!(
                uids.starts_with("0\t"),
                "the supervisor is no longer root: {uids}"
            );
            continue;
        }
        let four = [
            uid.to_string(),
            uid.to_string(),
            uid.to_string(),
            uid.to_string(),
        ];
        assert_eq!(
            uids,
            four.join("\t"),
            "real, effective, saved and fs user of {process:?}"
        );
        assert_eq!(caps, "0000000000000000", "capabilities of {process:?}");
    }
    let secret = server.get("/secret.php").send();
    assert!(
        secret.status != 200 && !secret.text().contains("a secret"),
        "a file that only root may read was read: {secret:?}"
    );
}

#[test]
fn a_pool_may_have_a_group_of_its_own() {
    if account().is_none() {
        return; // Only root can give one.
    }
    let server = Setup::new().children(1).pool("group = 54321").start();
    server
        .run("echo posix_getgid(), ' ', posix_getegid(), ' ', in_array(54321, posix_getgroups()) ? 'yes' : 'no';")
        .send()
        .expect_text("54321 54321 yes");
}

#[test]
fn root_runs_no_php_unless_it_is_told_to() {
    if account().is_none() {
        return; // Only root is asked.
    }
    let dir = directory();
    let path = dir.path().join("config");
    let pool = "pm = static\npm.max_children = 1\n";
    let socket = dir.path().join("socket");
    for (user, named) in [
        ("", "user"),
        ("user = root\n", "user"),
        ("user = nobody\ngroup = root\n", "group"),
    ] {
        write(
            &path,
            format!(
                "[global]\nerror_log = /dev/stderr\n[www]\nlisten = {}\n{user}{pool}",
                socket.display()
            ),
        );
        let output = run(&["-F", "-y", path.to_str().unwrap()]);
        expect_output(&output, 78, &[named, "www"]);
    }
}

// --- Where they listen -------------------------------------------------------------------------

#[test]
fn pools_have_settings_processes_and_sockets_of_their_own() {
    let server = Setup::new()
        .children(1)
        .pool("env[NAME] = first")
        .more(&format!(
            "[second]\n{}listen = {{dir}}/second\nlisten.mode = 0666\npm = static\npm.max_children = 1\n\
             env[NAME] = second\nphp_value[precision] = 5",
            Setup::account_lines()
        ))
        .start();
    let first = server.run("echo json_encode([getenv('NAME'), ini_get('precision'), getmypid()]);");
    let uri = first.text("REQUEST_URI");
    let second = Request::get(
        &Address::Unix(server.dir().join("second")),
        &server.root(),
        &uri,
    );
    let (first, second) = (first.send().json(), second.send().json());
    assert_eq!(
        (first[0].as_str(), first[1].as_str()),
        (Some("first"), Some("14")),
        "{first}"
    );
    assert_eq!(
        (second[0].as_str(), second[1].as_str()),
        (Some("second"), Some("5")),
        "{second}"
    );
    assert_ne!(first[2], second[2], "two pools in one process");
}

#[test]
fn a_busy_pool_does_not_hold_up_another() {
    let server = Setup::new()
        .children(1)
        .more(&format!(
            "[second]\n{}listen = {{dir}}/second\nlisten.mode = 0666\npm = static\npm.max_children = 1",
            Setup::account_lines()
        ))
        .start();
    server.file("hello.php", "hello");
    let held = Held::start(&server);
    let address = Address::Unix(server.dir().join("second"));
    let mut client = Request::get(&address, &server.root(), "/hello.php").start();
    client.response_within(1, AT_ONCE).expect_text("hello");
    held.finish();
}

#[test]
fn tcp_over_ipv4() {
    let server = Setup::new()
        .tcp((Ipv4Addr::LOCALHOST, free_port()).into())
        .start();
    server.expect_alive();
}

#[test]
fn tcp_over_ipv6() {
    let server = Setup::new()
        .tcp((Ipv6Addr::LOCALHOST, free_port()).into())
        .start();
    server.expect_alive();
}

#[test]
fn a_port_alone_means_every_address() {
    let port = free_port();
    let server = Setup::new()
        .tcp((Ipv4Addr::LOCALHOST, port).into())
        .listen(&port.to_string())
        .start();
    let request = server.run("echo 'alive';");
    request.send().expect_text("alive");
    let six = Address::Tcp((Ipv6Addr::LOCALHOST, port).into());
    Request::get(&six, &server.root(), &request.text("REQUEST_URI"))
        .send()
        .expect_text("alive");
}

#[test]
fn the_sockets_mode_is_as_told() {
    let server = Setup::new().children(1).pool("listen.mode = 0620").start();
    let mode = fs::metadata(server.dir().join("socket")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o620, "the socket's mode is {mode:o}");
    server.expect_alive();
}

#[test]
fn the_sockets_owner_and_group_are_as_told() {
    if account().is_none() {
        return; // Only root can give files away.
    }
    let server = Setup::new()
        .children(1)
        .pool("listen.owner = nobody\nlisten.group = 54321\nlisten.mode = 0600")
        .start();
    let socket = fs::metadata(server.dir().join("socket")).unwrap();
    let nobody = nix::unistd::User::from_name("nobody")
        .unwrap()
        .unwrap()
        .uid
        .as_raw();
    assert_eq!(
        (socket.uid(), socket.gid(), socket.mode() & 0o777),
        (nobody, 54321, 0o600),
        "owner, group and mode of the socket"
    );
    server.expect_alive();
}

/// Sends the request from this address. All that came back, before the connection was closed.
fn send_from(source: Ipv4Addr, to: SocketAddr, request: &Request) -> Vec<u8> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // Where nobody is let in, the connection may be closed already.
    let _ = (&socket).write_all(&request.bytes());
    let mut answer = Vec::new();
    match (&socket).read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
            panic!("expected an answer or the end of the connection, came: {error}")
        }
        _ => answer,
    }
}

#[test]
fn only_allowed_clients_are_let_in() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let server = Setup::new()
        .children(1)
        .tcp(address)
        .pool("listen.allowed_clients = 127.0.0.2,127.0.0.3")
        .start();
    let request = server.run("echo 'let in';");
    for source in [2, 3] {
        let answer = send_from(Ipv4Addr::new(127, 0, 0, source), address, &request);
        let answer = text(&answer);
        assert!(
            answer.contains("let in"),
            "127.0.0.{source} is allowed, but got {answer:?}"
        );
    }
    for source in [1, 4] {
        let answer = send_from(Ipv4Addr::new(127, 0, 0, source), address, &request);
        assert!(
            answer.is_empty(),
            "127.0.0.{source} is not allowed, but got {:?}",
            text(&answer)
        );
        server.expect_log(&["WARNING", &format!("'127.0.0.{source}'")]);
    }
}

#[test]
fn a_client_that_is_gone_before_it_was_let_in_is_not_served() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let server = Setup::new()
        .children(1)
        .tcp(address)
        .pool("listen.allowed_clients = 127.0.0.2")
        .start();
    let mark = server.state().join("served");
    let request = server.run(&format!("touch('{}');", mark.display()));
    // While nobody accepts, the client sends a whole request and resets the connection: then the socket has no peer any more.
    let tree = server.tree();
    for process in tree.iter().skip(1) {
        processes::kill(process.pid, libc::SIGSTOP);
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.connect(&address.into()).unwrap();
    (&socket).write_all(&request.bytes()).unwrap();
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
    for process in tree.iter().skip(1) {
        processes::kill(process.pid, libc::SIGCONT);
    }
    server.expect_log(&["WARNING", "'127.0.0.1'"]);
    let allowed = server.run("echo 'let in';");
    let answer = send_from(Ipv4Addr::new(127, 0, 0, 2), address, &allowed);
    assert!(text(&answer).contains("let in"), "{:?}", text(&answer));
    assert!(!mark.exists(), "a client that may not connect was served");
}

#[test]
fn allowed_clients_compares_the_whole_of_an_ipv6_address() {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, free_port()));
    let server = Setup::new()
        .children(1)
        .tcp(address)
        .pool("listen.allowed_clients = ::2")
        .start();
    let request = server.run("echo 'let in';");
    let mut client = request.connect();
    let _ = client.try_send(&request.bytes());
    client.expect_close(PATIENCE);
    server.expect_log(&["WARNING", "'::1'"]);

    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, free_port()));
    let server = Setup::new()
        .children(1)
        .tcp(address)
        .pool("listen.allowed_clients = ::1")
        .start();
    server.expect_alive();
}

#[test]
fn two_servers_do_not_take_each_others_socket() {
    let server = Setup::new().children(1).start();
    let config = server.dir().join("config");
    let output = run(&["-F", "-O", "-y", config.to_str().unwrap()]);
    assert_ne!(
        output.status.code(),
        Some(0),
        "a second server on one socket: {output:?}"
    );
    let socket = server.dir().join("socket");
    let said = text(&output.stderr) + &server.log();
    assert!(
        said.contains(socket.to_str().unwrap()),
        "the message names no socket: {said}"
    );
    server.expect_alive();
}

// --- Their files -------------------------------------------------------------------------------

#[test]
fn the_pid_file_is_there_while_the_server_is() {
    let mut server = Setup::new().children(1).global("pid = {dir}/pid").start();
    let path = server.dir().join("pid");
    assert_eq!(
        fs::read_to_string(&path).unwrap().trim(),
        server.pid.to_string()
    );
    server.stop(libc::SIGQUIT, PATIENCE);
    assert!(!path.exists(), "the pid file is left behind");
}

#[test]
fn the_error_log_reads_like_php_fpms() {
    let server = Setup::new().children(1).start();
    server
        .run("error_log('said by a script'); echo $nothing;")
        .send();
    let ready = server.expect_log(&["NOTICE: ready to handle connections"]);
    server.expect_log(&["PHP message: said by a script"]);
    server.expect_log(&["PHP message: PHP Warning:  Undefined variable $nothing"]);
    let pattern = "[dd-Mmm-dddd dd:dd:dd] NOTICE: ready to handle connections";
    let matches = ready.len() == pattern.len()
        && ready
            .chars()
            .zip(pattern.chars())
            .all(|(found, wanted)| match wanted {
                'd' if found.is_ascii_digit() => true,
                'M' => found.is_ascii_uppercase(),
                'm' => found.is_ascii_lowercase(),
                _ => found == wanted,
            });
    assert!(matches, "expected a line like {pattern:?}, came {ready:?}");
}

#[test]
fn a_script_cannot_forge_lines_of_the_log() {
    let server = Setup::new().children(1).start();
    server
        .run(r#"error_log("one\n[24-Nov-2026 00:00:00] ALERT: forged\r\nmore\x1b[31m");"#)
        .send();
    server.expect_log(&["PHP message: ", "one"]);
    server.expect_log(&["more"]);
    let log = server.log();
    let forged = log
        .lines()
        .find(|line| line.starts_with("[24-Nov-2026 00:00:00]"));
    assert_eq!(forged, None, "in the log:\n{log}");
    assert!(
        !log.contains('\x1b') && !log.contains('\r'),
        "control characters in the log:\n{log:?}"
    );
}

// --- When one dies -----------------------------------------------------------------------------

/// Kills the process that runs a request. Another one takes its place within a second, and the log says what happened.
fn expect_replacement(kill: impl FnOnce(&Held), why: &str) {
    let server = Setup::new().children(2).start();
    let threaded = is_threaded(&server);
    let held = Held::start(&server);
    let bystander = (!threaded).then(|| Held::start(&server));
    let (pid, uri) = (held.pid, held.uri.clone());
    let killed = Process::find(pid).expect("the process that runs the script");
    let before = siblings(&server, killed.parent).len();
    kill(&held);
    let since = Instant::now();
    within(AT_ONCE, "the process is dead", || {
        (!killed.is_alive()).then_some(())
    });
    within(SECOND, "another process has taken its place", || {
        let now = siblings(&server, killed.parent);
        (now.len() == before && !now.contains(&killed)).then_some(())
    });
    let took = since.elapsed();
    held.expect_cut(AT_ONCE);
    server.expect_log(&["[pool www]", &pid.to_string(), why, &uri]);
    match bystander {
        Some(bystander) => {
            let other = Process::find(bystander.pid);
            assert!(other.is_some(), "the pool's other process died, too");
            // The new one serves, as the other one is busy.
            server.expect_alive();
            bystander.finish();
        }
        None => server.expect_alive(),
    }
    assert!(
        took < SECOND + AT_ONCE,
        "replacing the process took {took:?}"
    );
}

#[test]
fn a_process_that_is_killed_is_replaced() {
    expect_replacement(
        |held| processes::kill(held.pid, libc::SIGKILL),
        "signal 9 (SIGKILL",
    );
}

#[test]
fn a_process_that_is_sent_a_segmentation_fault_is_replaced() {
    expect_replacement(
        |held| processes::kill(held.pid, libc::SIGSEGV),
        "signal 11 (SIGSEGV",
    );
}

/// Runs the code, which ends its process. The log says how.
fn expect_crash(code: &str, why: &str) {
    let server = Setup::new()
        .children(2)
        .args(&["-d", "ffi.enable=1"])
        .start();
    let threaded = is_threaded(&server);
    let bystander = (!threaded).then(|| Held::start(&server));
    let request = server
        .run(&format!(
            "file_put_contents('{}/pid', getmypid()); {code}",
            server.state().display()
        ))
        .query("crash=here");
    let mut client = request.start();
    match client.try_response(1, PATIENCE) {
        Err((NoRecord::Closed(_), _)) => {}
        // An answer that says so is better.
        Ok(response) if response.status == 500 => {}
        other => panic!("expected a crash, came: {other:?}"),
    }
    let pid = fs::read_to_string(server.state().join("pid")).unwrap();
    server.expect_log(&["[pool www]", &pid, why, &request.text("REQUEST_URI")]);
    within(SECOND, "a process serves again", || {
        let socket = server.address.try_connect().ok()?;
        drop(socket);
        let mut client = server.run("echo 'alive';").start();
        let response = client.try_response(1, SECOND).ok()?;
        (response.text() == "alive").then_some(())
    });
    if let Some(bystander) = bystander {
        bystander.finish();
    }
}

#[test]
fn a_crash_in_c_code_is_survived() {
    expect_crash(
        "FFI::cdef('void *memset(void *, int, size_t);')->memset(null, 0, 1);",
        "signal 11 (SIGSEGV",
    );
}

#[test]
fn an_abort_in_c_code_is_survived() {
    expect_crash(
        "FFI::cdef('void abort(void);')->abort();",
        "signal 6 (SIGABRT",
    );
}

#[test]
fn the_exit_code_of_a_process_is_logged() {
    expect_crash("FFI::cdef('void _exit(int);')->_exit(42);", "code 42");
}

#[test]
fn processes_that_die_again_and_again_are_replaced_each_time() {
    let server = Setup::new().children(2).start();
    let request = server.run("posix_kill(getmypid(), 9);");
    for round in 0..20 {
        let mut client = request.start();
        match client.try_response(1, PATIENCE) {
            Err((NoRecord::Closed(_), _)) => {}
            other => panic!("round {round}: expected the end of the connection, came: {other:?}"),
        }
    }
    server.expect_alive();
}

#[test]
fn a_pool_whose_processes_all_die_at_once_serves_again_within_a_second() {
    let server = Setup::new().children(4).start();
    let request = server.run("echo getmypid();");
    let pid = request.send().text().parse().unwrap();
    let parent = Process::find(pid).unwrap().parent;
    for process in siblings(&server, parent) {
        processes::kill(process.pid, libc::SIGKILL);
    }
    let mut client = request.start();
    let answer = client.response_within(1, SECOND);
    assert_ne!(answer.text(), pid.to_string());
    within(AT_ONCE, "all have been replaced", || {
        let expected = if is_threaded(&server) { 1 } else { 4 };
        (siblings(&server, parent).len() == expected).then_some(())
    });
}

/// Between the supervisor and a pool's processes there is one more, which has no work but to start them.
#[test]
fn a_pools_leader_that_is_killed_is_replaced_with_all_that_is_below_it() {
    let server = Setup::new().children(2).start();
    let held = Held::start(&server);
    let leader = Process::find(held.pid).unwrap().parent;
    if leader == server.pid {
        return; // A server that has no leaders.
    }
    let old = processes::tree(leader);
    processes::kill(leader, libc::SIGKILL);
    within(SECOND, "all processes below it are gone", || {
        old.iter().all(|process| !process.is_alive()).then_some(())
    });
    held.expect_cut(AT_ONCE);
    let mut client = server.run("echo 'alive';").start();
    client.response_within(1, AT_ONCE).expect_text("alive");
    server.expect_log(&["[pool www]", &leader.to_string(), "signal 9 (SIGKILL"]);
}

/// The leader is the pool's user's, so scripts can send it signals.
#[test]
fn a_pools_leader_that_is_stopped_goes_on() {
    let server = Setup::new().children(1).start();
    let held = Held::start(&server);
    let leader = Process::find(held.pid).unwrap().parent;
    if leader == server.pid {
        return; // A server that has no leaders.
    }
    processes::kill(leader, libc::SIGSTOP);
    server.expect_log(&["WARNING: [pool www] leader", "was stopped by a signal"]);
    processes::kill(held.pid, libc::SIGKILL);
    let mut client = server.run("echo 'alive';").start();
    client.response_within(1, AT_ONCE).expect_text("alive");
}

#[test]
fn programs_that_scripts_start_inherit_no_sockets() {
    // They would keep the address in use when the server is gone, and connections open.
    let server = Setup::new().children(1).start();
    let mut idle = server.connect();
    let request = server.run("echo shell_exec('ls -l /proc/self/fd');");
    idle.request(&request.clone().keep());
    let said = request.send().text();
    let (mut descriptors, mut foreign) = (0, Vec::new());
    for line in said.lines() {
        let Some((_, target)) = line.split_once(" -> ") else {
            continue;
        };
        descriptors += 1;
        if ["socket:", "anon_inode:", "/memfd:"]
            .iter()
            .any(|kind| target.starts_with(kind))
        {
            foreign.push(line);
        }
    }
    assert!(
        descriptors >= 3,
        "expected standard input, output and error, came:\n{said}"
    );
    assert!(foreign.is_empty(), "inherited:\n{said}");
    let pipes = said.matches("pipe:").count();
    assert!(
        pipes <= 2,
        "expected standard output and error, came:\n{said}"
    );
}

// --- How they end ------------------------------------------------------------------------------

fn expect_stop_at_once(signal: i32) {
    let mut server = Setup::new().children(2).global("pid = {dir}/pid").start();
    let held = Held::start(&server);
    let mut idle = server.connect();
    idle.request(&server.run("echo 1;").keep()).expect_text("1");
    // Looks for processes and for the socket's file, too.
    let status = server.stop(signal, AT_ONCE);
    assert_eq!(
        status.code(),
        Some(0),
        "expected exit code 0, came {status}"
    );
    held.expect_cut(AT_ONCE);
    idle.expect_close(AT_ONCE);
    assert!(
        !server.dir().join("pid").exists(),
        "the pid file is left behind"
    );
}

#[test]
fn term_stops_at_once() {
    expect_stop_at_once(libc::SIGTERM);
}

#[test]
fn int_stops_at_once() {
    expect_stop_at_once(libc::SIGINT);
}

#[test]
fn term_stops_at_once_even_if_a_script_ignores_signals() {
    let mut server = Setup::new()
        .children(1)
        .args(&["-d", "ffi.enable=1"])
        .start();
    let started = server.state().join("started");
    let request = server.run(
        &format!(
            "FFI::cdef('long signal(int, long);')->signal(SIGTERM, 1 /* SIG_IGN */);
         set_time_limit(0); touch('{}'); while (true) usleep(1000);",
            started.display()
        )
        .replace("SIGTERM", "15"),
    );
    let _client = request.start();
    eventually("the script runs", || started.exists().then_some(()));
    server.stop(libc::SIGTERM, Duration::from_secs(5));
}

#[test]
fn quit_finishes_running_requests() {
    let mut server = Setup::new()
        .children(2)
        .global("process_control_timeout = 30s")
        .start();
    let held = [Held::start(&server), Held::start(&server)];
    server.signal(libc::SIGQUIT);
    server.expect_log(&["NOTICE: Finishing ..."]);
    let processes = server.tree();
    assert!(
        processes.len() > 1,
        "processes ended in the middle of requests: {processes:?}"
    );
    held.into_iter().for_each(Held::finish);
    let status = server.wait(AT_ONCE);
    assert_eq!(
        status.code(),
        Some(0),
        "expected exit code 0, came {status}"
    );
    within(AT_ONCE, "all processes are gone", || {
        processes
            .iter()
            .all(|process| !process.is_alive())
            .then_some(())
    });
    assert!(
        !server.dir().join("socket").exists(),
        "the socket is left behind"
    );
}

#[test]
fn quit_finishes_requests_that_wait_for_their_turn() {
    let mut server = Setup::new()
        .children(1)
        .global("process_control_timeout = 30s")
        .start();
    let held = Held::start(&server);
    let request = server.run("echo 'had its turn';");
    // On a connection that has been taken in for certain, as GET_VALUES is answered there.
    let mut waiting = server.connect();
    waiting.expect_alive();
    waiting.send(&request.bytes());
    waiting.expect_no_answer_yet();
    server.signal(libc::SIGQUIT);
    held.finish();
    waiting.response(1).expect_text("had its turn");
    assert_eq!(server.wait(AT_ONCE).code(), Some(0));
}

#[test]
fn quit_finishes_requests_that_nobody_has_read_yet() {
    let mut server = Setup::new()
        .children(2)
        .global("process_control_timeout = 30s")
        .start();
    let request = server.run("echo 'had its turn';");
    let held = [Held::start(&server), Held::start(&server)];
    let mut waiting: Vec<Client> = (0..8).map(|_| request.start()).collect();
    server.signal(libc::SIGQUIT);
    server.expect_log(&["NOTICE: Finishing ..."]);
    held.into_iter().for_each(Held::finish);
    for client in &mut waiting {
        client.response(1).expect_text("had its turn");
    }
    assert_eq!(server.wait(AT_ONCE).code(), Some(0));
}

#[test]
fn quit_waits_for_no_idle_connection() {
    let mut server = Setup::new().children(2).start();
    let request = server.run("echo 1;").keep();
    let mut idle: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut idle[..2] {
        client.request(&request).expect_text("1");
    }
    let status = server.stop(libc::SIGQUIT, AT_ONCE);
    assert_eq!(
        status.code(),
        Some(0),
        "expected exit code 0, came {status}"
    );
    for client in &mut idle {
        client.expect_close(AT_ONCE);
    }
}

#[test]
fn quit_waits_no_longer_than_process_control_timeout() {
    let mut server = Setup::new()
        .children(1)
        .global("process_control_timeout = 1s")
        .start();
    let held = Held::start(&server);
    let since = Instant::now();
    server.stop(libc::SIGQUIT, SECOND + AT_ONCE);
    let took = since.elapsed();
    assert!(
        took > SECOND / 2,
        "the running request was given only {took:?}"
    );
    held.expect_cut(AT_ONCE);
}

#[test]
fn term_after_quit_stops_at_once() {
    let mut server = Setup::new()
        .children(1)
        .global("process_control_timeout = 30s")
        .start();
    let held = Held::start(&server);
    server.signal(libc::SIGQUIT);
    server.expect_log(&["NOTICE: Finishing ..."]);
    server.stop(libc::SIGTERM, AT_ONCE);
    held.expect_cut(AT_ONCE);
}

/// Processes that may be left behind, ended when this is dropped.
struct Strays(Vec<Process>);

impl Drop for Strays {
    fn drop(&mut self) {
        for process in self.0.iter().filter(|process| process.is_alive()) {
            processes::kill(process.pid, libc::SIGKILL);
        }
    }
}

#[test]
fn what_a_script_forked_ends_with_the_server() {
    let mut server = Setup::new().children(1).start();
    if server
        .run("echo (int) function_exists('pcntl_fork');")
        .send()
        .text()
        == "0"
    {
        return;
    }
    server
        .run("if (pcntl_fork() == 0) { echo 'child'; while (true) sleep(60); } echo 'parent';")
        .send()
        .expect_text("parent");
    let processes = Strays(server.tree());
    assert!(
        processes.0.len() >= 3,
        "expected the forked process among these: {:?}",
        processes.0
    );
    // Looks for all of them.
    server.stop(libc::SIGTERM, AT_ONCE);
}

#[test]
fn nothing_outlives_a_supervisor_that_is_killed() {
    let mut server = Setup::new().children(2).start();
    let held = Held::start(&server);
    let processes = server.tree();
    assert!(processes.len() >= 2, "{processes:?}");
    server.signal(libc::SIGKILL);
    within(SECOND, "all processes are gone", || {
        processes
            .iter()
            .all(|process| !process.is_alive())
            .then_some(())
    });
    server.wait(AT_ONCE);
    held.expect_cut(AT_ONCE);

    // What it left behind is in nobody's way.
    assert!(
        server.dir().join("socket").exists(),
        "this is about a socket that is left behind"
    );
    let again = again(&server);
    within(PATIENCE, "another server takes over the socket", || {
        let mut client = server.address.try_connect().ok()?;
        let bytes = server.run("echo 'alive';").bytes();
        client.write_all(&bytes).ok()?;
        Some(())
    });
    server.expect_alive();
    drop(again);
}

/// Starts another server with the same configuration.
pub(crate) fn again(server: &Server) -> (Loose, Child) {
    let mut command = Command::new(binary());
    command
        .arg("-F")
        .arg("-y")
        .arg(server.dir().join("config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = spawn(command);
    (Loose(child.id().cast_signed()), child)
}

#[test]
fn signals_that_were_ignored_before_the_start_are_obeyed() {
    let signals = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP];
    let ignores = |mask: &str| {
        let mask = u64::from_str_radix(mask, 16).unwrap();
        signals.iter().any(|signal| mask & (1 << (signal - 1)) != 0)
    };
    for signal in &signals[..3] {
        let mut server = Setup::new().children(2).ignoring(&signals).start();
        for process in server.tree() {
            let mask = process.status("SigIgn");
            assert!(!ignores(&mask), "{mask} is ignored by {process:?}");
        }
        // So do programs that scripts start.
        let status = server.run("echo shell_exec('grep SigIgn: /proc/self/status');");
        let status = status.send().text();
        let mask = status.trim().rsplit('\t').next().unwrap();
        assert!(!ignores(mask), "{status}");
        assert_eq!(server.stop(*signal, AT_ONCE).code(), Some(0));
    }
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let setup = Setup::new().children(2);
    let mut command = setup.command(&["-F", "-O"]);
    command.stderr(Stdio::piped());
    let mut child = spawn(command);
    let loose = Loose(child.id().cast_signed());
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready to handle connections") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended");
    }
    let root = setup.dir().join("root");
    let log = "<?php for ($i = 0; $i < 500; $i++) error_log(str_repeat('x', 1000)); echo 'logged';";
    write(&root.join("log.php"), log);
    let address = Address::Unix(setup.dir().join("socket"));
    let request = Request::get(&address, &root, "/log.php");
    let start = Instant::now();
    for _ in 0..8 {
        request.send().expect_text("logged");
    }
    // Once there is room again, the log says what it lacks.
    let mut read = vec![0; 64 * 1024];
    let length = stderr.read(&mut read).unwrap();
    read.truncate(length);
    for _ in 0..8 {
        request.send().expect_text("logged");
    }
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    processes::kill(loose.0, libc::SIGTERM);
    let status = within(Duration::from_secs(5), "SIGTERM ends it", || {
        child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(0));
    stderr.read_to_end(&mut read).unwrap();
    let lines: Vec<String> = text(&read)
        .lines()
        .map(|line| line.chars().take(100).collect())
        .collect();
    let report = " messages before this one were dropped, as the log took none";
    assert!(
        lines.iter().any(|line| line.ends_with(report)),
        "{lines:#?}"
    );
}

#[test]
fn signals_of_php_fpm_that_are_not_obeyed_yet_do_no_harm() {
    let server = Setup::new().children(1).start();
    for signal in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP] {
        server.signal(signal);
        server.expect_alive();
    }
}

// --- The command line --------------------------------------------------------------------------

/// A configuration that is right, but for what is added to the pool. That is line 8.
fn configuration(dir: &Path, line: &str) -> PathBuf {
    let path = dir.join("config");
    let user = account().unwrap_or("nobody");
    let socket = dir.join("socket");
    write(
        &path,
        format!(
            "[global]\nerror_log = /dev/stderr\n[www]\nuser = {user}\nlisten = {}\npm = static\n\
             pm.max_children = 1\n{line}\n",
            socket.display()
        ),
    );
    path
}

#[test]
fn a_right_configuration_passes_the_test() {
    let dir = directory();
    let path = configuration(dir.path(), "");
    let path = path.to_str().unwrap();
    let success = format!("configuration file {path} test is successful");
    expect_output(&run(&["-t", "-y", path]), 0, &[&success]);
    expect_output(&run(&["--test", "--fpm-config", path]), 0, &[&success]);
    expect_output(
        &run(&["-tt", "-y", path]),
        0,
        &[&success, "[www]", "pm.max_children = 1"],
    );
    assert!(
        !dir.path().join("socket").exists(),
        "a test opened the socket"
    );
}

#[test]
fn what_is_wrong_with_a_configuration_is_named_with_its_line() {
    let dir = directory();
    for (line, name) in [
        ("lisen = /tmp/x", "lisen"),
        ("pm.max_children = many", "pm.max_children"),
        ("pm.max_children = -1", "pm.max_children"),
        ("pm = eager", "pm"),
        ("listen.mode = rwxrwxrwx", "listen.mode"),
        ("clear_env = perhaps", "clear_env"),
        ("request_queue_timeout = soon", "request_queue_timeout"),
        ("pid = /tmp/x", "pid"),
        ("env[] = x", "env"),
        ("php_value = x", "php_value"),
        // php-fpm knows these. To leave them out silently would be worse than to refuse them.
        ("pm.status_path = /status", "pm.status_path"),
        ("request_slowlog_timeout = 5s", "request_slowlog_timeout"),
        ("chroot = /", "chroot"),
    ] {
        let path = configuration(dir.path(), line);
        let path = path.to_str().unwrap();
        let place = format!("[{path}:8]");
        for flag in ["-t", "-F"] {
            let output = run(&[flag, "-y", path]);
            let said = text(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(78),
                "{flag} with {line:?} said:\n{said}"
            );
            let good = said
                .lines()
                .any(|said| said.contains(&place) && said.contains(name));
            assert!(
                good,
                "{flag} with {line:?}: expected {place} and {name:?}, it said:\n{said}"
            );
        }
    }
}

#[test]
fn what_a_configuration_lacks_is_named() {
    let dir = directory();
    let path = dir.path().join("config");
    let full = format!(
        "[www]\nuser = nobody\nlisten = {}/socket\npm = static\npm.max_children = 1\n",
        dir.path().display()
    );
    for (name, text) in [
        ("listen", full.replace("listen =", ";")),
        ("pm", full.replace("pm =", ";")),
        ("pm.max_children", full.replace("pm.max_children =", ";")),
        ("pool", "[global]\nerror_log = /dev/stderr\n".to_owned()),
        (
            "user = no-such-user",
            full.replace("nobody", "no-such-user"),
        ),
        (
            "group = no-such-group",
            format!("{full}group = no-such-group\n"),
        ),
        (
            "listen.owner = no-such-user",
            format!("{full}listen.owner = no-such-user\n"),
        ),
        ("chdir", format!("{full}chdir = /no/such/directory\n")),
    ] {
        write(&path, &text);
        let output = run(&["-t", "-y", path.to_str().unwrap()]);
        expect_output(&output, 78, &[name]);
    }
    expect_output(&run(&["-t", "-y", "/no/such/file"]), 78, &["/no/such/file"]);
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let dir = directory();
    let path = configuration(dir.path(), "first = 1\nsecond = 2");
    let output = run(&["-t", "-y", path.to_str().unwrap()]);
    expect_output(&output, 78, &[":8]", "first", ":9]", "second"]);
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let dir = directory();
    let path = configuration(dir.path(), "listen = /no/such/directory/socket");
    let output = run(&["-F", "-O", "-y", path.to_str().unwrap()]);
    expect_output(&output, 78, &["/no/such/directory/socket", "[pool www]"]);
}

#[test]
fn one_pool_that_cannot_start_keeps_all_from_starting() {
    let dir = directory();
    let more = "[second]\nuser = nobody\nlisten = /no/such/directory/socket\npm = static\npm.max_children = 1\n";
    let path = configuration(dir.path(), more);
    let output = run(&["-F", "-O", "-y", path.to_str().unwrap()]);
    expect_output(&output, 78, &["/no/such/directory/socket", "[pool second]"]);
    assert!(
        !dir.path().join("socket").exists(),
        "the first pool's socket is left behind"
    );
}

#[test]
fn one_leader_that_cannot_start_keeps_the_others_from_being_tried() {
    let dir = directory();
    let more: String = (0..12)
        .map(|number| {
            let socket = dir.path().join(format!("socket-{number}"));
            let (user, socket) = (account().unwrap_or("nobody"), socket.display());
            format!("[pool-{number}]\nuser = {user}\nlisten = {socket}\npm = static\npm.max_children = 1\n")
        })
        .collect();
    let path = configuration(dir.path(), &more);
    // Enough for the sockets of all pools, but not for all leaders.
    let stderr = dir.path().join("stderr");
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 56; exec \"$@\"", "sh"])
        .arg(binary())
        .args(["-F", "-O", "-y", path.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&stderr).unwrap());
    let status = finish(command, "a server without descriptors");
    let said = fs::read_to_string(stderr).unwrap();
    assert_eq!(status.code(), Some(78), "it said:\n{said}");
    for (words, times) in [
        ("failed to start a pool's leader", 1),
        ("raise the limit of open files (ulimit -n", 1),
        ("FPM initialization failed", 1),
        ("next try", 0),
    ] {
        assert_eq!(said.matches(words).count(), times, "{words:?} in:\n{said}");
    }
}

#[test]
fn files_that_cannot_be_written_are_named() {
    let dir = directory();
    for line in [
        "error_log = /no/such/directory/log",
        "pid = /no/such/directory/pid",
    ] {
        let path = configuration(dir.path(), &format!("[global]\n{line}"));
        let output = run(&["-F", "-y", path.to_str().unwrap()]);
        let name = line.rsplit(' ').next().unwrap();
        expect_output(&output, 78, &[name]);
        assert!(
            !dir.path().join("socket").exists(),
            "with {line:?}: the socket is left behind"
        );
    }
}

#[test]
fn a_pool_whose_php_cannot_start_is_reported() {
    let dir = directory();
    let path = configuration(dir.path(), "");
    let mut args = vec![
        "-F",
        "-O",
        "-y",
        path.to_str().unwrap(),
        "-d",
        "opcache.enable=1",
    ];
    if !text(&run(&["-m"]).stdout).contains("Zend OPcache") {
        args.extend(["-d", "zend_extension=opcache"]);
    }
    args.extend([
        "-d",
        "opcache.preload=/no/such/preload.php",
        "-d",
        "opcache.preload_user=nobody",
    ]);
    let output = run(&args);
    let said = text(&output.stderr) + &text(&output.stdout);
    assert_ne!(output.status.code(), Some(0), "it said:\n{said}");
    assert!(said.contains("/no/such/preload.php"), "it said:\n{said}");
    assert!(
        !dir.path().join("socket").exists(),
        "the socket is left behind"
    );
}

#[test]
fn unknown_options_are_refused() {
    for args in [&["--no-such-option"][..], &["-Z"], &["stray"], &["-y"]] {
        let output = run(args);
        let said = text(&output.stderr) + &text(&output.stdout);
        assert_eq!(output.status.code(), Some(64), "{args:?} said:\n{said}");
        assert!(
            said.to_lowercase().contains("usage") || said.contains("--help"),
            "{args:?} said:\n{said}"
        );
    }
}

#[test]
fn v_names_all_versions() {
    for flag in ["-v", "--version"] {
        let output = run(&[flag]);
        expect_output(
            &output,
            0,
            &["PHP 8.", "howdah", env!("CARGO_PKG_VERSION"), "php.ini"],
        );
        let said = text(&output.stdout);
        assert!(
            said.contains("NTS") != said.contains("ZTS"),
            "{flag} says neither or both: {said}"
        );
    }
}

#[test]
fn h_names_every_option() {
    for flag in ["-h", "--help"] {
        let output = run(&[flag]);
        expect_output(
            &output,
            0,
            &[
                "-c",
                "-n",
                "-d",
                "-e",
                "-h",
                "-i",
                "-m",
                "-v",
                "-p",
                "--prefix",
                "-g",
                "--pid",
                "-y",
                "--fpm-config",
                "-t",
                "--test",
                "-D",
                "--daemonize",
                "-F",
                "--nodaemonize",
                "-O",
                "--force-stderr",
                "-R",
                "--allow-to-run-as-root",
            ],
        );
    }
}

#[test]
fn i_is_phpinfo() {
    let output = run(&["-i"]);
    expect_output(
        &output,
        0,
        &[
            "phpinfo()",
            "PHP Version => 8.",
            "Server API => ",
            "Loaded Configuration File => ",
        ],
    );
}

#[test]
fn m_lists_extensions() {
    let output = run(&["-m"]);
    expect_output(
        &output,
        0,
        &[
            "[PHP Modules]",
            "\nCore\n",
            "\nstandard\n",
            "[Zend Modules]",
        ],
    );
}

#[test]
fn d_sets_ini_entries_and_n_reads_no_php_ini() {
    let server = Setup::new()
        .children(1)
        .args(&["-n", "-d", "precision=7", "-d", "memory_limit=99M"])
        .start();
    server
        .run("echo ini_get('precision'), ' ', ini_get('memory_limit'), ' ', var_export(php_ini_loaded_file(), true);")
        .send()
        .expect_text("7 99M false");
}

#[test]
fn c_names_php_ini() {
    let setup = Setup::new().children(1);
    write(&setup.dir().join("ini/php.ini"), "precision = 6\n");
    let server = setup.args(&["-c", "{dir}/ini/php.ini"]).start();
    server
        .run("echo ini_get('precision');")
        .send()
        .expect_text("6");
}

#[test]
fn daemonize_returns_when_the_server_is_ready() {
    let setup = Setup::new()
        .children(1)
        .global("pid = {dir}/pid")
        .file("hello.php", "hello");
    let root = setup.dir().join("root");
    let address = Address::Unix(setup.dir().join("socket"));
    let status = finish(setup.command(&["-D"]), "-D");
    let pid = fs::read_to_string(setup.dir().join("pid")).unwrap_or_default();
    let said = fs::read_to_string(setup.dir().join("output")).unwrap_or_default();
    assert_eq!(status.code(), Some(0), "it said:\n{said}");
    let pid: i32 = pid
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("pid file: {pid:?}; it said:\n{said}"));
    let loose = Loose(pid);

    // No waiting here: it is ready.
    Request::get(&address, &root, "/hello.php")
        .send()
        .expect_text("hello");

    let own = nix::unistd::Pid::from_raw(pid);
    assert_eq!(
        nix::unistd::getsid(Some(own)),
        Ok(own),
        "it is in its starter's session"
    );
    for descriptor in [0, 1] {
        let target = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).unwrap();
        assert_eq!(target, Path::new("/dev/null"), "descriptor {descriptor}");
    }
    let processes = processes::tree(pid);
    processes::kill(pid, libc::SIGTERM);
    within(AT_ONCE, "all processes are gone", || {
        processes
            .iter()
            .all(|process| !process.is_alive())
            .then_some(())
    });
    for file in ["socket", "pid"] {
        assert!(!setup.dir().join(file).exists(), "{file} is left behind");
    }
    std::mem::forget(loose);
}

#[test]
fn daemonize_reports_failure() {
    let setup = Setup::new()
        .children(1)
        .listen("{dir}/no-such-directory/socket")
        .global("pid = {dir}/pid");
    let status = finish(setup.command(&["-D"]), "-D");
    assert_eq!(status.code(), Some(78));
    assert!(
        !setup.dir().join("pid").exists(),
        "a pid file without a server"
    );
}

// --- pm.max_requests ---------------------------------------------------------------------------

#[test]
fn max_requests_loses_no_request_on_connections_that_are_kept() {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 150;
    let server = Setup::new().children(2).pool("pm.max_requests = 7").start();
    let threaded = is_threaded(&server);
    let request = server.run("echo getmypid();").keep();
    let pids: BTreeSet<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.connect();
                    let mut pids = BTreeSet::new();
                    for number in 0..REQUESTS {
                        let response = client.request(&request);
                        assert_eq!(response.status, 200, "request {number}: {response:?}");
                        pids.insert(response.text());
                    }
                    pids
                })
            })
            .collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    if threaded {
        assert_eq!(pids.len(), 1, "threads are replaced, not their process");
    } else {
        let least = CLIENTS * REQUESTS / 7 / 2;
        assert!(
            pids.len() >= least,
            "expected at least {least} processes, came {pids:?}"
        );
    }
}

#[test]
fn a_fresh_interpreter_has_none_of_the_old_ones_persistent_connections() {
    let server = Setup::new().children(1).pool("pm.max_requests = 3").start();
    let path = server.state().join("persistent");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let request = server
        .run(&format!(
            "echo fwrite(pfsockopen('unix://{}'), 'x');",
            path.display()
        ))
        .keep();
    let mut client = server.connect();
    for _ in 0..9 {
        client.request(&request).expect_text("1");
    }
    let mut connections: Vec<UnixStream> = Vec::new();
    while let Ok((connection, _)) = listener.accept() {
        connection.set_nonblocking(true).unwrap();
        connections.push(connection);
    }
    // An interpreter may take one more request before another process is told to take over.
    let uses: Vec<(usize, bool)> = connections
        .iter_mut()
        .map(|connection| {
            let mut bytes = [0; 64];
            let count = connection.read(&mut bytes).unwrap_or(0);
            let until = Instant::now() + AT_ONCE;
            let mut is_closed = || matches!(connection.read(&mut bytes), Ok(0));
            let mut closed = is_closed();
            while !closed && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
                closed = is_closed();
            }
            (count, closed)
        })
        .collect();
    assert!(
        uses.len() >= 2 && uses.iter().all(|&(count, _)| count <= 4),
        "expected a connection for each three requests; uses and whether it is closed: {uses:?}"
    );
    let old = &uses[..uses.len() - 1];
    assert!(
        old.iter().all(|&(_, closed)| closed),
        "old interpreters' connections stay open: {uses:?}"
    );
}

#[test]
fn requests_on_the_way_to_a_process_that_retires_are_served() {
    // Short connections: what has been accepted and not yet read must not get lost.
    let server = Setup::new().children(2).pool("pm.max_requests = 2").start();
    let request = server.run("echo 'served';");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    request.send().expect_text("served");
                }
            });
        }
    });
}

// --- Saturation --------------------------------------------------------------------------------

#[track_caller]
fn expect_overloaded(response: &Response) {
    assert!(
        response.protocol_status == OVERLOADED && response.status == 503,
        "expected 503 and OVERLOADED, came {response:?}"
    );
}

#[test]
fn requests_beyond_the_queue_are_refused_at_once_and_those_in_it_in_time() {
    let server = Setup::new()
        .children(1)
        .pool("pm.max_queue = 1\nrequest_queue_timeout = 1s")
        .start();
    let held = Held::start(&server);
    let request = server.run("echo 'had its turn';");
    let since = Instant::now();
    let mut clients: Vec<Client> = (0..5).map(|_| request.start()).collect();
    let mut waited: Vec<Duration> = std::thread::scope(|scope| {
        let answers: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                scope.spawn(move || {
                    let response = client.response_within(1, Duration::from_secs(5));
                    (response, since.elapsed())
                })
            })
            .collect();
        answers
            .into_iter()
            .map(|answer| {
                let (response, after) = answer.join().unwrap();
                expect_overloaded(&response);
                after
            })
            .collect()
    });
    waited.sort();
    let limit = Duration::from_millis(900);
    assert!(
        waited[3] < limit && waited[4] >= limit && waited[4] < 3 * SECOND,
        "expected four answers at once and one after a second, came {waited:?}"
    );
    held.finish();
    server.expect_alive();
}

#[test]
fn a_busy_pool_of_several_lets_nobody_wait_for_ever() {
    let server = Setup::new()
        .children(2)
        .pool("pm.max_queue = 2\nrequest_queue_timeout = 1s")
        .start();
    let held = [Held::start(&server), Held::start(&server)];
    let request = server.run("echo 'had its turn';");
    let mut clients: Vec<Client> = (0..20).map(|_| request.start()).collect();
    for client in &mut clients {
        expect_overloaded(&client.response_within(1, Duration::from_secs(5)));
    }
    held.into_iter().for_each(Held::finish);
    server.expect_alive();
}

#[test]
fn a_burst_beyond_the_queue_gets_an_answer_each() {
    let server = Setup::new()
        .children(1)
        .pool("pm.max_queue = 5\nrequest_queue_timeout = 30s")
        .start();
    let request = server.run("usleep(10000); echo 'served';");
    let mut clients: Vec<Client> = (0..200).map(|_| request.start()).collect();
    let (mut served, mut refused) = (0, 0);
    for client in &mut clients {
        let response = client.response(1);
        if response.status == 200 {
            response.expect_text("served");
            served += 1;
        } else {
            expect_overloaded(&response);
            refused += 1;
        }
    }
    assert!(
        served >= 6 && refused >= 1,
        "{served} were served and {refused} refused"
    );
}

#[test]
fn a_request_that_waits_has_its_turn() {
    let server = Setup::new()
        .children(1)
        .pool("pm.max_queue = 1\nrequest_queue_timeout = 30s")
        .start();
    let held = Held::start(&server);
    let mut waiting = server.run("echo 'had its turn';").start();
    waiting.expect_no_answer_yet();
    held.finish();
    waiting.response(1).expect_text("had its turn");
}

#[test]
fn requests_that_come_while_all_are_busy_wait_for_their_turn() {
    let server = Setup::new().children(2).start();
    let held = [Held::start(&server), Held::start(&server)];
    let request = server.run("echo 'had its turn';");
    let mut clients: Vec<Client> = (0..300).map(|_| request.start()).collect();
    clients[0].expect_no_answer_yet();
    held.into_iter().for_each(Held::finish);
    for client in &mut clients {
        client.response(1).expect_text("had its turn");
    }
}

#[test]
fn a_burst_loses_no_request() {
    let server = Setup::new().children(2).start();
    let request = server.run("usleep(2000); echo 'served';");
    let mut clients: Vec<Client> = (0..200).map(|_| request.start()).collect();
    for client in &mut clients {
        client.response(1).expect_text("served");
    }
}

// --- Connections that are kept -----------------------------------------------------------------

#[test]
fn idle_connections_pin_no_interpreter() {
    let server = Setup::new().children(2).start();
    let request = server.run("echo 'served';").keep();
    let mut idle: Vec<Client> = (0..8)
        .map(|_| {
            let mut client = server.connect();
            client.send(&request.bytes());
            client.response_within(1, AT_ONCE).expect_text("served");
            client
        })
        .collect();
    let mut ninth = request.start();
    ninth.response_within(1, SECOND).expect_text("served");
    for client in &mut idle {
        client.send(&request.bytes());
        client.response_within(1, SECOND).expect_text("served");
    }
}

#[test]
fn a_request_on_an_idle_connection_of_a_busy_process_is_answered_at_once() {
    let server = Setup::new().children(2).start();
    let threaded = is_threaded(&server);
    let request = server.run("echo getmypid();").keep();
    // While one process is busy, the other one gets these.
    let first = Held::start(&server);
    let mut idle: Vec<(Client, String)> = (0..8)
        .map(|_| {
            let mut client = server.connect();
            let pid = client.request(&request).text();
            (client, pid)
        })
        .collect();
    let second = Held::start(&server);
    let (free, busy) = (first.pid.to_string(), second.pid.to_string());
    first.finish();
    for (client, before) in &mut idle {
        assert_eq!(
            *before, busy,
            "the connection belongs to the process that is busy now"
        );
        client.send(&request.bytes());
        let response = client.response_within(1, SECOND);
        response.expect_text(&free);
        assert!(threaded || free != busy);
    }
    second.finish();
}

trait Silence {
    /// Nothing comes for a while in which something would have come.
    fn expect_no_answer_yet(&mut self);
}

impl Silence for Client {
    fn expect_no_answer_yet(&mut self) {
        match self.record_within(Duration::from_millis(100)) {
            Err(NoRecord::Timeout) => {}
            other => panic!("expected no answer yet, came: {other:?}"),
        }
    }
}

#[test]
fn connections_leave_the_low_descriptors_to_php() {
    let server = Setup::new().children(1).start();
    // select(2), which PHP and libraries use, watches descriptors below 1024.
    let idle: Vec<Client> = (0..1100).map(|_| server.connect()).collect();
    server
        .run(
            "$pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
             fwrite($pair[0], 'x');
             $read = [$pair[1]]; $write = $except = [];
             echo stream_select($read, $write, $except, 5);",
        )
        .send()
        .expect_text("1");
    drop(idle);
}
