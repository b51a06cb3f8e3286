//! What each interpreter does, for those who look from outside.
//!
//! Writers never wait and readers never disturb them. A writer may die at any point, and a reader may be in a process that
//! trusts the writers with nothing: whatever the words hold, reading them is harmless.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, SystemTime};

use super::sys::SharedWords;

/// Words of a cache line.
const LINE: usize = 8;

/// Words of a slot: numbers first, then the texts.
const SLOT: usize = 10 * LINE;

// The numbers of a slot.
const SEQUENCE: usize = 0;
const PID: usize = 1;
const REQUESTS: usize = 2;
const SINCE: usize = 3;
const LENGTHS: usize = 4;
// The texts, each with its first word and its number of words.
const METHOD: (usize, usize) = (8, 2);
const URI: (usize, usize) = (10, 32);
const SCRIPT: (usize, usize) = (42, 32);

/// How often a reader tries when a writer comes between.
const TRIES: u32 = 16;

/// Shared memory with one [`Slot`] for each interpreter. Clones are the same memory.
#[derive(Debug, Clone)]
pub struct Scoreboard {
    memory: Arc<SharedWords>,
    slots: usize,
}

/// The place where one interpreter says what it does. Only that interpreter writes here while it lives.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'a> {
    state: &'a AtomicU64,
    words: &'a [AtomicU64],
}

/// What an interpreter is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// At most 16 bytes of the request's method.
    pub method: String,
    /// At most 256 bytes of its URI.
    pub uri: String,
    /// At most 256 bytes of the script's path.
    pub script: String,
    /// When it began.
    pub since: SystemTime,
}

// The states of a slot. They stand side by side, a word each, so that whoever looks for the idle ones reads few cache lines.
/// No interpreter. Other values than these three count as this.
const EMPTY: u64 = 0;
const IDLE: u64 = 1;
const RUNNING: u64 = 2;

impl Scoreboard {
    /// Empty slots.
    ///
    /// # Errors
    ///
    /// If the system has no memory or no descriptor left.
    pub fn create(slots: u32) -> io::Result<Self> {
        let slots = slots as usize;
        let words = slots
            .checked_mul(SLOT)
            .and_then(|words| words.checked_add(states(slots)))
            .ok_or(io::ErrorKind::InvalidInput)?;
        let memory = SharedWords::create("howdah-scoreboard", words)?;
        Ok(Self {
            memory: Arc::new(memory),
            slots,
        })
    }

    /// One that another process created, from its descriptor.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn from_fd(descriptor: OwnedFd) -> io::Result<Self> {
        let memory = SharedWords::open(descriptor)?;
        let words = memory.words().len();
        // Both parts grow with the number of slots, so one number of slots fits. Taken from the size, which is sealed.
        let slots = words / (SLOT + 1);
        let slots = (slots.saturating_sub(LINE)..=slots)
            .find(|&slots| slots * SLOT + states(slots) == words)
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "not the size of a scoreboard")
            })?;
        Ok(Self {
            memory: Arc::new(memory),
            slots,
        })
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        u32::try_from(self.slots).unwrap_or(u32::MAX)
    }

    /// A slot; `None` past the last.
    pub fn slot(&self, index: u32) -> Option<Slot<'_>> {
        let index = index as usize;
        let words = self.memory.words();
        let start = index.checked_mul(SLOT)?.checked_add(states(self.slots))?;
        (index < self.slots).then_some(())?;
        Some(Slot {
            state: words.get(index)?,
            words: words.get(start..start.checked_add(SLOT)?)?,
        })
    }
}

impl AsFd for Scoreboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// Words for the states, before the slots: whole cache lines.
fn states(slots: usize) -> usize {
    slots.next_multiple_of(LINE)
}

impl Slot<'_> {
    /// An interpreter of this process is there and waits for its first request.
    pub fn start(self, pid: u32) {
        self.clear();
        self.set(PID, u64::from(pid));
        self.state.store(IDLE, Ordering::Release);
    }

    /// It begins a request.
    pub fn begin(self, method: &[u8], uri: &[u8], script: &[u8]) {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let sequence = self.get(SEQUENCE);
        self.set(SEQUENCE, sequence.wrapping_add(1));
        fence(Ordering::Release);
        self.set(SINCE, u64::try_from(since.as_micros()).unwrap_or_default());
        let lengths = self.store(METHOD, method)
            | self.store(URI, uri) << 16
            | self.store(SCRIPT, script) << 32;
        self.set(LENGTHS, lengths);
        if let Some(word) = self.words.get(SEQUENCE) {
            word.store(sequence.wrapping_add(2), Ordering::Release);
        }
        self.state.store(RUNNING, Ordering::Release);
    }

    /// The request has ended.
    pub fn end(self) {
        self.set(REQUESTS, self.get(REQUESTS).wrapping_add(1));
        self.state.store(IDLE, Ordering::Release);
    }

    /// The interpreter is gone. For the interpreter itself, and for whoever buries its process.
    pub fn clear(self) {
        self.state.store(EMPTY, Ordering::Release);
        for number in [SEQUENCE, PID, REQUESTS, SINCE, LENGTHS] {
            self.set(number, 0);
        }
    }

    /// The process of the interpreter; `None`: there is none.
    pub fn pid(self) -> Option<u32> {
        u32::try_from(self.get(PID)).ok().filter(|&pid| pid != 0)
    }

    /// Requests that have ended.
    pub fn requests(self) -> u64 {
        self.get(REQUESTS)
    }

    /// Whether an interpreter is there and waits for a request.
    pub fn is_idle(self) -> bool {
        self.state.load(Ordering::Acquire) == IDLE
    }

    /// The request that runs, if one does. It may be missed while it is being written down, for ever if the process died
    /// just then.
    pub fn current(self) -> Option<Serving> {
        if self.state.load(Ordering::Acquire) != RUNNING {
            return None;
        }
        (0..TRIES).find_map(|_| {
            let before = self.words.get(SEQUENCE)?.load(Ordering::Acquire);
            let serving = self.read();
            fence(Ordering::Acquire);
            let whole = before % 2 == 0 && before == self.get(SEQUENCE);
            if !whole {
                std::thread::yield_now();
            }
            whole.then_some(serving)
        })
    }

    fn read(self) -> Serving {
        let lengths = self.get(LENGTHS);
        let since = Duration::from_micros(self.get(SINCE));
        Serving {
            method: self.load(METHOD, lengths),
            uri: self.load(URI, lengths >> 16),
            script: self.load(SCRIPT, lengths >> 32),
            since: SystemTime::UNIX_EPOCH
                .checked_add(since)
                .unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    fn get(self, number: usize) -> u64 {
        self.words
            .get(number)
            .map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn set(self, number: usize, value: u64) {
        if let Some(word) = self.words.get(number) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Keeps the beginning of a text, and gives its length.
    fn store(self, (start, count): (usize, usize), text: &[u8]) -> u64 {
        let words = self.words.iter().skip(start).take(count);
        for (word, chunk) in words.zip(text.chunks(8)) {
            let mut bytes = [0; 8];
            for (to, &from) in bytes.iter_mut().zip(chunk) {
                *to = from;
            }
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        text.len().min(count * 8) as u64
    }

    fn load(self, (start, count): (usize, usize), length: u64) -> String {
        let length = usize::from(length as u16).min(count * 8);
        let words = self.words.iter().skip(start).take(length.div_ceil(8));
        let mut text: Vec<u8> = words
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        text.truncate(length);
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn another_process_reads_what_an_interpreter_does() {
        let board = Scoreboard::create(3).unwrap();
        let other = Scoreboard::from_fd(board.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(other.slots(), 3);
        let (slot, seen) = (board.slot(2).unwrap(), other.slot(2).unwrap());
        assert_eq!((seen.pid(), seen.current()), (None, None));
        assert!(!seen.is_idle());

        slot.start(42);
        assert_eq!((seen.pid(), seen.requests()), (Some(42), 0));
        assert!(seen.is_idle());

        let before = SystemTime::now();
        slot.begin(b"GET", b"/a?b=\xc3\xa9", b"/srv/a.php");
        let serving = seen.current().unwrap();
        assert_eq!(
            (&*serving.method, &*serving.uri, &*serving.script),
            ("GET", "/a?b=é", "/srv/a.php")
        );
        let age = serving.since.duration_since(before);
        assert!(age.unwrap_or_else(|error| error.duration()) < Duration::from_secs(5));
        assert!(!seen.is_idle());

        slot.end();
        assert_eq!((seen.current(), seen.requests()), (None, 1));
        assert!(seen.is_idle());
        seen.clear();
        assert_eq!((slot.pid(), slot.is_idle()), (None, false));
    }

    #[test]
    fn a_shorter_request_leaves_nothing_of_a_longer_one() {
        let board = Scoreboard::create(1).unwrap();
        let slot = board.slot(0).unwrap();
        slot.begin(b"DELETE", b"/a/long/path", b"/srv/long.php");
        slot.begin(b"GET", b"/", b"");
        let serving = slot.current().unwrap();
        assert_eq!(
            (&*serving.method, &*serving.uri, &*serving.script),
            ("GET", "/", "")
        );
    }

    #[test]
    fn texts_are_cut() {
        let board = Scoreboard::create(2).unwrap();
        let slot = board.slot(0).unwrap();
        slot.begin(&[b'M'; 1000], &[b'u'; 1000], &[b's'; 1000]);
        let serving = slot.current().unwrap();
        assert_eq!(serving.method, "M".repeat(16));
        assert_eq!(serving.uri, "u".repeat(256));
        assert_eq!(serving.script, "s".repeat(256));
        let next = board.slot(1).unwrap();
        assert!(
            next.words
                .iter()
                .all(|word| word.load(Ordering::Relaxed) == 0)
        );
    }

    #[test]
    fn every_number_of_slots_is_found_again() {
        for slots in [1, 2, 7, 8, 9, 63, 64, 65, 500, 12_800] {
            let board = Scoreboard::create(slots).unwrap();
            let again = Scoreboard::from_fd(board.as_fd().try_clone_to_owned().unwrap()).unwrap();
            assert_eq!(again.slots(), slots);
            assert!(again.slot(slots - 1).is_some());
            assert!(again.slot(slots).is_none());
            assert!(again.slot(u32::MAX).is_none());
        }
    }

    #[test]
    fn garbage_is_harmless() {
        let board = Scoreboard::create(4).unwrap();
        for pattern in [u64::MAX, 0xdead_beef_dead_beef, 1, RUNNING, 1 << 63] {
            for word in board.memory.words() {
                word.store(pattern, Ordering::Relaxed);
            }
            board
                .slot(1)
                .unwrap()
                .state
                .store(RUNNING, Ordering::Relaxed);
            let slot = board.slot(1).unwrap();
            if let Some(serving) = slot.current() {
                assert!(serving.uri.len() <= 3 * 256);
            }
            let _ = (slot.pid(), slot.requests(), slot.is_idle());
        }
    }

    #[test]
    fn a_reader_sees_whole_requests() {
        let board = Scoreboard::create(1).unwrap();
        let slot = board.slot(0).unwrap();
        slot.begin(b"a", b"a", b"a");
        let mut seen = 0;
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for turn in 0..5_000_u32 {
                    let text = vec![b'a' + u8::try_from(turn % 26).unwrap(); 200];
                    board.slot(0).unwrap().begin(&text, &text, &text);
                    // No request is as short as none: a reader must find a gap.
                    std::thread::sleep(Duration::from_micros(1));
                }
            });
            while !writer.is_finished() {
                let Some(serving) = slot.current() else {
                    continue;
                };
                let first = serving.method.chars().next().unwrap();
                let text = serving.method + &serving.uri + &serving.script;
                assert!(text.chars().all(|c| c == first), "{text}");
                seen += 1;
            }
        });
        assert!(seen > 0 && slot.current().is_some());
    }
}
