//! Processes, from /proc.

use std::collections::BTreeSet;
use std::fs;

/// A process, told from later ones of the same number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    started: u64,
    pub(crate) parent: i32,
    name: String,
}

impl Process {
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything.
        let (start, rest) = (stat.find('(')?, stat.rfind(')')?);
        let fields: Vec<&str> = stat[rest + 2..].split(' ').collect();
        let process = Self {
            pid,
            started: fields[19].parse().ok()?,
            parent: fields[1].parse().ok()?,
            name: stat[start + 1..rest].to_owned(),
        };
        // Whoever should wait for a zombie may be slow about it; it runs no more.
        (!matches!(fields[0], "Z" | "X")).then_some(process)
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::find(self.pid).is_some_and(|found| found.started == self.started)
    }

    /// Resident memory that is this process's share, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let text =
            fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap_or_default();
        let kilobytes = |key: &str| -> u64 {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB"))
                .map_or(0, |number| number.trim().parse().unwrap())
        };
        kilobytes("Pss:") * 1024
    }

    /// A field of /proc/PID/status.
    pub(crate) fn status(&self, key: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }
}

/// This process and all below it, the first one first.
pub(crate) fn tree(root: i32) -> Vec<Process> {
    let all: Vec<Process> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Process::find)
        .collect();
    let mut known = BTreeSet::from([root]);
    let mut tree: Vec<Process> = all
        .iter()
        .filter(|process| process.pid == root)
        .cloned()
        .collect();
    loop {
        let more: Vec<Process> = all
            .iter()
            .filter(|process| known.contains(&process.parent) && !known.contains(&process.pid))
            .cloned()
            .collect();
        if more.is_empty() {
            return tree;
        }
        known.extend(more.iter().map(|process| process.pid));
        tree.extend(more);
    }
}

pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: kill(2) touches no memory of ours.
    unsafe { libc::kill(pid, signal) };
}

/// Tests run as root where they can; then PHP runs as this account.
pub(crate) fn account() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let exists = |name| matches!(nix::unistd::User::from_name(name), Ok(Some(_)));
    ["www-data", "nobody"].into_iter().find(|name| exists(name))
}
