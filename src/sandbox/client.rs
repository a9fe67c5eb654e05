//! What prepare and restore need of a sandbox. The one real implementation is a JavaScript object (`node/`); tests
//! bring their own.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use crate::archive::source::Bytes;
use crate::error::Error;
pub(crate) use crate::threads::blocking;
use crate::transfer::retry;

/// Which part of which archive a transfer is, for progress. Bytes are counted before they are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part<'a> {
    /// What travels: the workspace, or the asset of that key.
    pub label: &'a str,
    /// Its number, counted from 0.
    pub number: usize,
    /// How many bytes of the archive come before it.
    pub before: u64,
    /// How many it has.
    pub size: u64,
    /// How many the archive has; 0 where that is not known yet.
    pub total: u64,
}

/// A step of a run in which nothing is transferred, for progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// `compare`, `pack` or `extract` of a prepare; `collect`, `check` or `apply` of a restore.
    pub name: &'static str,
    /// What is worked on: the workspace, or the asset of that key.
    pub label: &'a str,
    /// How many bytes of an archive that concerns; 0 where that is not known.
    pub bytes: u64,
}

impl Step<'static> {
    /// A step with the workspace.
    #[must_use]
    pub fn of_workspace(name: &'static str, bytes: u64) -> Self {
        Self { name, label: "workspace", bytes }
    }
}

/// A sandbox that can be reached. Paths are absolute POSIX paths in it.
pub trait SandboxClient: Send + Sync + 'static {
    /// What its methods fail with; passed on untouched.
    type Failure: Send + 'static;
    /// Zeroed memory in which an upload is made, and which is handed over without a copy.
    type Upload: AsMut<[u8]> + AsRef<[u8]> + Send + 'static;
    /// A file that was read.
    type Download: Bytes + 'static;

    /// What tells whether the memory of uploads is still there. By default it always is.
    fn attachment(&self) -> Attachment {
        Attachment::default()
    }
    /// Memory of exactly that many bytes for an upload.
    fn allocate(&self, size: u64) -> impl Future<Output = Result<Self::Upload, Self::Failure>> + Send;
    /// Creates a folder and those above it.
    fn make_dir(&self, path: &str) -> impl Future<Output = Result<(), Self::Failure>> + Send;
    /// Writes a whole file. After a failure the same bytes may be written again.
    fn write_file(
        &self,
        path: &str,
        bytes: &Self::Upload,
        part: Part<'_>,
    ) -> impl Future<Output = Result<(), Self::Failure>> + Send;
    /// Reads a whole file: a part of an archive, or a short text.
    fn read_file(
        &self,
        path: &str,
        part: Option<Part<'_>>,
    ) -> impl Future<Output = Result<Self::Download, Self::Failure>> + Send;
    /// Whether a failure passes, so that the same call may well succeed later.
    fn is_passing(&self, failure: &Self::Failure) -> bool;
    /// Removes a file that a failed transfer left, also after an abort. It does what it can, and reports no failure of its own.
    fn discard(&self, path: &str) -> impl Future<Output = ()> + Send;
    /// Removes a file.
    fn remove(&self, path: &str) -> impl Future<Output = Result<(), Self::Failure>> + Send;
    /// Runs a command line of POSIX `sh`.
    fn run(&self, command: &str) -> impl Future<Output = Result<(), Self::Failure>> + Send;
    /// Is told of a step that takes long, and for how long it has gone on. It returns at once. By default nobody is told.
    fn goes_on(&self, _step: Step<'_>, _took: Duration) {}
}

/// How often a step that takes long is told of. One that is shorter is not told of at all.
const TELLING: Duration = Duration::from_secs(5);

/// Does the work of a step, and tells the client of it while it goes on.
pub async fn telling<C: SandboxClient, T>(client: &C, step: Step<'_>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let started = Instant::now();
    loop {
        match tokio::time::timeout(TELLING, work.as_mut()).await {
            Ok(done) => return done,
            Err(_) => client.goes_on(step, started.elapsed()),
        }
    }
}

/// Makes a call that may be made twice: again, after a pause, where its failure passes.
pub async fn persist<C, T, F>(client: &C, mut call: impl FnMut() -> F) -> Result<T, RunError<C::Failure>>
where
    C: SandboxClient,
    F: Future<Output = Result<T, C::Failure>>,
{
    let mut attempt = 0;
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(failure) => before_another(client, failure, &mut attempt).await?,
        }
    }
}

/// Waits until a call that failed is to be made again, or gives its failure back where it is not. `attempt` counts from 0.
pub async fn before_another<C: SandboxClient>(
    client: &C,
    failure: C::Failure,
    attempt: &mut u32,
) -> Result<(), RunError<C::Failure>> {
    let pause = if client.is_passing(&failure) { retry::pause(*attempt, retry::chance()) } else { None };
    let Some(pause) = pause else { return Err(RunError::Client(failure)) };
    tokio::time::sleep(pause).await;
    *attempt += 1;
    Ok(())
}

/// How long is waited for a client to remove what a failed transfer left.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// Removes what a failed transfer left. What went wrong before is what the caller is told, so this does not wait for long.
pub async fn clean_up<C: SandboxClient>(client: &C, paths: impl IntoIterator<Item = String>) {
    let removing = async {
        for path in paths {
            client.discard(&path).await;
        }
    };
    // Where that takes too long, the next run removes what stays.
    let _in_time = tokio::time::timeout(CLEAN_UP, removing).await;
}

/// Whether memory that belongs to the client's side is still there. JavaScript's goes with its environment: when a
/// worker thread is terminated, or the process exits, in the middle of a prepare or restore.
#[derive(Debug, Clone, Default)]
pub struct Attachment(Arc<RwLock<bool>>);

impl Attachment {
    /// Keeps the memory where it is until the guard is dropped; [`Error::Aborted`] once it is gone.
    pub fn hold(&self) -> Result<RwLockReadGuard<'_, bool>, Error> {
        let detached = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if *detached { Err(Error::Aborted) } else { Ok(detached) }
    }

    /// Waits until the memory is not held, and refuses every later hold.
    pub fn end(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// Why a prepare or restore failed.
#[derive(Debug)]
pub enum RunError<F> {
    /// Something here.
    Own(Error),
    /// The client: with its own value.
    Client(F),
}

impl<F> From<Error> for RunError<F> {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use super::*;
    use crate::sync::lock;

    /// A client that is told of steps, and nothing else.
    #[derive(Default)]
    struct Listener(Mutex<Vec<&'static str>>);

    impl SandboxClient for Listener {
        type Failure = Infallible;
        type Upload = Vec<u8>;
        type Download = Vec<u8>;

        async fn allocate(&self, _: u64) -> Result<Vec<u8>, Infallible> {
            unreachable!()
        }
        async fn make_dir(&self, _: &str) -> Result<(), Infallible> {
            unreachable!()
        }
        async fn write_file(&self, _: &str, _: &Vec<u8>, _: Part<'_>) -> Result<(), Infallible> {
            unreachable!()
        }
        async fn read_file(&self, _: &str, _: Option<Part<'_>>) -> Result<Vec<u8>, Infallible> {
            unreachable!()
        }
        fn is_passing(&self, _: &Infallible) -> bool {
            unreachable!()
        }
        async fn discard(&self, _: &str) {
            unreachable!()
        }
        async fn remove(&self, _: &str) -> Result<(), Infallible> {
            unreachable!()
        }
        async fn run(&self, _: &str) -> Result<(), Infallible> {
            unreachable!()
        }
        fn goes_on(&self, step: Step<'_>, _: Duration) {
            lock(&self.0).push(step.name);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_is_told_of_every_five_seconds_and_a_short_one_never() {
        let client = Listener::default();
        let step = |name| Step { name, label: "workspace", bytes: 0 };
        let short = telling(&client, step("short"), tokio::time::sleep(TELLING / 2));
        short.await;
        let long = async {
            tokio::time::sleep(3 * TELLING + Duration::from_millis(1)).await;
            "done"
        };
        assert_eq!(telling(&client, step("long"), long).await, "done");
        assert_eq!(*lock(&client.0), ["long"; 3]);
    }
}
