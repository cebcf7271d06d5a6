//! A task finishes once, and each of its waiters learns of it.

use std::sync::Arc;

use crate::{
    Wakes, block_on, explore, poll_once,
    task::{Task, Waiter},
    thread,
};

type Outcome = Result<u32, &'static str>;

const SESSION: Outcome = Ok(7);
const ABORTED: Outcome = Err("the driver was dropped");

/// A driver ends its refresh when it is dropped, as the one of the crate does.
struct Driver(Option<Arc<Task<Outcome>>>);

impl Driver {
    fn succeed(mut self) {
        if let Some(task) = self.0.take() {
            task.finish(SESSION);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.finish(ABORTED);
        }
    }
}

fn start() -> (Driver, Arc<Task<Outcome>>) {
    let task = Task::new();
    (Driver(Some(Arc::clone(&task))), task)
}

fn on_a_thread(waiter: Waiter<Outcome>) -> thread::JoinHandle<Outcome> {
    thread::spawn(move || block_on(waiter))
}

/// Polls a waiter, and drops it unless it is ready.
fn give_up(mut waiter: Waiter<Outcome>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let _ = poll_once(&mut waiter, &Arc::default());
    })
}

#[test]
fn three_waiters_get_the_result_also_if_one_is_late() {
    explore("three waiters, one joins late", || {
        let (driver, task) = start();
        let waiters = [0, 1].map(|_| on_a_thread(task.wait()));
        let joins = Arc::clone(&task);
        // Before or after the driver has finished.
        let late = thread::spawn(move || block_on(joins.wait()));
        driver.succeed();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), SESSION);
        }
        assert_eq!(late.join().unwrap(), SESSION);
    });
}

#[test]
fn two_waiters_that_join_late_get_the_result() {
    explore("two waiters join late", || {
        let (driver, task) = start();
        let waiters = [0, 1].map(|_| {
            let task = Arc::clone(&task);
            thread::spawn(move || block_on(task.wait()))
        });
        driver.succeed();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), SESSION);
        }
        assert_eq!(task.waiters(), 0);
    });
}

#[test]
fn a_dropped_waiter_changes_nothing_for_two_others() {
    explore("three waiters, one dropped", || {
        let (driver, task) = start();
        let waiters = [0, 1].map(|_| on_a_thread(task.wait()));
        let dropped = give_up(task.wait());
        driver.succeed();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), SESSION);
        }
        dropped.join().unwrap();
    });
}

#[test]
fn an_abort_ends_the_wait_of_all() {
    explore("three waiters, one dropped, an abort", || {
        let (driver, task) = start();
        let waiters = [0, 1].map(|_| on_a_thread(task.wait()));
        let dropped = give_up(task.wait());
        drop(driver);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), ABORTED);
        }
        dropped.join().unwrap();
    });
}

#[test]
fn all_get_the_same_result_if_a_finish_meets_an_abort() {
    explore("a finish meets an abort", || {
        let (driver, task) = start();
        let waiters = [0, 1].map(|_| on_a_thread(task.wait()));
        let aborted = Arc::clone(&task);
        let abort = thread::spawn(move || aborted.finish(ABORTED));
        driver.succeed();
        let [one, other] = waiters.map(|waiter| waiter.join().unwrap());
        abort.join().unwrap();
        assert_eq!(one, other);
        assert_eq!(block_on(task.wait()), one);
    });
}

#[test]
fn a_waiter_in_the_place_of_one_that_left_is_woken() {
    explore("a place is used again", || {
        let (driver, task) = start();
        let first = task.wait();
        let stays = on_a_thread(task.wait());
        let joins = thread::spawn(move || {
            let mut first = first;
            let wakes = Arc::<Wakes>::default();
            let _ = poll_once(&mut first, &wakes);
            drop(first);
            block_on(task.wait())
        });
        driver.succeed();
        assert_eq!(stays.join().unwrap(), SESSION);
        assert_eq!(joins.join().unwrap(), SESSION);
    });
}

#[test]
fn a_waiter_is_woken_where_it_was_polled_last() {
    explore("a waiter moves", || {
        let (driver, task) = start();
        let mut waiter = task.wait();
        let moves = thread::spawn(move || {
            // Polled by one task, and then handed to another.
            let _ = poll_once(&mut waiter, &Arc::default());
            block_on(waiter)
        });
        driver.succeed();
        assert_eq!(moves.join().unwrap(), SESSION);
    });
}

#[test]
fn a_dropped_waiter_is_not_woken_after_its_drop() {
    explore("no wake-up after the drop", || {
        let (driver, task) = start();
        let mut waiter = task.wait();
        let finish = thread::spawn(move || driver.succeed());
        let wakes = Arc::<Wakes>::default();
        let polled = poll_once(&mut waiter, &wakes);
        drop(waiter);
        finish.join().unwrap();
        // Once at most, and not if the result was there at the poll.
        assert!(wakes.count() <= usize::from(polled.is_pending()));
        assert_eq!(Arc::strong_count(&wakes), 1, "a waker was kept");
    });
}

#[test]
fn a_dropped_waiter_leaves_no_waker() {
    explore("no waker after the drop", || {
        let (driver, task) = start();
        let mut waiter = task.wait();
        let other = on_a_thread(task.wait());
        let wakes = Arc::<Wakes>::default();
        assert!(poll_once(&mut waiter, &wakes).is_pending());
        drop(waiter);
        assert_eq!(Arc::strong_count(&wakes), 1, "a waker was kept");
        driver.succeed();
        assert_eq!(other.join().unwrap(), SESSION);
        assert_eq!(wakes.count(), 0);
    });
}

#[test]
fn a_waker_may_use_the_task() {
    explore("a waker uses the task", || {
        let (driver, task) = start();
        let mut waiter = task.wait();
        let inner = Arc::clone(&task);
        // An executor that polls where it is woken.
        let wakes = Arc::new(Wakes {
            on_wake: Some(Box::new(move || {
                assert_eq!(inner.waiters(), 0);
                assert_eq!(block_on(inner.wait()), SESSION);
            })),
            ..Wakes::default()
        });
        let other = on_a_thread(task.wait());
        let polled = poll_once(&mut waiter, &wakes);
        assert!(polled.is_pending());
        let finish = thread::spawn(move || driver.succeed());
        assert_eq!(other.join().unwrap(), SESSION);
        finish.join().unwrap();
        assert_eq!(wakes.count(), 1);
        assert_eq!(block_on(waiter), SESSION);
    });
}

#[test]
fn the_count_of_waiters_is_of_those_that_wait() {
    explore("the count of waiters", || {
        let (driver, task) = start();
        let stays = task.wait();
        let leaves = give_up(task.wait());
        let joins = Arc::clone(&task);
        let joins = thread::spawn(move || drop(joins.wait()));
        let count = task.waiters();
        assert!((1..=3).contains(&count), "{count} waiters");
        leaves.join().unwrap();
        joins.join().unwrap();
        assert_eq!(task.waiters(), 1);
        driver.succeed();
        assert_eq!(task.waiters(), 0);
        assert_eq!(block_on(stays), SESSION);
    });
}
