//! Finish once, many waiters.
//!
//! A waiter that is dropped is forgotten, and the others never learn of it. A value that is there before a waiter is first
//! polled is not missed. This file imports nothing of the crate, so that a model checker can run it alone.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};

/// A value that is there once a task has finished.
#[derive(Debug)]
pub(crate) struct Task<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
enum State<T> {
    Running(Waiters),
    Finished(T),
}

/// Those who wait for a task that runs.
#[derive(Debug, Default)]
struct Waiters {
    /// The waker of each waiter, by its key. `None` if it was not polled yet, or is gone.
    wakers: Vec<Option<Waker>>,
    /// Keys of waiters that are gone.
    free: Vec<usize>,
}

impl Waiters {
    fn add(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.wakers.push(None);
            self.wakers.len() - 1
        })
    }

    fn len(&self) -> usize {
        self.wakers.len() - self.free.len()
    }
}

impl<T> Task<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::Running(Waiters::default())),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No foreign code runs while it is held, and so nothing panics.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many wait now.
    pub(crate) fn waiters(&self) -> usize {
        match &*self.lock() {
            State::Running(waiters) => waiters.len(),
            State::Finished(_) => 0,
        }
    }

    /// Finishes the task with `value`, and wakes all waiters. Does nothing if it has finished.
    pub(crate) fn finish(&self, value: T) {
        let mut state = self.lock();
        if let State::Running(waiters) = &mut *state {
            let waiters = std::mem::take(waiters);
            *state = State::Finished(value);
            drop(state);
            // Wakers are foreign code: they may poll at once, and come back here.
            waiters.wakers.into_iter().flatten().for_each(Waker::wake);
        }
    }

    /// Waits for the task. The waiter counts from here on, polled or not.
    pub(crate) fn wait(self: &Arc<Self>) -> Waiter<T> {
        let key = match &mut *self.lock() {
            State::Running(waiters) => Some(waiters.add()),
            State::Finished(_) => None,
        };
        Waiter {
            task: Arc::clone(self),
            key,
        }
    }
}

/// Waits for a task. Can be dropped at any time.
#[derive(Debug)]
pub(crate) struct Waiter<T> {
    task: Arc<Task<T>>,
    /// `None` once the task has finished.
    key: Option<usize>,
}

impl<T: Clone> Future for Waiter<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Cloning and dropping wakers is foreign code too: both are done without the lock.
        let mut waker = Some(cx.waker().clone());
        let value = {
            let mut state = self.task.lock();
            match &mut *state {
                State::Finished(value) => Some(value.clone()),
                State::Running(waiters) => {
                    if let Some(kept) = self.key.and_then(|key| waiters.wakers.get_mut(key)) {
                        std::mem::swap(kept, &mut waker);
                    }
                    None
                }
            }
        };
        drop(waker);
        match value {
            Some(value) => {
                self.key = None;
                Poll::Ready(value)
            }
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for Waiter<T> {
    fn drop(&mut self) {
        let Some(key) = self.key else {
            return;
        };
        let waker = match &mut *self.task.lock() {
            State::Running(waiters) => {
                waiters.free.push(key);
                waiters.wakers.get_mut(key).and_then(Option::take)
            }
            State::Finished(_) => None,
        };
        drop(waker);
    }
}
