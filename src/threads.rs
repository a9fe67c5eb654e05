//! The threads that do the work. All are created when they are first needed.
//!
//! A process may be out of threads (by a limit of the container, of the user, or of memory). Then the result
//! is an error or slower work, never an abort, and the next call tries again:
//!
//! - *The driver* is one thread that polls all asynchronous code and its timers. If it cannot be created, the
//!   call fails with [`Error::NoThread`]. It is created by the first call and stays, asleep while there is
//!   nothing to do.
//! - *Workers* read, hash and write. There are at most `WORKERS`; one is created when no other is idle, and
//!   ends after `IDLE`. If none can be created, work waits for an existing one, or runs on the driver if
//!   there is none.
//! - A thread *apart* is created for one task that waits long for something outside of this process, such as
//!   the end of a program, or for work on workers. If it cannot be created, the task fails with [`Error::NoThread`].
//! - *Rayon's pool* is created by the first work that can get enough threads. Without it, each worker is a
//!   rayon pool of its own, so parallel code runs there sequentially.
//!
//! So code that uses rayon must run inside [`blocking`]: rayon itself panics if it cannot create threads.
//!
//! No thread keeps the process alive, and none is waited for when the process ends.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// The largest number of workers. It is far above the number of cores, because a worker may wait for a slow
/// disk.
const WORKERS: usize = 64;

/// How long a worker waits for more work before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// Starts a thread, or tells why it cannot. In that case the body is dropped.
type Spawn = fn(&str, Body) -> io::Result<()>;
type Body = Box<dyn FnOnce() + Send>;

fn spawn_thread(name: &str, body: Body) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime that polls asynchronous code on the driver thread. [`Error::NoThread`] if that thread does not
/// exist and cannot be created.
pub fn driver() -> Result<Handle> {
    static DRIVER: Mutex<Option<Handle>> = Mutex::new(None);
    let mut driver = locked(&DRIVER);
    if let Some(handle) = &*driver {
        return Ok(handle.clone());
    }
    Ok(driver.insert(start_driver(spawn_thread)?).clone())
}

fn start_driver(spawn: Spawn) -> Result<Handle> {
    let runtime = Builder::new_current_thread().enable_time().build().map_err(Error::NoThread)?;
    let handle = runtime.handle().clone();
    let forever = move || runtime.block_on(std::future::pending());
    spawn("sandbox-driver", Box::new(forever)).map_err(Error::NoThread)?;
    Ok(handle)
}

/// Runs work that reads, hashes or writes on a worker. Asynchronous code itself only waits.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    static WORKERS_HERE: LazyLock<Arc<Workers>> = LazyLock::new(|| Arc::new(Workers::new(spawn_thread)));
    run_on(&WORKERS_HERE, work).await
}

async fn run_on<T: Send + 'static>(
    workers: &Arc<Workers>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (job, outcome) = job(work);
    if let Err(job) = workers.submit(job) {
        // No worker can run it, so it runs on this thread.
        job();
    }
    outcome.await
}

/// A job that does the work, and what waits for its outcome.
fn job<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> (Body, impl Future<Output = Result<T>>) {
    let (done, result) = oneshot::channel();
    let runtime = Handle::try_current().ok();
    let job: Body = Box::new(move || {
        let _entered = runtime.as_ref().map(Handle::enter);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            ready_for_parallel_work()?;
            work()
        }));
        let outcome = outcome.unwrap_or_else(|panic| Err(Error::Internal(panic_message(&*panic))));
        // If this fails, nobody waits for the outcome any more.
        drop(done.send(outcome));
    });
    let ended = || Err(Error::Internal("a worker thread ended before its work".to_owned()));
    (job, async move { result.await.unwrap_or_else(|_| ended()) })
}

/// Runs work that waits for other work, on a thread of its own.
///
/// On a worker it would hold one that the other work may need: with as many transfers as there are workers, none would go on.
pub async fn waiting<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (job, outcome) = job(work);
    apart("sandbox-transfer", job)?;
    outcome.await
}

/// Runs work that waits long for something outside of this process, on a thread of its own.
pub fn apart(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    spawn_thread(name, Box::new(work)).map_err(Error::NoThread)
}

/// Runs work whose outcome does not matter, such as freeing a large value, on another thread if possible.
pub fn in_background(work: impl FnOnce() + Send + 'static) {
    match driver() {
        // It fails only through a defect in the work, and nobody is left to report that to.
        Ok(driver) => drop(driver.spawn(blocking(move || {
            work();
            Ok(())
        }))),
        Err(_) => work(),
    }
}

/// The message of a panic.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked").to_owned()
}

/// Threads that run jobs in the order in which they were submitted.
struct Workers {
    state: Mutex<State>,
    wake: Condvar,
    spawn: Spawn,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Body>,
    idle: usize,
    threads: usize,
}

impl Workers {
    fn new(spawn: Spawn) -> Self {
        Self { state: Mutex::default(), wake: Condvar::new(), spawn }
    }

    /// Accepts a job, or returns it if there is no thread for it, now or later.
    fn submit(self: &Arc<Self>, job: Body) -> std::result::Result<(), Body> {
        let mut state = locked(&self.state);
        if state.idle <= state.queue.len() && state.threads < WORKERS {
            let workers = self.clone();
            if (self.spawn)("sandbox-worker", Box::new(move || workers.work())).is_ok() {
                state.threads += 1;
            } else if state.threads == 0 {
                return Err(job);
            }
        }
        state.queue.push_back(job);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    fn work(&self) {
        let mut state = locked(&self.state);
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                job();
                state = locked(&self.state);
            } else if is_pool_of_itself() {
                // This thread could not use rayon's pool; the next one may.
                break;
            } else {
                state.idle += 1;
                let waited = self.wake.wait_timeout_while(state, IDLE, |state| state.queue.is_empty());
                let timed_out;
                (state, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                if timed_out.timed_out() && state.queue.is_empty() {
                    break;
                }
            }
        }
        state.threads -= 1;
    }
}

thread_local! {
    /// This thread as a rayon pool of one thread.
    static ALONE: OnceCell<rayon::ThreadPool> = const { OnceCell::new() };
}

fn is_pool_of_itself() -> bool {
    ALONE.with(|alone| alone.get().is_some())
}

/// Makes sure that parallel code on this thread has a pool to run in.
fn ready_for_parallel_work() -> Result<()> {
    static HAS_POOL: Mutex<bool> = Mutex::new(false);
    // A thread of a pool uses that pool.
    if rayon::current_thread_index().is_some() {
        return Ok(());
    }
    let mut has_pool = locked(&HAS_POOL);
    if *has_pool {
        return Ok(());
    }
    let wanted = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut threads = Reserved::up_to(wanted, spawn_thread);
    if threads.are_enough_of(wanted) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.count());
        // As its threads exist already, this fails only if the process has built the global pool before.
        drop(pool.spawn_handler(|thread| threads.start(move || thread.run())).build_global());
        *has_pool = true;
        return Ok(());
    }
    drop(threads);
    drop(has_pool);
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    let alone = alone.map_err(|error| Error::Internal(error.to_string()))?;
    // The thread was in no pool, as checked above.
    ALONE.with(|own| drop(own.set(alone)));
    Ok(())
}

/// Threads that wait for what they are to run. They end if this is dropped before.
///
/// Rayon creates all of its threads or none, and only once, so they are reserved before.
struct Reserved(Vec<mpsc::Sender<Body>>);

impl Reserved {
    /// Reserves as many threads as possible.
    fn up_to(wanted: usize, spawn: Spawn) -> Self {
        let reserve = || {
            let (sender, receiver) = mpsc::channel::<Body>();
            let stand_by = move || {
                if let Ok(body) = receiver.recv() {
                    body();
                }
            };
            spawn("sandbox-parallel", Box::new(stand_by)).ok().map(|()| sender)
        };
        Self((0..wanted).map_while(|_| reserve()).collect())
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether there are enough threads for the pool. It stays as it is for the life of the process, so a
    /// very small one is not accepted.
    fn are_enough_of(&self, wanted: usize) -> bool {
        self.count() * 2 >= wanted
    }

    fn start(&mut self, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::WouldBlock);
        self.0.pop().ok_or_else(gone)?.send(Box::new(body)).map_err(|_| gone())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rayon::prelude::*;

    use super::*;

    thread_local! {
        /// How many threads the thread of this test may still create.
        static LEFT: Cell<usize> = const { Cell::new(0) };
    }

    fn limited(name: &str, body: Body) -> io::Result<()> {
        let left = LEFT.get();
        if left == 0 {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::AGAIN.raw_os_error()));
        }
        LEFT.set(left - 1);
        spawn_thread(name, body)
    }

    fn wait_for<T>(future: impl Future<Output = T>) -> T {
        Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn work_is_done_with_any_number_of_available_threads() {
        for left in 0..=4 {
            LEFT.set(left);
            let workers = Arc::new(Workers::new(limited));
            let here = thread::current().id();
            let on = wait_for(async {
                let mut all = Vec::new();
                for _ in 0..10 {
                    all.push(run_on(&workers, || Ok(thread::current().id())).await.unwrap());
                }
                all
            });
            assert_eq!(on.contains(&here), left == 0, "with {left} threads");
            assert!(locked(&workers.state).threads <= left);
        }
    }

    #[test]
    fn work_waits_for_a_worker_if_no_other_can_be_created() {
        LEFT.set(1);
        let workers = Arc::new(Workers::new(limited));
        let (go, waits) = mpsc::channel::<()>();
        let (done, order) = mpsc::channel();
        let first = done.clone();
        let busy = workers.submit(Box::new(move || {
            waits.recv().unwrap();
            first.send(0).unwrap();
        }));
        assert!(busy.is_ok());
        for job in 1..5 {
            let done = done.clone();
            assert!(workers.submit(Box::new(move || done.send(job).unwrap())).is_ok());
        }
        go.send(()).unwrap();
        assert_eq!(order.iter().take(5).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(locked(&workers.state).threads, 1);
    }

    #[test]
    fn no_more_workers_are_created_than_the_limit_allows() {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        #[expect(clippy::unnecessary_wraps, reason = "it stands for one that may fail")]
        fn counted(_: &str, _: Body) -> io::Result<()> {
            MADE.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        let workers = Arc::new(Workers::new(counted));
        for _ in 0..WORKERS * 2 {
            assert!(workers.submit(Box::new(|| {})).is_ok());
        }
        assert_eq!(MADE.load(Ordering::Relaxed), WORKERS);
    }

    #[test]
    fn an_idle_worker_takes_the_next_work() {
        LEFT.set(4);
        let workers = Arc::new(Workers::new(limited));
        for _ in 0..20 {
            wait_for(run_on(&workers, || Ok(()))).unwrap();
            while locked(&workers.state).idle == 0 {
                thread::yield_now();
            }
        }
        assert_eq!(locked(&workers.state).threads, 1);
    }

    #[test]
    fn a_driver_that_cannot_be_created_is_an_error_and_the_next_attempt_may_succeed() {
        LEFT.set(0);
        let error = start_driver(limited).unwrap_err();
        assert_eq!(error.errno(), Some(rustix::io::Errno::AGAIN.raw_os_error()));
        assert!(error.to_string().contains("limit"), "{error}");
        LEFT.set(1);
        let handle = start_driver(limited).unwrap();
        let (done, result) = mpsc::channel();
        drop(handle.spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            done.send("timers run").unwrap();
        }));
        assert_eq!(result.recv(), Ok("timers run"));
    }

    #[test]
    fn a_panic_fails_only_its_own_work() {
        LEFT.set(1);
        let workers = Arc::new(Workers::new(limited));
        let failed = wait_for(run_on::<()>(&workers, || panic!("a defect"))).unwrap_err();
        assert_eq!(failed.code(), "ERR_SANDBOX_INTERNAL");
        assert!(failed.to_string().contains("a defect"), "{failed}");
        assert_eq!(wait_for(run_on(&workers, || Ok(7))).unwrap(), 7);
    }

    #[test]
    fn a_thread_without_a_pool_runs_parallel_code_itself() {
        let sum = thread::spawn(|| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().unwrap();
            ALONE.with(|own| own.set(pool).unwrap());
            ready_for_parallel_work().unwrap();
            let here = thread::current().id();
            (0..1000_u64)
                .into_par_iter()
                .map(|number| {
                    assert_eq!(thread::current().id(), here);
                    number
                })
                .sum::<u64>()
        });
        assert_eq!(sum.join().unwrap(), 499_500);
    }

    #[test]
    fn as_many_threads_as_possible_are_reserved_and_half_of_those_wanted_are_enough() {
        for (left, wanted, expected, enough) in [
            (0, 4, 0, false),
            (1, 4, 1, false),
            (2, 4, 2, true),
            (9, 4, 4, true),
            (0, 1, 0, false),
            (1, 1, 1, true),
        ] {
            LEFT.set(left);
            let mut threads = Reserved::up_to(wanted, limited);
            assert_eq!(
                (threads.count(), threads.are_enough_of(wanted)),
                (expected, enough),
                "{left} {wanted}"
            );
            let (done, result) = mpsc::channel();
            for _ in 0..expected {
                let done = done.clone();
                threads.start(move || done.send(()).unwrap()).unwrap();
            }
            assert_eq!(result.iter().take(expected).count(), expected);
            assert!(threads.start(|| {}).is_err());
        }
    }
}
