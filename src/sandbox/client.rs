//! The sandbox as prepare and restore need it. The real implementation is a JavaScript object (`node/`);
//! tests have their own.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use crate::archive::source::Bytes;
use crate::error::Error;
pub(crate) use crate::threads::blocking;
use crate::transfer::retry;

/// A part of an archive that is being transferred, for progress. Sizes are those before compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part<'a> {
    /// What is transferred: the workspace, or the asset with that key.
    pub label: &'a str,
    /// Its number, counted from 0.
    pub number: usize,
    /// How many bytes of the archive precede it.
    pub before: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The size of the archive in bytes; 0 if it is not known yet.
    pub total: u64,
}

/// A step that transfers nothing, for progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// `compare`, `pack` or `extract` of a prepare; `collect`, `check` or `apply` of a restore.
    pub name: &'static str,
    /// What it works on: the workspace, or the asset with that key.
    pub label: &'a str,
    /// The size of the archive in bytes; 0 if it is not known.
    pub bytes: u64,
}

impl Step<'static> {
    /// A step that works on the workspace.
    #[must_use]
    pub fn of_workspace(name: &'static str, bytes: u64) -> Self {
        Self { name, label: "workspace", bytes }
    }
}

/// A sandbox that can be reached. Paths in it are absolute POSIX paths.
pub trait SandboxClient: Send + Sync + 'static {
    /// The error of its methods; passed on unchanged.
    type Failure: Send + 'static;
    /// Zeroed memory for an upload, which is passed on without a copy.
    type Upload: AsMut<[u8]> + AsRef<[u8]> + Send + 'static;
    /// The content of a file that was read.
    type Download: Bytes + 'static;

    /// Tells whether the memory of uploads still exists. By default it always does.
    fn attachment(&self) -> Attachment {
        Attachment::default()
    }
    /// Memory of exactly that many bytes for an upload.
    fn allocate(&self, size: u64) -> impl Future<Output = Result<Self::Upload, Self::Failure>> + Send;
    /// Creates a folder and those above it. Returns how long the client took.
    fn make_dir(&self, path: &str) -> impl Future<Output = Result<Duration, Self::Failure>> + Send;
    /// Writes a whole file. Returns how long the client took. After a failure the same bytes may be written again.
    fn write_file(
        &self,
        path: &str,
        bytes: &Self::Upload,
        part: Part<'_>,
    ) -> impl Future<Output = Result<Duration, Self::Failure>> + Send;
    /// Reads a whole file: a part of an archive, or a short text.
    fn read_file(
        &self,
        path: &str,
        part: Option<Part<'_>>,
    ) -> impl Future<Output = Result<Self::Download, Self::Failure>> + Send;
    /// Whether a failure is temporary, so that the same call may succeed later.
    fn is_passing(&self, failure: &Self::Failure) -> bool;
    /// Removes a file that a failed transfer left, also after an abort. Its own failure is not reported.
    fn discard(&self, path: &str) -> impl Future<Output = ()> + Send;
    /// Runs a command that removes what a failed transfer left, also after an abort. Its own failure is not reported.
    fn clear(&self, command: &str) -> impl Future<Output = ()> + Send;
    /// Removes a file.
    fn remove(&self, path: &str) -> impl Future<Output = Result<(), Self::Failure>> + Send;
    /// Runs a command line of POSIX `sh`.
    fn run(&self, command: &str) -> impl Future<Output = Result<(), Self::Failure>> + Send;
    /// Reports a step that takes long, and how long it has taken so far. Returns at once. By default nothing
    /// is reported.
    fn goes_on(&self, _step: Step<'_>, _took: Duration) {}
}

/// The interval between two reports of a long step. A shorter step is not reported.
const TELLING: Duration = Duration::from_secs(5);

/// Does the work of a step, and reports the step to the client while it runs.
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

/// Makes a call that may be repeated. It is repeated after a pause if its failure is temporary.
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

/// Waits before a failed call is repeated, or returns its failure if it is not to be. `attempt` counts from
/// 0.
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

/// How long to wait for a client to remove what a failed transfer left.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// Removes what a failed transfer left. The caller waits for it before it gets the failure, so it has little
/// time.
pub async fn clean_up<C: SandboxClient>(client: &C, paths: impl IntoIterator<Item = String>) {
    let removing = async {
        for path in paths {
            client.discard(&path).await;
        }
    };
    // If this takes too long, the next run removes what is left.
    let _in_time = tokio::time::timeout(CLEAN_UP, removing).await;
}

/// Removes what a failed transfer left by a command, for files whose names are not known.
pub async fn clean_up_by<C: SandboxClient>(client: &C, command: &str) {
    // If this takes too long, the next run removes what is left.
    let _in_time = tokio::time::timeout(CLEAN_UP, client.clear(command)).await;
}

/// Tells whether the client's memory still exists. JavaScript's memory is freed with its environment:
/// when a worker thread is terminated, or the process exits, during a prepare or restore.
#[derive(Debug, Clone, Default)]
pub struct Attachment(Arc<RwLock<bool>>);

impl Attachment {
    /// Keeps the memory in place until the guard is dropped; [`Error::Aborted`] once it is gone.
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
    /// A failure of this package.
    Own(Error),
    /// A failure of the client, with the value that it threw.
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

    /// A client that only collects the reported steps.
    #[derive(Default)]
    struct Listener(Mutex<Vec<&'static str>>);

    impl SandboxClient for Listener {
        type Failure = Infallible;
        type Upload = Vec<u8>;
        type Download = Vec<u8>;

        async fn allocate(&self, _: u64) -> Result<Vec<u8>, Infallible> {
            unreachable!()
        }
        async fn make_dir(&self, _: &str) -> Result<Duration, Infallible> {
            unreachable!()
        }
        async fn write_file(&self, _: &str, _: &Vec<u8>, _: Part<'_>) -> Result<Duration, Infallible> {
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
        async fn clear(&self, _: &str) {
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
