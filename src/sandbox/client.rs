//! What prepare and restore need of a sandbox. The one real implementation is a JavaScript object (`node/`); tests
//! bring their own.

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::archive::source::Bytes;
use crate::error::Error;
pub(crate) use crate::threads::blocking;

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
    /// Writes a whole file.
    fn write_file(
        &self,
        path: &str,
        bytes: Self::Upload,
    ) -> impl Future<Output = Result<(), Self::Failure>> + Send;
    /// Reads a whole file.
    fn read_file(&self, path: &str) -> impl Future<Output = Result<Self::Download, Self::Failure>> + Send;
    /// Removes a file.
    fn remove(&self, path: &str) -> impl Future<Output = Result<(), Self::Failure>> + Send;
    /// Runs a command line of POSIX `sh`.
    fn run(&self, command: &str) -> impl Future<Output = Result<(), Self::Failure>> + Send;
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

    /// Waits until nobody holds the memory, and lets nobody hold it again.
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
