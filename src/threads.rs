//! The threads that work is done on, all of them made when they are first needed, and none of them required.
//!
//! A process may be out of threads (a limit of the container, of the user, of memory). What runs out here is an error
//! or slower work, never an abort, and the next call tries again:
//!
//! - *The driver* is one thread that polls all asynchronous code, with timers. Without it there is
//!   [`Error::NoThread`]. It is made by the first call and stays, asleep while there is nothing to do.
//! - *Workers* run what reads, hashes and writes: up to `WORKERS`, each made when no other is idle, and gone after
//!   `IDLE`. Where none can be made, work waits for one that exists; where none exists, it runs on the driver.
//! - *Rayon's pool* is made by the first work that finds enough threads to be had. Without it, a worker is a pool of
//!   itself alone, so that parallel code runs there one after the other.
//!
//! So nothing that uses rayon may run other than through [`blocking`]: rayon by itself panics where it has no threads.
//!
//! None of the threads keeps the process alive, and none is waited for at its end.

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

/// How many workers there are at most. Many more than cores: one of them may wait for a slow disk.
const WORKERS: usize = 64;

/// How long a worker waits for further work before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// Starts a thread, or says why there is none. Its body is dropped then.
type Spawn = fn(&str, Body) -> io::Result<()>;
type Body = Box<dyn FnOnce() + Send>;

fn spawn_thread(name: &str, body: Body) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime that polls asynchronous code on the driver thread. [`Error::NoThread`] where there is no such thread and
/// none can be made.
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

/// Runs work that reads, hashes or writes where it holds up nobody: async code here only waits for the client.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    static WORKERS_HERE: LazyLock<Arc<Workers>> = LazyLock::new(|| Arc::new(Workers::new(spawn_thread)));
    run_on(&WORKERS_HERE, work).await
}

async fn run_on<T: Send + 'static>(
    workers: &Arc<Workers>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (done, result) = oneshot::channel();
    let runtime = Handle::try_current().ok();
    let job: Body = Box::new(move || {
        let _entered = runtime.as_ref().map(Handle::enter);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            ready_for_parallel_work()?;
            work()
        }));
        let outcome = outcome.unwrap_or_else(|panic| Err(Error::Internal(words_of(&*panic))));
        // Nobody waits for it any longer where that fails.
        drop(done.send(outcome));
    });
    if let Err(job) = workers.submit(job) {
        // The one thread that there is.
        job();
    }
    result.await.unwrap_or_else(|_| Err(Error::Internal("a worker thread ended before its work".to_owned())))
}

/// Runs work whose outcome nobody waits for, such as freeing what is large, off this thread where that can be.
pub fn in_background(work: impl FnOnce() + Send + 'static) {
    match driver() {
        // It fails only by a defect of the work itself, and there is nobody to tell.
        Ok(driver) => drop(driver.spawn(blocking(move || {
            work();
            Ok(())
        }))),
        Err(_) => work(),
    }
}

/// What a panic said.
fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked").to_owned()
}

/// Threads that take work in the order in which it came.
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

    /// Takes the work, or gives it back where there is no thread for it now or later.
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
                // It could not have rayon's pool; the thread that comes after it may.
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
    /// This thread as rayon's pool of one.
    static ALONE: OnceCell<rayon::ThreadPool> = const { OnceCell::new() };
}

fn is_pool_of_itself() -> bool {
    ALONE.with(|alone| alone.get().is_some())
}

/// Sees to it that parallel code on this thread has a pool that it runs in.
fn ready_for_parallel_work() -> Result<()> {
    static HAS_POOL: Mutex<bool> = Mutex::new(false);
    // A thread of a pool, this one or another, uses that pool.
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
        // With its threads there already, it fails only where the process has made the pool before.
        drop(pool.spawn_handler(|thread| threads.start(move || thread.run())).build_global());
        *has_pool = true;
        return Ok(());
    }
    drop(threads);
    drop(has_pool);
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    let alone = alone.map_err(|error| Error::Internal(error.to_string()))?;
    // It was in no pool, as was asked above.
    ALONE.with(|own| drop(own.set(alone)));
    Ok(())
}

/// Threads that stand by for what they are to run. They end where they are dropped without it.
///
/// Rayon makes all of its threads or none, and only once: whether there are enough is found out before.
struct Reserved(Vec<mpsc::Sender<Body>>);

impl Reserved {
    /// As many as can be had.
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

    /// A pool stays as it is for the life of the process: a small one is not settled for.
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
        /// How many threads this test's thread may still make.
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
    fn work_is_done_with_any_number_of_threads() {
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
    fn work_waits_for_a_worker_where_no_further_one_can_be_made() {
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
    fn no_more_workers_are_made_than_the_limit_allows() {
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
    fn a_driver_that_cannot_be_made_is_an_error_and_the_next_one_may_be() {
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
    fn a_panic_is_an_error_of_its_work_alone() {
        LEFT.set(1);
        let workers = Arc::new(Workers::new(limited));
        let failed = wait_for(run_on::<()>(&workers, || panic!("a defect"))).unwrap_err();
        assert_eq!(failed.code(), "ERR_SANDBOX_INTERNAL");
        assert!(failed.to_string().contains("a defect"), "{failed}");
        assert_eq!(wait_for(run_on(&workers, || Ok(7))).unwrap(), 7);
    }

    #[test]
    fn a_thread_alone_runs_parallel_code() {
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
    fn as_many_threads_are_reserved_as_can_be_had_and_half_of_them_make_a_pool() {
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
