//! System calls that have no safe wrapper.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{ForkResult, Pid};

/// Which of the two processes this is after [`fork`].
pub(super) enum Forked {
    /// The one that was there, and the new one's number.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Makes a copy of this process.
///
/// Call it while no other thread of howdah's exists: the copy has the calling one only.
pub(super) fn fork() -> io::Result<Forked> {
    // SAFETY: the supervisor has one thread, and so have a pool's leader and the processes it forks until the server starts
    // theirs, so no lock of ours is held by a thread that the copy lacks. A thread that an extension of PHP started may be
    // there; the C library's own locks survive a fork, and PHP has no others that both would share.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Forked::Parent(child)),
        ForkResult::Child => Ok(Forked::Child),
    }
}

/// How a child ended: its number, and the status as waitpid(2) gives it. `None`: no child has ended.
///
/// nix refuses the statuses of children that real-time signals killed, having reaped them.
pub(super) fn reap() -> Option<(Pid, i32)> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for writes.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            -1 if Errno::last() == Errno::EINTR => {}
            pid if pid > 0 => return Some((Pid::from_raw(pid), status)),
            _ => return None,
        }
    }
}

/// Takes over a descriptor that the parent left open for this process.
///
/// # Errors
///
/// If it is not open, is one of the standard three, or was taken over before.
pub(super) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl checks the number itself, and F_GETFD changes nothing.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if number <= 2 || flags == -1 || flags & libc::FD_CLOEXEC != 0 {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: as above; F_SETFD sets nothing but this flag.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open and nobody's: whatever this program opens is close-on-exec from the start, and so is now what is
    // taken over here. This one was not, so the parent opened it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Starts `command` with these descriptors left open, and with no signal blocked: it inherits the mask of this thread,
/// which waits for signals in its own way.
pub(super) fn prepare_child(command: &mut Command, descriptors: Vec<RawFd>) {
    let prepare = move || {
        for &descriptor in &descriptors {
            // SAFETY: fcntl checks the number itself, and sets nothing but this flag.
            if unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        SigSet::empty().thread_set_mask()?;
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec. It calls fcntl and pthread_sigmask, which are safe there, and
    // allocates nothing: errors are numbers.
    unsafe { command.pre_exec(prepare) };
}

/// Closes, in programs that are started from here on, what this process was started with besides the standard three:
/// somebody's lock file or log has no business in a script.
pub(super) fn keep_descriptors_private() {
    // SAFETY: this closes nothing here; it only marks what is open. Linux before 5.11 knows no such call, and nothing changes.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// Lets children be waited for, whatever the process that started this one made of SIGCHLD.
pub(super) fn expect_children() -> io::Result<()> {
    // SAFETY: this sets no handler.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    Ok(())
}

/// Gives these signals their default actions. Whoever started howdah may have it ignore some (a shell does so with SIGINT
/// and SIGQUIT of what runs in its background, and nohup with SIGHUP), which every process and every program below would
/// inherit: a script's programs could not be interrupted, and a signal that comes before its handler would be lost.
///
/// Block them first, so that none acts before it is waited for.
pub(super) fn ignore_no_longer(signals: &[Signal]) -> io::Result<()> {
    for &one in signals {
        // SAFETY: this sets no handler.
        unsafe { signal(one, SigHandler::SigDfl) }?;
    }
    Ok(())
}

/// Takes back Rust's handlers for faults, which explain stack overflows on standard error. They let a process live on that
/// was sent such a signal by kill(2), and PHP's own faults are none of theirs.
///
/// Call it before PHP starts: extensions may have handlers of their own.
pub(super) fn die_of_faults() -> io::Result<()> {
    for fault in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: this sets no handler.
        unsafe { signal(fault, SigHandler::SigDfl) }?;
    }
    Ok(())
}

/// Sets variables of the environment, after clearing it if so asked.
///
/// Call it while no other thread of howdah's exists.
pub(super) fn set_environment<'a>(
    clear: bool,
    variables: impl Iterator<Item = (&'a str, &'a str)>,
) {
    if clear {
        // SAFETY: a leader, before it forks, has one thread. One that an extension started reads the environment at its own
        // risk: php-fpm's processes do the same at this point.
        unsafe { libc::clearenv() };
    }
    for (name, value) in variables {
        if is_variable(name, value) {
            // SAFETY: as above.
            unsafe { std::env::set_var(name, value) };
        }
    }
}

/// What the environment cannot hold is left out, as setenv(3) does.
fn is_variable(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn only_what_the_parent_left_open_is_taken_over() {
        let own = tempfile::tempfile().unwrap();
        for number in [-1, 0, 1, 2, 1_000_000, own.as_raw_fd()] {
            assert!(inherited(number).is_err(), "{number}");
        }
        // SAFETY: dup makes a descriptor that nobody owns.
        let left_open = unsafe { libc::dup(own.as_raw_fd()) };
        let taken = inherited(left_open).unwrap();
        assert!(inherited(left_open).is_err());
        drop(taken);
    }

    #[test]
    fn what_is_no_variable_is_left_out() {
        assert!(is_variable("A", "") && is_variable("A", "b=c"));
        assert!(!is_variable("", "x") && !is_variable("A=B", "x"));
        assert!(!is_variable("A\0", "x") && !is_variable("A", "x\0"));
    }
}
