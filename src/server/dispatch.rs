//! Requests that wait for an interpreter.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::answer::Answer;
use super::body::Body;
use crate::fastcgi::{Params, Role};
use crate::php::Stopper;

/// A complete request.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) role: Role,
    pub(super) params: Params,
    pub(super) body: Body,
    pub(super) answer: Arc<Answer>,
    pub(super) ticket: Arc<Ticket>,
}

/// Who has a job: it is taken once, or withdrawn before.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    state: AtomicU8,
    taken_at: OnceLock<Instant>,
    /// Ends the job while it runs.
    pub(super) stopper: Stopper,
    /// What the job is, for the log; set once it runs.
    pub(super) description: OnceLock<String>,
}

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Ticket {
    fn change(&self, to: u8) -> bool {
        let changed = self
            .state
            .compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if changed && to == TAKEN {
            self.taken_at.get_or_init(Instant::now);
        }
        changed
    }

    /// An interpreter runs it, or has run it.
    pub(super) fn is_taken(&self) -> bool {
        self.state.load(Ordering::Acquire) == TAKEN
    }

    /// When an interpreter took it.
    pub(super) fn taken_at(&self) -> Option<Instant> {
        self.taken_at.get().copied()
    }
}

/// The queue between connections and interpreters.
#[derive(Debug)]
pub(super) struct Dispatch {
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// An interpreter became free. For the I/O thread, which alone waits for it.
    pub(super) freed: Notify,
    max_queue: usize,
}

#[derive(Debug)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Interpreters that wait for a job.
    idle: usize,
    closed: bool,
}

impl Dispatch {
    /// Beyond what idle interpreters are about to take, `max_queue` jobs may wait.
    pub(super) fn new(max_queue: u32) -> Self {
        Self {
            queue: Mutex::new(Queue {
                jobs: VecDeque::new(),
                idle: 0,
                closed: false,
            }),
            arrived: Condvar::new(),
            freed: Notify::new(),
            max_queue: max_queue as usize,
        }
    }

    /// Queues a job.
    ///
    /// # Errors
    ///
    /// Gives it back when the queue is full, or closed.
    pub(super) fn submit(&self, job: Job) -> Result<(), Box<Job>> {
        let mut queue = self.lock();
        // Those that idle interpreters are about to take do not wait.
        let waiting = queue.jobs.len().saturating_sub(queue.idle);
        if queue.closed || waiting >= self.max_queue {
            return Err(Box::new(job));
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes back a job that nobody has taken. False: somebody has.
    pub(super) fn withdraw(&self, ticket: &Arc<Ticket>) -> bool {
        if !ticket.change(WITHDRAWN) {
            return false;
        }
        self.lock()
            .jobs
            .retain(|job| !Arc::ptr_eq(&job.ticket, ticket));
        true
    }

    /// Waits for a job; `None` when there will be none any more.
    pub(super) fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        queue.idle += 1;
        if queue.idle > queue.jobs.len() {
            self.freed.notify_one();
        }
        let job = loop {
            match queue.jobs.pop_front() {
                Some(job) if job.ticket.change(TAKEN) => break Some(job),
                Some(_) => {}
                None if queue.closed => break None,
                None => {
                    queue = self
                        .arrived
                        .wait(queue)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        queue.idle -= 1;
        job
    }

    /// Whether a job that came now would be taken at once.
    pub(super) fn is_free(&self) -> bool {
        let queue = self.lock();
        queue.idle > queue.jobs.len()
    }

    /// No more jobs: interpreters end once the queue is empty.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that holds the lock can be interrupted half-way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job {
            role: Role::Responder,
            params: Params::default(),
            body: Body::default(),
            answer: Arc::new(Answer::new(1, Arc::new(Notify::new()))),
            ticket: Arc::default(),
        }
    }

    #[test]
    fn a_full_queue_gives_the_job_back() {
        let dispatch = Dispatch::new(1);
        assert!(dispatch.submit(job()).is_ok());
        assert!(dispatch.submit(job()).is_err());
    }

    #[test]
    fn a_withdrawn_job_is_never_taken_and_a_taken_one_cannot_be_withdrawn() {
        let dispatch = Dispatch::new(5);
        let (first, second) = (job(), job());
        let (one, two) = (Arc::clone(&first.ticket), Arc::clone(&second.ticket));
        dispatch.submit(first).unwrap();
        dispatch.submit(second).unwrap();
        assert!(dispatch.withdraw(&one));
        assert!(Arc::ptr_eq(&dispatch.next().unwrap().ticket, &two));
        assert!(!dispatch.withdraw(&two));
        assert!(two.is_taken() && !one.is_taken());
    }

    #[test]
    fn what_is_queued_is_still_run_after_the_close() {
        let dispatch = Dispatch::new(5);
        dispatch.submit(job()).unwrap();
        dispatch.close();
        assert!(dispatch.submit(job()).is_err());
        assert!(dispatch.next().is_some());
        assert!(dispatch.next().is_none());
    }
}
