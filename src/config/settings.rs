//! What a configuration says, one field for each directive that this version reads.
//!
//! The fields are filled by the rows of the table (`table.rs`) and shown by them; `pool.rs` makes of them what the
//! rest of the program uses.

use super::error::Place;
use super::table::{self, Reads};
use super::value::{
    Account, Backlog, Clients, Count, Extensions, Level, ListenText, LogText, Mode, PathText,
    Positive, ProcessManager, Refusal, Seconds, Value,
};

/// A directive's value, and the line that gave it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    /// `None`: this is the default.
    pub(super) place: Option<Place>,
    /// The line's value could not be read, which has been reported.
    pub(super) refused: bool,
}

impl<T: Value> Setting<T> {
    pub(super) fn read(&mut self, text: &str, place: Option<&Place>) -> Result<(), Refusal> {
        self.place = place.cloned();
        let read = T::read(text);
        self.refused = read.is_err();
        self.value = read?;
        Ok(())
    }

    pub(super) fn show(&self) -> String {
        self.value.show()
    }
}

/// The directives of `[global]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct GlobalSettings {
    pub(super) pid: Setting<Option<PathText>>,
    pub(super) error_log: Setting<LogText>,
    pub(super) log_level: Setting<Level>,
    pub(super) process_control_timeout: Setting<Seconds>,
    pub(super) daemonize: Setting<bool>,
}

impl GlobalSettings {
    /// Every directive at its default.
    pub(super) fn new() -> Self {
        let mut settings = Self::default();
        for row in table::DIRECTIVES {
            if let (Reads::Global(field), Some(default)) = (&row.reads, row.default) {
                // A test reads every default; there is none that cannot be read.
                let _ = (field.read)(&mut settings, default, None);
            }
        }
        settings
    }
}

/// The directives of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PoolSettings {
    /// The section's name.
    pub(super) name: String,
    /// The section's first line.
    pub(super) place: Option<Place>,
    pub(super) prefix: Setting<Option<PathText>>,
    pub(super) user: Setting<Option<Account>>,
    pub(super) group: Setting<Option<Account>>,
    pub(super) listen: Setting<Option<ListenText>>,
    pub(super) listen_backlog: Setting<Backlog>,
    pub(super) listen_owner: Setting<Option<Account>>,
    pub(super) listen_group: Setting<Option<Account>>,
    pub(super) listen_mode: Setting<Option<Mode>>,
    pub(super) listen_allowed_clients: Setting<Clients>,
    pub(super) pm: Setting<Option<ProcessManager>>,
    pub(super) pm_max_children: Setting<Option<Positive>>,
    pub(super) pm_processes: Setting<Option<Positive>>,
    pub(super) pm_max_queue: Setting<Count>,
    pub(super) pm_max_requests: Setting<Count>,
    pub(super) request_terminate_timeout: Setting<Seconds>,
    pub(super) request_queue_timeout: Setting<Seconds>,
    pub(super) request_header_timeout: Setting<Seconds>,
    pub(super) request_body_timeout: Setting<Seconds>,
    pub(super) request_send_timeout: Setting<Seconds>,
    pub(super) connection_idle_timeout: Setting<Seconds>,
    pub(super) chdir: Setting<Option<PathText>>,
    pub(super) catch_workers_output: Setting<bool>,
    pub(super) clear_env: Setting<bool>,
    pub(super) limit_extensions: Setting<Extensions>,
    /// In the order of the file, `$NAME` not yet looked up.
    pub(super) env: Vec<(String, String)>,
    /// `php_value` and `php_flag`, in the order of the file.
    pub(super) php_values: Vec<(String, String)>,
    /// `php_admin_value` and `php_admin_flag`, in the order of the file.
    pub(super) php_admin_values: Vec<(String, String)>,
}

impl PoolSettings {
    /// Every directive at its default.
    pub(super) fn new(name: String, place: Place) -> Self {
        let mut settings = Self {
            name,
            place: Some(place),
            ..Self::default()
        };
        for row in table::DIRECTIVES {
            if let (Reads::Pool(field), Some(default)) = (&row.reads, row.default) {
                // A test reads every default; there is none that cannot be read.
                let _ = (field.read)(&mut settings, default, None);
            }
        }
        settings
    }
}
