//! The server under test, with a directory of its own: configuration, log, socket, and a site to serve.

use std::fs::{self, File, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::{Address, Client};
use super::processes::{self, Process, account};
use super::request::Request;
use super::{PATIENCE, eventually};

/// What a server is told. In all text, `{dir}` stands for the server's directory, `{root}` for the site's and `{state}`
/// for one that PHP may write to.
pub(crate) struct Setup {
    dir: TempDir,
    address: Address,
    listen: Option<String>,
    children: u32,
    global: String,
    pool: String,
    more: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    ignored: Vec<i32>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let dir = directory();
        for (name, mode) in [("root", 0o755), ("state", 0o1777)] {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        }
        Self {
            address: Address::Unix(dir.path().join("socket")),
            dir,
            listen: None,
            children: 4,
            global: String::new(),
            pool: String::new(),
            more: String::new(),
            args: Vec::new(),
            env: Vec::new(),
            ignored: Vec::new(),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `pm.max_children`
    pub(crate) fn children(mut self, children: u32) -> Self {
        self.children = children;
        self
    }

    /// Lines for `[global]`.
    pub(crate) fn global(mut self, lines: &str) -> Self {
        self.global += lines;
        self.global.push('\n');
        self
    }

    /// Lines for the pool.
    pub(crate) fn pool(mut self, lines: &str) -> Self {
        self.pool += lines;
        self.pool.push('\n');
        self
    }

    /// What follows the pool: more pools.
    pub(crate) fn more(mut self, text: &str) -> Self {
        self.more += text;
        self.more.push('\n');
        self
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it as a shell does in its background: with these signals ignored.
    pub(crate) fn ignoring(mut self, signals: &[i32]) -> Self {
        self.ignored.extend(signals);
        self
    }

    /// Listens here and not on a Unix socket.
    pub(crate) fn tcp(mut self, address: SocketAddr) -> Self {
        self.address = Address::Tcp(address);
        self
    }

    /// Writes `listen` in this way; clients use [`tcp`](Self::tcp)'s address.
    pub(crate) fn listen(mut self, listen: &str) -> Self {
        self.listen = Some(listen.to_owned());
        self
    }

    /// A file of the site.
    pub(crate) fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        write(&self.dir().join("root").join(name), text);
        self
    }

    fn fill(&self, text: &str) -> String {
        let path = |name| self.dir().join(name).display().to_string();
        text.replace("{dir}", &path(""))
            .replace("{root}", &path("root"))
            .replace("{state}", &path("state"))
    }

    /// The account that PHP runs as, as lines of a pool.
    pub(crate) fn account_lines() -> String {
        account().map_or(String::new(), |user| format!("user = {user}\n"))
    }

    /// Writes the configuration.
    pub(crate) fn configuration(&self) -> PathBuf {
        let listen = self
            .listen
            .clone()
            .unwrap_or_else(|| self.address.to_string());
        let text = format!(
            "[global]\n\
             error_log = {{dir}}/log\n\
             daemonize = no\n\
             {global}\
             [www]\n\
             {account}\
             listen = {listen}\n\
             listen.mode = 0666\n\
             pm = static\n\
             pm.max_children = {children}\n\
             catch_workers_output = yes\n\
             {pool}\
             php_value[session.save_path] = {{state}}\n\
             php_value[upload_tmp_dir] = {{state}}\n\
             php_value[display_errors] = 0\n\
             php_value[output_buffering] = 0\n\
             php_value[log_errors] = 1\n\
             php_value[html_errors] = 0\n\
             php_value[error_reporting] = 32767\n\
             php_value[date.timezone] = UTC\n\
             {more}",
            global = self.global,
            account = Self::account_lines(),
            children = self.children,
            pool = self.pool,
            more = self.more,
        );
        let path = self.dir().join("config");
        write(&path, self.fill(&text));
        path
    }

    /// The binary with this configuration; what it prints goes to the file `output`.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let output = File::create(self.dir().join("output")).unwrap();
        let mut command = Command::new(binary());
        command
            .arg("-y")
            .arg(self.configuration())
            .args(args)
            .args(self.args.iter().map(|arg| self.fill(arg)))
            .envs(
                self.env
                    .iter()
                    .map(|(name, value)| (name, self.fill(value))),
            )
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let ignored = self.ignored.clone();
        // SAFETY: signal(2) may be called between fork and exec.
        unsafe {
            command.pre_exec(move || {
                for &signal in &ignored {
                    libc::signal(signal, libc::SIG_IGN);
                }
                Ok(())
            });
        }
        command
    }

    pub(crate) fn start(self) -> Server {
        let command = self.command(&["-F"]);
        let child = spawn(command);
        let mut server = Server {
            pid: child.id().cast_signed(),
            child: Some(child),
            address: self.address,
            dir: self.dir,
            scripts: AtomicU32::new(0),
        };
        server.await_ready();
        server
    }

    /// For a server that all tests of a module use. It is stopped when the process ends.
    pub(crate) fn start_shared(self) -> Server {
        let server = self.start();
        let mut shared = SHARED.lock().unwrap();
        if shared.is_empty() {
            // SAFETY: `stop_shared` may run at any time after main.
            unsafe { libc::atexit(stop_shared) };
        }
        shared.push((server.pid, server.dir().to_owned()));
        server
    }
}

/// Servers in statics, which are never dropped.
static SHARED: Mutex<Vec<(i32, PathBuf)>> = Mutex::new(Vec::new());

extern "C" fn stop_shared() {
    let Ok(shared) = SHARED.lock() else { return };
    for (pid, dir) in shared.iter() {
        processes::kill(*pid, libc::SIGTERM);
        let start = Instant::now();
        while Process::find(*pid).is_some() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        processes::kill(*pid, libc::SIGKILL);
        let _ = fs::remove_dir_all(dir);
    }
}

/// The server under test. When it is dropped it must end in order and leave nothing behind.
pub(crate) struct Server {
    pub(crate) pid: i32,
    child: Option<Child>,
    pub(crate) address: Address,
    dir: TempDir,
    scripts: AtomicU32,
}

impl Server {
    fn await_ready(&mut self) {
        let start = Instant::now();
        while !self.log().contains("ready to handle connections") {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                panic!(
                    "the server ended ({status}) instead of becoming ready: {}",
                    self.said()
                );
            }
            assert!(
                start.elapsed() < PATIENCE,
                "the server is not ready: {}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    // --- Its files -----------------------------------------------------------------------------

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir().join("root")
    }

    /// PHP may write here. Sessions and uploads are here, too.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// Puts a file into the site.
    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(name);
        write(&path, text);
        path
    }

    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.dir().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// All that it printed and logged.
    pub(crate) fn said(&self) -> String {
        let output = fs::read(self.dir().join("output")).unwrap_or_default();
        format!(
            "\n--- output\n{}--- log\n{}---",
            String::from_utf8_lossy(&output),
            self.log()
        )
    }

    /// Waits for a line with all of these words in the log.
    #[track_caller]
    pub(crate) fn expect_log(&self, words: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let log = self.log();
            let line = log
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)));
            if let Some(line) = line {
                return line.to_owned();
            }
            assert!(
                start.elapsed() < PATIENCE / 3,
                "expected a line with {words:?} in the log:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    // --- Requests ------------------------------------------------------------------------------

    /// GET of a file of the site.
    pub(crate) fn get(&self, uri: &str) -> Request {
        Request::get(&self.address, &self.root(), uri)
    }

    /// Puts these PHP statements into a script of their own, and gets that.
    pub(crate) fn run(&self, code: &str) -> Request {
        let number = self.scripts.fetch_add(1, Ordering::Relaxed);
        let name = format!("script-{number}.php");
        self.file(&name, format!("<?php {code}"));
        self.get(&format!("/{name}"))
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.address)
    }

    /// The server goes on serving.
    #[track_caller]
    pub(crate) fn expect_alive(&self) {
        self.run("echo 'alive';").send().expect_text("alive");
    }

    // --- Its processes -------------------------------------------------------------------------

    pub(crate) fn tree(&self) -> Vec<Process> {
        processes::tree(self.pid)
    }

    /// Bytes of memory that its processes take together.
    pub(crate) fn memory(&self) -> u64 {
        self.tree().iter().map(Process::memory).sum()
    }

    pub(crate) fn signal(&self, signal: i32) {
        processes::kill(self.pid, signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                return status;
            }
            assert!(
                start.elapsed() < limit,
                "the server has not ended within {limit:?}: {}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends the signal and waits for the end. Nothing may be left behind.
    #[track_caller]
    pub(crate) fn stop(&mut self, signal: i32, limit: Duration) -> ExitStatus {
        let processes = self.tree();
        self.signal(signal);
        let status = self.wait(limit);
        let start = Instant::now();
        loop {
            let left: Vec<&Process> = processes
                .iter()
                .filter(|process| process.is_alive())
                .collect();
            if left.is_empty() {
                break;
            }
            assert!(
                start.elapsed() < Duration::from_secs(2),
                "processes are left behind: {left:?}{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Address::Unix(path) = &self.address {
            assert!(
                !path.exists(),
                "the socket {} is left behind",
                path.display()
            );
        }
        status
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_none() {
            return;
        }
        if std::thread::panicking() {
            eprintln!("{}", self.said());
            let processes = self.tree();
            self.signal(libc::SIGTERM);
            let start = Instant::now();
            let child = self.child.as_mut().unwrap();
            while matches!(child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(5));
            }
            for process in processes.iter().filter(|process| process.is_alive()) {
                processes::kill(process.pid, libc::SIGKILL);
            }
            let _ = child.wait();
            return;
        }
        self.stop(libc::SIGQUIT, Duration::from_secs(10));
    }
}

/// A directory that PHP, running as another account, may enter.
pub(crate) fn directory() -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("howdah-")
        .tempdir()
        .unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Writes a file that everybody may read, and the directories on the way to it.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) {
    let parent = path.parent().unwrap();
    if !parent.exists() {
        fs::create_dir_all(parent).unwrap();
    }
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("HOWDAH_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_howdah").into(), PathBuf::from)
}

/// Starts a process that ends with this one, even if this one is killed.
pub(crate) fn spawn(mut command: Command) -> Child {
    // The signal comes when the thread that started the process ends, and tests' threads are short-lived.
    type Job = Box<dyn FnOnce() + Send>;
    static SPAWNER: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| {
        let (give, take) = mpsc::channel::<Job>();
        std::thread::spawn(move || take.into_iter().for_each(|job| job()));
        give
    });
    // SAFETY: prctl(2) may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    let (give, take) = mpsc::channel();
    let job = Box::new(move || {
        let _ = give.send(command.spawn());
    });
    SPAWNER.send(job).unwrap();
    take.recv()
        .unwrap()
        .unwrap_or_else(|error| panic!("cannot start a program: {error}"))
}

/// A port that nobody listens on. Not from the range that the system gives to outgoing connections.
pub(crate) fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new(20_000 + (std::process::id() % 500) as u16 * 20));
    eventually("a free port", || {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .ok()
            .map(|_| port)
    })
}
