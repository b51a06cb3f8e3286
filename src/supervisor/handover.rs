//! What a pool's leader gets from the supervisor, which starts it as another run of the same program.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::privileges::Account;
use super::{Php, sys};
use crate::config::{Level, Pool};
use crate::observe::Scoreboard;

/// All that a leader must know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Handover {
    pub(super) pool: Pool,
    /// Who runs PHP.
    pub(super) account: Account,
    pub(super) php: Php,
    /// This program, for `PHP_BINARY`.
    pub(super) executable: PathBuf,
    pub(super) log_level: Level,
    /// Interpreters of this leader: the pool's, or its share of them.
    pub(super) interpreters: u32,
    /// The supervisor's process number, to find out whether it still is the parent.
    pub(super) supervisor: i32,
    pub(super) descriptors: Descriptors,
}

/// The numbers of descriptors that are open in the leader.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Descriptors {
    /// The pool's socket.
    pub(super) listener: RawFd,
    /// Where messages for the log go, see [`Log::relay`](crate::observe::Log::relay).
    pub(super) log: RawFd,
    pub(super) scoreboard: RawFd,
    /// A byte here says that the pool serves.
    pub(super) ready: RawFd,
}

impl Descriptors {
    pub(super) fn all(self) -> [RawFd; 4] {
        [self.listener, self.log, self.scoreboard, self.ready]
    }
}

impl Handover {
    /// Writes it to a file without a name.
    pub(super) fn write(&self) -> io::Result<OwnedFd> {
        let bytes = serde_json::to_vec(self)?;
        let mut file = File::from(memfd_create("howdah-pool", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&bytes)?;
        file.rewind()?;
        Ok(file.into())
    }

    /// Takes what the supervisor left open at this descriptor and at those that are named there.
    pub(super) fn receive(descriptor: RawFd) -> io::Result<(Self, Gifts)> {
        let mut bytes = Vec::new();
        File::from(sys::inherited(descriptor)?).read_to_end(&mut bytes)?;
        let handover: Self = serde_json::from_slice(&bytes)?;
        let descriptors = handover.descriptors;
        let gifts = Gifts {
            listener: sys::inherited(descriptors.listener)?,
            log: sys::inherited(descriptors.log)?,
            scoreboard: Scoreboard::from_fd(sys::inherited(descriptors.scoreboard)?)?,
            ready: sys::inherited(descriptors.ready)?,
        };
        Ok((handover, gifts))
    }
}

/// The [`Descriptors`], opened.
#[derive(Debug)]
pub(super) struct Gifts {
    pub(super) listener: OwnedFd,
    pub(super) log: OwnedFd,
    pub(super) scoreboard: Scoreboard,
    pub(super) ready: OwnedFd,
}
