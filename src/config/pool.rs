//! Pools and global settings as the rest of the program uses them, and how they are made of what a file says.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{Error, Problem, Warning};
use super::file::Settings;
use super::listen::{Address, Listen};
use super::settings::{PoolSettings, Setting};
use super::value::{Account, Level, ListenText, LogText, PathText};
use super::{Options, paths};

/// Permissions of a Unix socket when none are given.
const DEFAULT_SOCKET_MODE: u32 = 0o660;

/// What `listen.backlog = -1` amounts to when the queue's length is asked for: Linux's default of `net.core.somaxconn`.
const SYSTEM_BACKLOG: u32 = 4096;

/// The settings of `[global]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// Holds the supervisor's process number while it runs.
    pub pid: Option<PathBuf>,
    /// Where messages go.
    pub error_log: LogTarget,
    /// Messages below this level are dropped.
    pub log_level: Level,
    /// How long running requests may go on after a graceful stop or a reload; zero: as long as they take.
    pub process_control_timeout: Duration,
    /// Go into the background once ready.
    pub daemonize: bool,
}

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Appended to a file.
    File(PathBuf),
    /// The standard error that howdah was started with. It may be a socket, which cannot be opened by a path.
    Stderr,
}

/// One pool: an address, an account, and how PHP runs there.
///
/// It is handed to pool processes as bytes, see [`Pool::to_bytes`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The section's name.
    pub name: String,
    /// The directory that relative paths started at, if the pool has its own.
    pub prefix: Option<PathBuf>,
    /// Name or number of the user who runs PHP. When root starts howdah there is one, unless root was allowed (`-R`).
    pub user: Option<String>,
    /// Name or number of PHP's group; `None` is the user's own.
    pub group: Option<String>,
    /// The listening socket.
    pub listen: Listen,
    /// How many processes, interpreters and waiting requests.
    pub pm: Pm,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Variables for the environment of scripts. Set them in this order: a later one replaces an earlier one.
    pub env: Vec<(String, String)>,
    /// Settings of PHP. Apply them in this order: a later one replaces an earlier one.
    pub php: Vec<PhpIni>,
    /// A script's name ends in one of these, byte for byte; none means any name will do.
    pub limit_extensions: Vec<String>,
    /// The working directory of the pool's processes. It existed when the configuration was read.
    pub chdir: Option<PathBuf>,
    /// Scripts see `env` only, not howdah's own environment.
    pub clear_env: bool,
    /// Log what scripts write to the standard output and standard error.
    pub catch_workers_output: bool,
}

/// How many processes, interpreters and waiting requests a pool has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pm {
    /// Requests that run at once: interpreters.
    pub max_children: NonZeroU32,
    /// Processes that share the interpreters of a thread-safe PHP among them; `None`: not given. An ordinary PHP has one
    /// interpreter for each process, whatever this says.
    pub processes: Option<NonZeroU32>,
    /// An interpreter is replaced after this many requests; `None`: never.
    pub max_requests: Option<NonZeroU32>,
    /// Requests that may wait for an interpreter after they have been read.
    pub max_queue: u32,
}

/// How long things may take; `None` is for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// A request runs.
    pub terminate: Option<Duration>,
    /// A request waits for an interpreter.
    pub queue: Option<Duration>,
    /// A client sends the parameters of a request it has begun.
    pub header: Option<Duration>,
    /// A client is silent in the middle of a body.
    pub body: Option<Duration>,
    /// A client takes nothing of an answer.
    pub send: Option<Duration>,
    /// A connection is kept open between requests.
    pub idle: Option<Duration>,
}

/// A setting of php.ini. Switches have the value `1` or `0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhpIni {
    /// The setting's name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Neither scripts nor `.user.ini` may change it.
    pub admin: bool,
}

impl Pool {
    /// For a pool process, which is another run of the same binary.
    ///
    /// # Errors
    ///
    /// If a path is not UTF-8; those of [`load`](super::load) are.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// The pool that [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    ///
    /// If it did not write these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// Makes the global settings; relative paths in `settings` become full ones.
pub(super) fn global(settings: &mut Settings, options: &Options<'_>) -> Global {
    let global = &mut settings.global;
    let full = |path: &str| paths::full(path, None, options, options.local_state_dir);
    if let (None, Some(pid)) = (&global.pid.value, options.pid) {
        global.pid.value = Some(PathText(pid.display().to_string()));
    }
    if let Some(pid) = &mut global.pid.value {
        pid.0 = full(&pid.0);
    }
    if let Some(daemonize) = options.daemonize {
        global.daemonize.value = daemonize;
    }
    global.error_log.value = LogText(full(&global.error_log.value.0));
    let error_log = match global.error_log.value.0.as_str() {
        "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => LogTarget::Stderr,
        path => LogTarget::File(path.into()),
    };
    Global {
        pid: global.pid.value.as_ref().map(|pid| PathBuf::from(&pid.0)),
        error_log,
        log_level: global.log_level.value,
        process_control_timeout: global.process_control_timeout.value.duration(),
        daemonize: global.daemonize.value,
    }
}

/// Makes the pools, as far as they are right; relative paths in `settings` become full ones.
pub(super) fn pools(file: &Path, settings: &mut Settings, options: &Options<'_>) -> Vec<Pool> {
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    if settings.pools.is_empty() && !settings.incomplete {
        errors.push(Error {
            place: None,
            pool: None,
            problem: Problem::NoPools {
                file: file.to_owned(),
            },
        });
    }
    let mut pools: Vec<Pool> = Vec::new();
    for pool in &mut settings.pools {
        let mut builder = Builder {
            pool,
            options,
            complete: !settings.incomplete,
            errors: Vec::new(),
            warnings: &mut warnings,
        };
        let built = builder.build();
        errors.append(&mut builder.errors);
        let Some(built) = built else { continue };
        let twin = pools
            .iter()
            .find(|other| other.listen.address.collides(&built.listen.address));
        if let Some(twin) = twin {
            let problem = Problem::DuplicateListen {
                other: twin.name.clone(),
                address: built.listen.address.to_string(),
            };
            errors.push(Error {
                place: pool.listen.place.clone(),
                pool: Some(pool.name.clone()),
                problem,
            });
        }
        pools.push(built);
    }
    settings.errors.append(&mut errors);
    settings.warnings.append(&mut warnings);
    pools
}

struct Builder<'a> {
    pool: &'a mut PoolSettings,
    options: &'a Options<'a>,
    /// All lines could be read: what is not there is missing.
    complete: bool,
    errors: Vec<Error>,
    warnings: &'a mut Vec<Warning>,
}

impl Builder<'_> {
    /// `None` if an error keeps the pool from being built. Errors that do not are reported all the same.
    fn build(&mut self) -> Option<Pool> {
        let prefix = self.prefix();
        let (user, group) = self.accounts();
        let address = self.address(prefix.as_deref());
        self.present(&self.pool.pm.clone(), Problem::MissingPm);
        let max_children = self.present(
            &self.pool.pm_max_children.clone(),
            Problem::MissingMaxChildren,
        );
        let chdir = self.chdir(prefix.as_deref());
        self.php_paths(prefix.as_deref());
        let (allowed_clients, wrong_clients) = self.clients();
        let pool = &*self.pool;
        let backlog = pool.listen_backlog.value.0;
        Some(Pool {
            name: pool.name.clone(),
            prefix: prefix.map(PathBuf::from),
            user,
            group,
            listen: Listen {
                address: address?,
                backlog,
                owner: account(&pool.listen_owner),
                group: account(&pool.listen_group),
                mode: pool
                    .listen_mode
                    .value
                    .map_or(DEFAULT_SOCKET_MODE, |mode| mode.0),
                allowed_clients,
                wrong_clients,
            },
            pm: Pm {
                max_children: max_children?.0,
                processes: pool.pm_processes.value.map(|processes| processes.0),
                max_requests: NonZeroU32::new(pool.pm_max_requests.value.0),
                max_queue: match pool.pm_max_queue.value.0 {
                    0 => u32::try_from(backlog).map_or(SYSTEM_BACKLOG, |backlog| backlog.max(1)),
                    max_queue => max_queue,
                },
            },
            timeouts: Timeouts {
                terminate: pool.request_terminate_timeout.value.timeout(),
                queue: pool.request_queue_timeout.value.timeout(),
                header: pool.request_header_timeout.value.timeout(),
                body: pool.request_body_timeout.value.timeout(),
                send: pool.request_send_timeout.value.timeout(),
                idle: pool.connection_idle_timeout.value.timeout(),
            },
            env: self.env(),
            php: php(pool),
            limit_extensions: pool.limit_extensions.value.0.clone(),
            chdir,
            clear_env: pool.clear_env.value,
            catch_workers_output: pool.catch_workers_output.value,
        })
    }

    fn prefix(&mut self) -> Option<String> {
        let prefix = self.pool.prefix.value.as_mut()?;
        prefix.0 = paths::full(&prefix.0, None, self.options, self.options.default_prefix);
        let prefix = prefix.0.clone();
        self.directory("prefix", &prefix, |pool| &pool.prefix);
        Some(prefix)
    }

    /// Who runs PHP. Root does only if it was told to.
    fn accounts(&mut self) -> (Option<String>, Option<String>) {
        let (user, group) = (account(&self.pool.user), account(&self.pool.group));
        if self.options.as_root && !self.options.allow_root {
            self.present(&self.pool.user.clone(), Problem::MissingUser);
            let is_root = |name: &String| name == "root" || name.bytes().all(|digit| digit == b'0');
            for (name, value, place) in [
                ("user", &user, self.pool.user.place.clone()),
                ("group", &group, self.pool.group.place.clone()),
            ] {
                if let Some(value) = value.as_ref().filter(|value| is_root(value)) {
                    let problem = Problem::RootUser {
                        name,
                        value: value.clone(),
                    };
                    self.errors.push(Error {
                        place,
                        pool: Some(self.pool.name.clone()),
                        problem,
                    });
                }
            }
        }
        (user, group)
    }

    fn address(&mut self, prefix: Option<&str>) -> Option<Address> {
        let text = self
            .present(&self.pool.listen.clone(), Problem::MissingListen)?
            .0;
        let options = self.options;
        match Address::read(&text, |path| {
            paths::full(path, prefix, options, options.default_prefix)
        }) {
            Ok(address) => {
                if let Address::Unix(path) = &address {
                    self.pool.listen.value = Some(ListenText(path.display().to_string()));
                }
                Some(address)
            }
            Err(problem) => {
                let place = self.pool.listen.place.clone();
                self.errors.push(Error {
                    place,
                    pool: Some(self.pool.name.clone()),
                    problem,
                });
                None
            }
        }
    }

    fn chdir(&mut self, prefix: Option<&str>) -> Option<PathBuf> {
        let chdir = self.pool.chdir.value.as_mut()?;
        chdir.0 = paths::full(&chdir.0, prefix, self.options, self.options.default_prefix);
        let chdir = chdir.0.clone();
        self.directory("chdir path", &chdir, |pool| &pool.chdir);
        Some(chdir.into())
    }

    fn php_paths(&mut self, prefix: Option<&str>) {
        let pool = &mut *self.pool;
        for (name, value) in pool.php_values.iter_mut().chain(&mut pool.php_admin_values) {
            *value = paths::full_ini(name, value, prefix, self.options);
        }
    }

    fn clients(&mut self) -> (Option<Vec<IpAddr>>, Vec<String>) {
        let Some(list) = self.pool.listen_allowed_clients.value.0.clone() else {
            return (None, Vec::new());
        };
        let (pool, place) = (
            self.pool.name.clone(),
            self.pool.listen_allowed_clients.place.clone(),
        );
        self.warnings
            .extend(list.wrong.iter().map(|entry| Warning::NotAnAddress {
                pool: pool.clone(),
                entry: entry.clone(),
                place: place.clone(),
            }));
        if list.allowed.is_empty() {
            self.warnings.push(Warning::NobodyAllowed { pool, place });
        }
        (Some(list.allowed), list.wrong)
    }

    /// `$NAME` copies a variable of our own environment; one that is not set is empty.
    ///
    /// php-fpm keeps these lists in reverse, so that the first of two lines for one name is set last and wins.
    fn env(&self) -> Vec<(String, String)> {
        let value = |value: &String| match value.strip_prefix('$') {
            Some(name) => (self.options.env)(name).unwrap_or_default(),
            None => value.clone(),
        };
        self.pool
            .env
            .iter()
            .rev()
            .map(|(name, text)| (name.clone(), value(text)))
            .collect()
    }

    fn directory(
        &mut self,
        name: &'static str,
        path: &str,
        setting: fn(&PoolSettings) -> &Setting<Option<PathText>>,
    ) {
        if !Path::new(path).is_dir() {
            let place = setting(self.pool).place.clone();
            let problem = Problem::NotADirectory {
                name,
                path: path.to_owned(),
            };
            self.errors.push(Error {
                place,
                pool: Some(self.pool.name.clone()),
                problem,
            });
        }
    }

    /// The value of a directive that must be there.
    fn present<T: Clone>(&mut self, setting: &Setting<Option<T>>, missing: Problem) -> Option<T> {
        if setting.value.is_none() && self.complete && !setting.refused {
            let place = setting.place.clone().or_else(|| self.pool.place.clone());
            self.errors.push(Error {
                place,
                pool: Some(self.pool.name.clone()),
                problem: missing,
            });
        }
        setting.value.clone()
    }
}

fn account(setting: &Setting<Option<Account>>) -> Option<String> {
    setting.value.as_ref().map(|account| account.0.clone())
}

/// php-fpm applies the values before the admin values, and each list in reverse.
fn php(pool: &PoolSettings) -> Vec<PhpIni> {
    let list = |values: &[(String, String)], admin: bool| -> Vec<PhpIni> {
        values
            .iter()
            .rev()
            .map(|(name, value)| PhpIni {
                name: name.clone(),
                value: value.clone(),
                admin,
            })
            .collect()
    };
    let mut php = list(&pool.php_values, false);
    php.append(&mut list(&pool.php_admin_values, true));
    php
}
