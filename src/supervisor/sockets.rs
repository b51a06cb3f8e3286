//! Listening sockets.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use socket2::{Domain, SockAddr, Socket, Type};

use super::error::Error;
use super::privileges;
use crate::config::{Address, Pool};
use crate::observe::Log;

/// A socket that listens. The file of a Unix socket goes when this is dropped.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) socket: OwnedFd,
    _file: Option<SocketFile>,
}

/// Opens a pool's socket.
pub(super) fn open(pool: &Pool, log: &Log) -> Result<Listening, Error> {
    match &pool.listen.address {
        Address::Unix(path) => unix(pool, path),
        Address::Tcp(addresses) => tcp(pool, addresses, log),
    }
}

fn unix(pool: &Pool, path: &Path) -> Result<Listening, Error> {
    let owner = privileges::socket_owner(pool)?;
    let fail = |source: io::Error| Error::Bind {
        pool: pool.name.clone(),
        address: path.display().to_string(),
        remedy: match source.kind() {
            io::ErrorKind::NotFound => "create its directory or choose another path",
            io::ErrorKind::PermissionDenied => {
                "let this user write to its directory or choose another path"
            }
            _ => "choose another path",
        },
        source,
    };
    let address = SockAddr::unix(path).map_err(fail)?;
    clear_the_way(pool, path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(fail)?;
    // The file is made with its permissions: at no time can more people connect than may.
    let before = umask(!mode(pool.listen.mode) & mode(0o777));
    let bound = socket.bind(&address);
    umask(before);
    bound.map_err(fail)?;
    let file = SocketFile::new(path).map_err(fail)?;
    if owner != (None, None) {
        nix::unistd::chown(path, owner.0, owner.1).map_err(|error| Error::Chown {
            pool: pool.name.clone(),
            path: path.to_owned(),
            source: error.into(),
        })?;
    }
    listen(&socket, pool).map_err(fail)?;
    Ok(Listening {
        socket: socket.into(),
        _file: Some(file),
    })
}

fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits)
}

/// Removes a socket that nobody answers on, which a crash may have left.
fn clear_the_way(pool: &Pool, path: &Path, address: &SockAddr) -> Result<(), Error> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let (pool, path) = (pool.name.clone(), path.to_owned());
    if !found.file_type().is_socket() {
        return Err(Error::NotASocket { pool, path });
    }
    let answer = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        // Does not wait for a place in a queue that is full, which is an answer, too.
        socket.set_nonblocking(true)?;
        socket.connect(address)
    });
    match answer {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            // If it cannot be removed, bind says so.
            let _ = fs::remove_file(&path);
            Ok(())
        }
        // A permission that is denied is for bind to report.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        _ => Err(Error::SocketInUse { pool, path }),
    }
}

fn tcp(pool: &Pool, addresses: &[SocketAddr], log: &Log) -> Result<Listening, Error> {
    let mut failure = None;
    for &address in addresses {
        if let Some((failed, error)) = &failure {
            log.notice(format_args!(
                "[pool {}] Failed binding to {failed}: {error}; trying {address}",
                pool.name
            ));
        }
        match bind(pool, address) {
            Ok(socket) => {
                return Ok(Listening {
                    socket: socket.into(),
                    _file: None,
                });
            }
            Err(error) => failure = Some((address, error)),
        }
    }
    let source = failure.map_or_else(
        || io::ErrorKind::AddrNotAvailable.into(),
        |(_, error)| error,
    );
    Err(Error::Bind {
        pool: pool.name.clone(),
        address: pool.listen.address.to_string(),
        remedy: match source.kind() {
            io::ErrorKind::AddrInUse => {
                "stop the program that listens there or choose another port"
            }
            io::ErrorKind::PermissionDenied => "start as root or choose a port above 1023",
            _ => "choose an address of this machine",
        },
        source,
    })
}

fn bind(pool: &Pool, address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // Every address means IPv4 as well, whatever the system's default.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    listen(&socket, pool)?;
    Ok(socket)
}

fn listen(socket: &Socket, pool: &Pool) -> io::Result<()> {
    // Several processes accept; the one that comes too late must not hang.
    socket.set_nonblocking(true)?;
    socket.listen(pool.listen.backlog)
}

/// A Unix socket's file, which goes when this is dropped.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: file.dev(),
            inode: file.ino(),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A successor may have made another one.
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == (self.device, self.inode));
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpStream;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::{Mutex, PoisonError};

    use super::super::tests::pool;
    use super::*;
    use crate::config::Level;

    /// The umask is the process's, and other tests run beside these.
    static UMASK: Mutex<()> = Mutex::new(());

    fn open(pool: &Pool, log: &Log) -> Result<Listening, Error> {
        let _alone = UMASK.lock().unwrap_or_else(PoisonError::into_inner);
        super::open(pool, log)
    }

    fn log() -> Log {
        Log::new(tempfile::tempfile().unwrap().into(), Level::Debug)
    }

    fn on_path(path: &Path) -> Pool {
        let mut pool = pool();
        pool.listen.address = Address::Unix(path.to_owned());
        pool
    }

    fn on(addresses: &[&str]) -> Pool {
        let mut pool = pool();
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        pool.listen.address = Address::Tcp(addresses.collect());
        pool
    }

    #[test]
    fn a_unix_socket_has_its_mode_and_goes_in_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        for mode in [0o660, 0o666, 0o600, 0o777] {
            let mut pool = on_path(&path);
            pool.listen.mode = mode;
            let listening = open(&pool, &log()).unwrap();
            let found = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{found:o}");
            UnixStream::connect(&path).unwrap();
            drop(listening);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = open(&on_path(&path), &log()).unwrap();
        let error = open(&on_path(&path), &log()).unwrap_err();
        assert!(matches!(error, Error::SocketInUse { .. }), "{error}");
        UnixStream::connect(&path).unwrap();
        drop(first);
    }

    #[test]
    fn a_full_queue_is_alive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let mut pool = on_path(&path);
        pool.listen.backlog = 0;
        let _first = open(&pool, &log()).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        let error = open(&pool, &log()).unwrap_err();
        assert!(matches!(error, Error::SocketInUse { .. }), "{error}");
    }

    #[test]
    fn a_file_in_the_way_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        fs::write(&path, "precious").unwrap();
        let error = open(&on_path(&path), &log()).unwrap_err();
        assert!(matches!(error, Error::NotASocket { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_successors_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = open(&on_path(&path), &log()).unwrap();
        fs::rename(&path, directory.path().join("old")).unwrap();
        let _second = UnixListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[test]
    fn a_missing_directory_is_reported_with_a_remedy() {
        let error = open(&on_path(Path::new("/nowhere/s")), &log()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("'/nowhere/s'") && text.contains("create its directory"),
            "{text}"
        );
    }

    #[test]
    fn the_first_address_that_can_be_bound_is_taken() {
        // An address of nobody's (RFC 5737), then one of ours.
        let listening = open(&on(&["192.0.2.1:9000", "127.0.0.1:0"]), &log()).unwrap();
        let socket = Socket::from(listening.socket);
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(address.ip().to_string(), "127.0.0.1");
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn every_address_is_ipv4_too() {
        let Ok(listening) = open(&on(&["[::]:0"]), &log()) else {
            return; // no IPv6 here
        };
        let socket = Socket::from(listening.socket);
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn a_taken_port_is_reported_with_a_remedy() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = open(&on(&[&address]), &log()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("'{address}'")) && error.contains("stop the program"),
            "{error}"
        );
    }
}
