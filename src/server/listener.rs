//! Where connections come from: the pool's socket, and siblings that have no interpreter free.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{SockFlag, accept4};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::{spawn_local, yield_now};
use tokio::time::sleep;

use super::connection::{self, Connection};
use super::siblings::{self, Arrivals, Siblings};
use super::{Ground, Phase, sys};
use crate::config::Level;

/// How long a process without a free interpreter leaves a new connection to its siblings before it takes it in itself.
const AFTER_YOU: Duration = Duration::from_millis(5);

/// How often a busy process looks for connections that have waited for too long.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How long nothing is accepted when there are no descriptors left.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// All that the I/O thread does, but for the connections themselves.
pub(super) struct Listener {
    socket: Rc<AsyncFd<OwnedFd>>,
    arrivals: Arrivals,
    shared: Rc<Shared>,
    phase: watch::Receiver<Phase>,
}

/// What every connection is given.
pub(super) struct Shared {
    pub(super) ground: Rc<Ground>,
    /// Where connections can be handed on.
    pub(super) give: OwnedFd,
    /// Read into before it is known what comes; nothing stays in it.
    pub(super) buffer: std::cell::RefCell<Vec<u8>>,
    live: Cell<usize>,
    none_left: Notify,
}

/// Counts a connection for as long as it lives.
struct Alive(Rc<Shared>);

impl Alive {
    fn new(shared: &Rc<Shared>) -> Self {
        shared.live.set(shared.live.get() + 1);
        Self(Rc::clone(shared))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.live.set(self.0.live.get() - 1);
        if self.0.live.get() == 0 {
            self.0.none_left.notify_one();
        }
    }
}

impl Listener {
    pub(super) fn new(
        socket: OwnedFd,
        siblings: Siblings,
        ground: Rc<Ground>,
        phase: watch::Receiver<Phase>,
    ) -> io::Result<Self> {
        // Several processes wait for one socket, and one of them gets what came.
        fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (give, arrivals) = siblings.split()?;
        Ok(Self {
            socket: Rc::new(sys::watch(socket, Interest::READABLE)?),
            arrivals,
            shared: Rc::new(Shared {
                ground,
                give,
                buffer: std::cell::RefCell::new(vec![0; connection::READ_AT_ONCE]),
                live: Cell::new(0),
                none_left: Notify::new(),
            }),
            phase,
        })
    }

    /// Serves until the phase changes, and then until no connection is left.
    pub(super) async fn serve(self) -> io::Result<()> {
        let Self {
            socket,
            arrivals,
            shared,
            mut phase,
        } = self;
        let mut quit = signal(SignalKind::quit())?;
        let doors = [
            spawn_local(accept(socket, Rc::clone(&shared), phase.clone())),
            spawn_local(take_over(arrivals, Rc::clone(&shared), phase.clone())),
        ];
        loop {
            tokio::select! {
                _ = quit.recv() => { shared.ground.phase.send_replace(Phase::Quitting); }
                changed = phase.changed() => {
                    if changed.is_err() || *phase.borrow_and_update() != Phase::Serving {
                        break;
                    }
                }
            }
        }
        for door in &doors {
            door.abort();
        }
        while shared.live.get() > 0 {
            tokio::select! {
                () = shared.none_left.notified() => {}
                _ = quit.recv() => { shared.ground.phase.send_replace(Phase::Quitting); }
            }
        }
        Ok(())
    }
}

/// Accepts connections for ever.
async fn accept(socket: Rc<AsyncFd<OwnedFd>>, shared: Rc<Shared>, phase: watch::Receiver<Phase>) {
    let dispatch = &shared.ground.dispatch;
    loop {
        if !shared.ground.is_alone && !dispatch.is_free() {
            sleep(AFTER_YOU).await;
        }
        let Ok(mut ready) = socket.readable().await else {
            return;
        };
        if !shared.ground.is_alone && !dispatch.is_free() {
            sleep(AFTER_YOU).await;
        }
        match accept4(
            socket.as_raw_fd(),
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        ) {
            Ok(descriptor) => {
                // SAFETY: accept4 has just made it.
                let connection = unsafe { sys::own(descriptor) };
                if is_allowed(&connection, &shared) {
                    begin(connection, &shared, &phase, false);
                    // It may bring a request at once; whether another one can be taken depends on that.
                    yield_now().await;
                }
            }
            Err(nix::Error::EAGAIN) => ready.clear_ready(),
            // The client gave up before it was its turn.
            Err(nix::Error::ECONNABORTED | nix::Error::EINTR) => {}
            Err(error) => {
                shared.ground.log.write(
                    Level::Error,
                    &format!(
                        "[pool {}] cannot accept connections: {error}; trying again (see rlimit_files, or LimitNOFILE of the service)",
                        shared.ground.pool.name
                    ),
                );
                sleep(OUT_OF_DESCRIPTORS).await;
            }
        }
    }
}

/// Takes connections from siblings while an interpreter is free.
async fn take_over(arrivals: Arrivals, shared: Rc<Shared>, phase: watch::Receiver<Phase>) {
    let dispatch = &shared.ground.dispatch;
    loop {
        while !dispatch.is_free() {
            tokio::select! {
                () = dispatch.freed.notified() => {}
                () = sleep(LOOK_AGAIN) => turn_away_the_late(&arrivals, &shared, &phase),
            }
        }
        let Ok(mut ready) = arrivals.readable().await else {
            return;
        };
        if !dispatch.is_free() {
            continue;
        }
        match siblings::take(arrivals.get_ref()) {
            Ok(Some(connection)) => {
                begin(connection, &shared, &phase, false);
                yield_now().await;
            }
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error) => {
                shared.ground.log.write(
                    Level::Error,
                    &format!(
                        "[pool {}] cannot take over a connection: {error}",
                        shared.ground.pool.name
                    ),
                );
                sleep(OUT_OF_DESCRIPTORS).await;
            }
        }
    }
}

/// While all interpreters of all processes are busy, their I/O threads see to it that nobody waits for ever.
fn turn_away_the_late(arrivals: &Arrivals, shared: &Rc<Shared>, phase: &watch::Receiver<Phase>) {
    let Some(limit) = shared.ground.pool.timeouts.queue else {
        return;
    };
    while siblings::waited(arrivals.get_ref()).is_some_and(|waited| waited >= limit) {
        match siblings::take(arrivals.get_ref()) {
            Ok(Some(connection)) => begin(connection, shared, phase, true),
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

fn begin(connection: OwnedFd, shared: &Rc<Shared>, phase: &watch::Receiver<Phase>, is_late: bool) {
    let Ok(socket) = sys::watch(connection, Interest::READABLE | Interest::WRITABLE) else {
        return;
    };
    let alive = Alive::new(shared);
    let connection = Connection::new(Rc::clone(shared), phase.clone(), is_late);
    spawn_local(async move {
        connection.serve(socket).await;
        drop(alive);
    });
}

/// `listen.allowed_clients`. It concerns TCP only.
fn is_allowed(connection: &OwnedFd, shared: &Shared) -> bool {
    let socket = SockRef::from(connection);
    let Some(address) = socket.peer_addr().ok().and_then(|peer| peer.as_socket()) else {
        return true;
    };
    // Answers are written whole; waiting to join them with later ones only delays them.
    let _ = socket.set_tcp_nodelay(true);
    let allowed = shared.ground.pool.listen.allows(address.ip());
    if !allowed {
        shared.ground.log.write(
            Level::Warning,
            &format!(
                "[pool {}] Connection disallowed: IP address '{}' has been dropped.",
                shared.ground.pool.name,
                address.ip()
            ),
        );
    }
    allowed
}
