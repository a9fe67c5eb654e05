//! A JavaScript object as a [`SandboxClient`].
//!
//! `index.js` passes one asynchronous function that looks the method up, calls it on the client and keeps what it
//! throws. Uploads stay JavaScript's own memory: it is made there, filled here while nobody else has it, and handed to
//! the client by its number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use napi::Status;
use napi::bindgen_prelude::{Either3, FnArgs, Promise, Uint8Array};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};

use super::download::{self, Download};
use crate::sandbox::client::{Attachment, SandboxClient};

/// What `index.js` is called with: what to do, on which path (or which command), and a number.
type Arguments = FnArgs<(String, String, f64)>;

/// What comes back: memory for an upload, a function that gives what was read, nothing, or the number under which
/// `index.js` keeps what the client threw. A JavaScript value never travels through other threads as an error.
type Answer = Option<Either3<Uint8Array, download::Answer, u32>>;

/// The asynchronous function of `index.js`.
pub type Dispatch = ThreadsafeFunction<Arguments, Promise<Answer>, Arguments, Status, false>;

/// A client behind its dispatch function.
pub struct JsClient {
    dispatch: Arc<Dispatch>,
    attachment: Attachment,
    uploads: AtomicU32,
}

impl JsClient {
    /// The client of one prepare or restore.
    pub fn new(dispatch: Dispatch, attachment: Attachment) -> Self {
        Self { dispatch: Arc::new(dispatch), attachment, uploads: AtomicU32::new(0) }
    }

    async fn call(&self, method: &str, path: &str, number: f64) -> napi::Result<Answer> {
        let arguments = (method.to_owned(), path.to_owned(), number).into();
        match self.dispatch.call_async_catch(arguments).await?.await? {
            Some(Either3::C(kept)) => {
                Err(napi::Error::new(Status::GenericFailure, format!("client-failure:{kept}")))
            }
            answer => Ok(answer),
        }
    }
}

fn missing(method: &str) -> napi::Error {
    napi::Error::new(Status::GenericFailure, format!("{method} gave no bytes"))
}

/// Memory of JavaScript's for one archive. Dropped without having been sent, it is given back.
pub struct Upload {
    number: u32,
    bytes: Uint8Array,
    /// Whom to give it back to; nobody once it is sent.
    keeper: Option<Arc<Dispatch>>,
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            let arguments = ("release".to_owned(), self.number.to_string(), 0.0).into();
            // It fails where the environment has ended, and the memory with it.
            let _ended = keeper.call(arguments, ThreadsafeFunctionCallMode::NonBlocking);
        }
    }
}

impl AsRef<[u8]> for Upload {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Upload {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: index.js has just made this memory and shows it to nobody before `write_file` takes it from here,
        // and `self` is borrowed mutably, so there is no other access to it. It stays attached for the same reason, and
        // callers hold the attachment meanwhile, so that it does not go with its environment.
        unsafe { self.bytes.as_mut() }
    }
}

impl SandboxClient for JsClient {
    type Failure = napi::Error;
    type Upload = Upload;
    type Download = Download;

    fn attachment(&self) -> Attachment {
        self.attachment.clone()
    }

    async fn allocate(&self, size: u64) -> napi::Result<Upload> {
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        #[allow(clippy::cast_precision_loss, reason = "JavaScript refuses sizes beyond 2^53 all the same")]
        match self.call("allocate", &number.to_string(), size as f64).await? {
            Some(Either3::A(bytes)) => Ok(Upload { number, bytes, keeper: Some(self.dispatch.clone()) }),
            _ => Err(missing("allocate")),
        }
    }

    async fn make_dir(&self, path: &str) -> napi::Result<()> {
        self.call("makeDir", path, 0.0).await.map(|_| ())
    }

    async fn write_file(&self, path: &str, mut upload: Upload) -> napi::Result<()> {
        let number = f64::from(upload.number);
        // From here on the memory is the client's.
        upload.keeper = None;
        drop(upload);
        self.call("writeFile", path, number).await.map(|_| ())
    }

    async fn read_file(&self, path: &str) -> napi::Result<Download> {
        match self.call("readFile", path, 0.0).await? {
            Some(Either3::B(answer)) => Download::new(answer, self.attachment.clone()).await,
            _ => Err(missing("readFile")),
        }
    }

    async fn remove(&self, path: &str) -> napi::Result<()> {
        self.call("remove", path, 0.0).await.map(|_| ())
    }

    async fn run(&self, command: &str) -> napi::Result<()> {
        self.call("run", command, 0.0).await.map(|_| ())
    }
}
