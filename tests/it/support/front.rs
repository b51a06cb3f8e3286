//! Real web servers in front of a server, each with its configuration from `examples/`.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::Shutdown;
use tempfile::TempDir;

use super::PATIENCE;
use super::client::Address;
use super::http::Browser;
use super::processes::{self, account};
use super::server::{directory, free_port, spawn, write};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Apache,
    Caddy,
    Lighttpd,
    Haproxy,
}

/// A running web server. It ends with this value.
pub(crate) struct Front {
    child: Child,
    dir: TempDir,
    address: SocketAddr,
}

impl Front {
    /// Serves the site in this directory, whose PHP `backend` runs.
    pub(crate) fn start(kind: Kind, root: &Path, backend: &Address) -> Self {
        for _ in 0..5 {
            let dir = directory();
            let port = free_port();
            let output = File::create(dir.path().join("output")).unwrap();
            let mut command = command(kind, dir.path(), root, backend, port);
            command
                .stdin(Stdio::null())
                .stdout(output.try_clone().unwrap())
                .stderr(output)
                // Apache signals its whole process group when it ends.
                .process_group(0);
            let mut front = Self {
                child: spawn(command),
                dir,
                address: (Ipv4Addr::LOCALHOST, port).into(),
            };
            if front.is_ready() {
                return front;
            }
            // Another process may have taken the port in the meantime. All servers say so in the same words.
            let taken = front
                .said()
                .to_ascii_lowercase()
                .contains("address already in use");
            assert!(taken, "{kind:?} did not start: {}", front.said());
        }
        panic!("{kind:?} found no free port");
    }

    /// Whether it came to listen; false if it ended.
    fn is_ready(&mut self) -> bool {
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if listens(self.child.id().cast_signed(), self.address.port()) {
                return true;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "the web server is not ready: {}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser::new(self.address)
    }

    /// `http://` and the host, without a slash.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that it printed.
    fn said(&self) -> String {
        let output = fs::read(self.dir.path().join("output")).unwrap_or_default();
        String::from_utf8_lossy(&output).into_owned()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- web server\n{}---", self.said());
        }
        let pid = self.child.id().cast_signed();
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            // More than once: one that comes while a server is starting may be lost.
            if start.elapsed() > Duration::from_secs(10) {
                processes::kill(-pid, libc::SIGKILL);
            } else {
                processes::kill(pid, libc::SIGTERM);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The server's program with its example configuration, in which only names of places are replaced.
fn command(kind: Kind, dir: &Path, root: &Path, backend: &Address, port: u16) -> Command {
    let root = root.to_str().unwrap();
    let backend = match (kind, backend) {
        (Kind::Haproxy, Address::Unix(path)) => format!("unix@{}", path.display()),
        _ => backend.to_string(),
    };
    let example = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples")
            .join(name);
        fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .replace("/srv/hello", root)
            .replace("/run/howdah/hello.sock", &backend)
            .replace("127.0.0.1:9000", &backend)
            .replace("8080", &port.to_string())
    };
    let put = |name: &str, text: &str| -> PathBuf {
        let path = dir.join(name);
        write(&path, text);
        path
    };
    let dir = dir.display();
    let mut command;
    match kind {
        Kind::Nginx => {
            put("site.conf", &example("nginx/hello.conf"));
            let user = account().map_or(String::new(), |user| format!("user {user};"));
            let temporary: String = ["client_body", "fastcgi", "proxy", "scgi", "uwsgi"]
                .iter()
                .map(|name| format!("{name}_temp_path {dir}/{name};"))
                .collect();
            let main = format!(
                "{user} worker_processes 1; daemon off; pid {dir}/pid;
                 events {{}}
                 http {{ include /etc/nginx/mime.types; access_log off; {temporary} include {dir}/site.conf; }}"
            );
            command = Command::new("nginx");
            command
                .args(["-e", "stderr", "-c"])
                .arg(put("nginx.conf", &main));
        }
        Kind::Apache => {
            put("site.conf", &example("apache/hello.conf"));
            let user =
                account().map_or(String::new(), |user| format!("User {user}\nGroup {user}\n"));
            let modules: String = [
                "mpm_event",
                "authz_core",
                "dir",
                "alias",
                "mime",
                "proxy",
                "proxy_fcgi",
            ]
            .iter()
            .map(|name| {
                format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
            })
            .collect();
            let main = format!(
                "ServerRoot {dir}\nServerName localhost\nPidFile {dir}/pid\nDefaultRuntimeDir {dir}\n\
                 ErrorLog /dev/stderr\n{modules}{user}TypesConfig /etc/mime.types\nInclude {dir}/site.conf\n"
            );
            command = Command::new("apache2");
            command
                .args(["-D", "FOREGROUND", "-f"])
                .arg(put("apache.conf", &main));
        }
        Kind::Caddy => {
            command = Command::new("caddy");
            command
                .args(["run", "--adapter", "caddyfile", "--config"])
                .arg(put("Caddyfile", &example("caddy/Caddyfile")))
                .env("CADDY_ADMIN", format!("unix/{dir}/admin"))
                .env("HOME", dir.to_string());
        }
        Kind::Lighttpd => {
            command = Command::new("lighttpd");
            command
                .args(["-D", "-f"])
                .arg(put("lighttpd.conf", &example("lighttpd/lighttpd.conf")));
        }
        Kind::Haproxy => {
            let main = "global\n log stderr format raw local0\n\
                        defaults\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n";
            command = Command::new("haproxy");
            command
                .arg("-f")
                .arg(put("haproxy.cfg", main))
                .arg("-f")
                .arg(put("hello.cfg", &example("haproxy/hello.cfg")));
        }
    }
    // Servers' programs are not on everybody's path.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    command
}

/// Whether the process or one below it listens on this port. If somebody answered there, it could be anybody.
fn listens(pid: i32, port: u16) -> bool {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .map(|table| fs::read_to_string(table).unwrap_or_default())
        .flat_map(|table| table.lines().skip(1).map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| {
            // Number, local address, remote address, state (0A: listens), …, inode
            let fields: Vec<&str> = line.split_whitespace().collect();
            (fields.get(1)?.ends_with(&format!(":{port:04X}")) && *fields.get(3)? == "0A")
                .then(|| Some(format!("socket:[{}]", fields.get(9)?)))?
        })
        .collect();
    !sockets.is_empty()
        && processes::tree(pid)
            .iter()
            .filter_map(|process| fs::read_dir(format!("/proc/{}/fd", process.pid)).ok())
            .flatten()
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .any(|target| {
                sockets
                    .iter()
                    .any(|socket| target.as_os_str() == socket.as_str())
            })
}

/// Stands between a web server and its backend, and counts connections.
pub(crate) struct Relay {
    address: Address,
    connections: Arc<AtomicUsize>,
    _dir: Option<TempDir>,
}

impl Relay {
    /// On a Unix socket.
    pub(crate) fn unix(backend: &Address) -> Self {
        let dir = directory();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let accept = move || Ok(listener.accept()?.0.into());
        Self::serve(Address::Unix(path), Some(dir), accept, backend)
    }

    /// On a TCP port.
    pub(crate) fn tcp(backend: &Address) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let accept = move || Ok(listener.accept()?.0.into());
        Self::serve(address, None, accept, backend)
    }

    /// Its threads end with the test program at the latest.
    fn serve(
        address: Address,
        dir: Option<TempDir>,
        accept: impl Fn() -> io::Result<OwnedFd> + Send + 'static,
        backend: &Address,
    ) -> Self {
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, backend) = (Arc::clone(&connections), backend.clone());
        std::thread::spawn(move || {
            while let Ok(front) = accept() {
                count.fetch_add(1, Ordering::Relaxed);
                // Where the backend takes no connection, the front's is closed.
                let _ = connect(&backend).and_then(|back| join(front.into(), back.into()));
            }
        });
        Self {
            address,
            connections,
            _dir: dir,
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// How many there have been up to now.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn connect(address: &Address) -> io::Result<OwnedFd> {
    Ok(match address {
        Address::Unix(path) => UnixStream::connect(path)?.into(),
        Address::Tcp(address) => TcpStream::connect(address)?.into(),
    })
}

/// Passes on what comes from either, until one of them ends.
fn join(one: File, other: File) -> io::Result<()> {
    for (mut from, mut to) in [(one.try_clone()?, other.try_clone()?), (other, one)] {
        std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = nix::sys::socket::shutdown(from.as_raw_fd(), Shutdown::Both);
            let _ = nix::sys::socket::shutdown(to.as_raw_fd(), Shutdown::Both);
        });
    }
    Ok(())
}
