//! Where connections come from: the pool's socket, and siblings that have no interpreter free.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use socket2::{SockAddr, SockRef};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::{spawn_local, yield_now};
use tokio::time::sleep;

use super::connection::{self, Connection, Origin};
use super::siblings::{self, Arrivals, Siblings};
use super::{Ground, Phase, sys};
use crate::config::{Address, Level};

/// How long a process without a free interpreter leaves a new connection to its siblings before it takes it in itself.
const AFTER_YOU: Duration = Duration::from_millis(5);

/// How often a busy process looks for connections that have waited for too long.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How long a process that should retire goes on for the sake of requests that are half-way here. Until it has ended nobody
/// takes its place, so that the pool would be smaller for as long as its slowest client likes.
const RETIRE_AT_LAST: Duration = Duration::from_secs(60);

/// How long nothing is accepted when there are no descriptors left.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// All that the I/O thread does, but for the connections themselves.
pub(super) struct Listener {
    socket: Rc<AsyncFd<OwnedFd>>,
    arrivals: Rc<Arrivals>,
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
    /// How many requests are half-way here.
    pub(super) arriving: Rc<Cell<usize>>,
    live: Cell<usize>,
    none_left: Notify,
    /// There is room for another connection again.
    room: Notify,
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
        self.0.room.notify_waiters();
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
            arrivals: Rc::new(arrivals),
            shared: Rc::new(Shared {
                ground,
                give,
                buffer: std::cell::RefCell::new(vec![0; connection::READ_AT_ONCE]),
                arriving: Rc::default(),
                live: Cell::new(0),
                none_left: Notify::new(),
                room: Notify::new(),
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
        // Both are held until the end: a number that was free could become a script's file, which its children would lose
        // (`Engine::close_in_children`).
        let doors = [
            spawn_local(accept(
                Rc::clone(&socket),
                Rc::clone(&shared),
                phase.clone(),
            )),
            spawn_local(take_over(
                Rc::clone(&arrivals),
                Rc::clone(&shared),
                phase.clone(),
            )),
        ];
        let mut tired_since = None;
        loop {
            let rest = tired_since.map_or(Duration::MAX, |_| LOOK_AGAIN);
            tokio::select! {
                _ = quit.recv() => { shared.ground.phase.send_replace(Phase::Quitting); }
                changed = phase.changed() => if changed.is_err() { break },
                () = sleep(rest) => {}
            }
            // Not in the match itself, which would hold the lock that a change needs.
            let current = *phase.borrow_and_update();
            match current {
                Phase::Serving => {}
                Phase::Tired => {
                    let since = *tired_since.get_or_insert_with(Instant::now);
                    if shared.arriving.get() == 0 || since.elapsed() > RETIRE_AT_LAST {
                        shared.ground.phase.send_replace(Phase::Retiring);
                    }
                }
                Phase::Retiring | Phase::Quitting => break,
            }
        }
        for door in &doors {
            door.abort();
        }
        if *phase.borrow() == Phase::Quitting {
            let_in_the_last(&socket, &arrivals, &shared, &phase);
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
        while shared.live.get() >= shared.ground.most_connections {
            shared.room.notified().await;
        }
        if !shared.ground.is_alone && !dispatch.is_free() {
            sleep(AFTER_YOU).await;
        }
        let Ok(mut ready) = socket.readable().await else {
            return;
        };
        if !shared.ground.is_alone && !dispatch.is_free() {
            sleep(AFTER_YOU).await;
        }
        match SockRef::from(socket.get_ref()).accept() {
            Ok((connection, peer)) => {
                if is_allowed(&peer, &shared) {
                    if peer.as_socket().is_some() {
                        // Answers are written whole; waiting to join them with later ones only delays them.
                        let _ = connection.set_tcp_nodelay(true);
                    }
                    begin(connection.into(), &shared, &phase, Origin::Client);
                    // It may bring a request at once; whether another one can be taken depends on that.
                    yield_now().await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            // The client gave up before it was its turn.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                shared.ground.log(
                    Level::Error,
                    format_args!(
                        "cannot accept connections: {error}; trying again. If there are too many open files, raise \
                         LimitNOFILE of the service (ulimit -n)"
                    ),
                );
                sleep(OUT_OF_DESCRIPTORS).await;
            }
        }
    }
}

/// Takes connections from siblings while an interpreter is free.
async fn take_over(arrivals: Rc<Arrivals>, shared: Rc<Shared>, phase: watch::Receiver<Phase>) {
    let dispatch = &shared.ground.dispatch;
    loop {
        while shared.live.get() >= shared.ground.most_connections {
            shared.room.notified().await;
        }
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
            Ok(Some((connection, _))) => {
                begin(connection, &shared, &phase, Origin::Sibling);
                yield_now().await;
            }
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error) => {
                shared.ground.log(
                    Level::Error,
                    format_args!("cannot take over a connection: {error}"),
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
            // A sibling may have been faster, and this one have come later.
            Ok(Some((connection, waited))) if waited < limit => {
                begin(connection, shared, phase, Origin::Sibling);
            }
            Ok(Some((connection, _))) => begin(connection, shared, phase, Origin::Queue),
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

/// The pool quits: whoever has connected already is served.
fn let_in_the_last(
    socket: &AsyncFd<OwnedFd>,
    arrivals: &Arrivals,
    shared: &Rc<Shared>,
    phase: &watch::Receiver<Phase>,
) {
    while let Ok((connection, peer)) = SockRef::from(socket.get_ref()).accept() {
        if is_allowed(&peer, shared) {
            begin(connection.into(), shared, phase, Origin::Client);
        }
    }
    while let Ok(taken) = siblings::take(arrivals.get_ref()) {
        if let Some((connection, _)) = taken {
            begin(connection, shared, phase, Origin::Sibling);
        }
    }
}

fn begin(connection: OwnedFd, shared: &Rc<Shared>, phase: &watch::Receiver<Phase>, origin: Origin) {
    let connection = sys::out_of_the_way(connection);
    let Ok(socket) = sys::watch(connection, Interest::READABLE | Interest::WRITABLE) else {
        return;
    };
    let alive = Alive::new(shared);
    let connection = Connection::new(Rc::clone(shared), phase.clone(), origin);
    spawn_local(async move {
        connection.serve(socket).await;
        drop(alive);
    });
}

/// `listen.allowed_clients`. It concerns TCP only. The address is the one that accept(2) gave: a client that has gone again has
/// no other, though what it sent is still there.
fn is_allowed(peer: &SockAddr, shared: &Shared) -> bool {
    let listen = &shared.ground.pool.listen;
    if matches!(listen.address, Address::Unix(_)) {
        return true;
    }
    let Some(address) = peer.as_socket() else {
        return listen.allowed_clients.is_none();
    };
    let allowed = listen.allows(address.ip());
    if !allowed {
        shared.ground.log(
            Level::Warning,
            format_args!(
                "Connection disallowed: IP address '{}' has been dropped.",
                address.ip()
            ),
        );
    }
    allowed
}
