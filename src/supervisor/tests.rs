//! What tests of this module share.

use std::num::NonZeroU32;

use crate::config::{Address, Listen, Pm, Pool, Timeouts};

/// A pool with every directive at its default.
pub(super) fn pool() -> Pool {
    Pool {
        name: "www".to_owned(),
        prefix: None,
        user: None,
        group: None,
        listen: Listen {
            address: Address::Tcp(Vec::new()),
            backlog: 511,
            owner: None,
            group: None,
            mode: 0o660,
            allowed_clients: None,
            wrong_clients: Vec::new(),
        },
        pm: Pm {
            max_children: NonZeroU32::MIN,
            processes: None,
            max_requests: None,
            max_queue: 0,
        },
        timeouts: Timeouts {
            terminate: None,
            queue: None,
            header: None,
            body: None,
            send: None,
            idle: None,
        },
        env: Vec::new(),
        php: Vec::new(),
        limit_extensions: Vec::new(),
        chdir: None,
        clear_env: true,
        catch_workers_output: false,
    }
}
