//! A JavaScript object as a [`SandboxClient`].
//!
//! `index.js` passes one asynchronous function that looks up a method, calls it on the client, and keeps what
//! it throws. The memory of an upload belongs to JavaScript: it is allocated there, filled here while nothing
//! else uses it, and passed to the client by its number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use napi::Status;
use napi::bindgen_prelude::{FnArgs, Promise, Uint8Array};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;

use super::download::{Download, Reader};
use super::memory::prefer_large_pages;
use crate::sandbox::client::{Attachment, Part, SandboxClient, Step};

/// A request to `index.js`.
#[napi(object, object_from_js = false)]
#[derive(Clone, Default)]
pub struct Request {
    /// The operation.
    #[napi(
        ts_type = r#""allocate" | "release" | "discard" | "clear" | "makeDir" | "writeFile" | "readFile" | "remove" | "run" | "step""#
    )]
    pub op: &'static str,
    /// The remote path or the command; for `step` the step's name.
    pub target: String,
    /// The number of an upload's memory, for `allocate`, `release` and `writeFile`.
    pub upload: u32,
    /// How many bytes to allocate.
    pub size: f64,
    /// For how many milliseconds a step has taken so far.
    pub took: f64,
    /// The part of an archive that is transferred, or what a step works on; absent for other calls.
    pub part: Option<RequestPart>,
}

/// A part of an archive, for progress: see [`Part`]. All sizes are those of the archive before compression.
#[napi(object, object_from_js = false)]
#[derive(Clone, Default)]
pub struct RequestPart {
    /// What is transferred: `workspace`, or the key of an asset.
    pub label: String,
    /// The number of the part, counted from 0.
    pub number: u32,
    /// How many bytes of the archive come before this part.
    pub before: f64,
    /// How many bytes this part has; 0 if unknown.
    pub size: f64,
    /// How many bytes the archive has; 0 if unknown.
    pub total: f64,
}

impl From<Part<'_>> for RequestPart {
    #[allow(clippy::cast_precision_loss, reason = "progress is told in megabytes")]
    fn from(part: Part<'_>) -> Self {
        Self {
            label: part.label.to_owned(),
            number: u32::try_from(part.number).unwrap_or(u32::MAX),
            before: part.before as f64,
            size: part.size as f64,
            total: part.total as f64,
        }
    }
}

/// Stands for a value that the client threw. The value itself stays in JavaScript, and is never passed
/// between threads as an error.
#[napi(object, object_to_js = false)]
#[derive(Debug, Clone)]
pub struct Failure {
    /// The number under which `index.js` keeps the value.
    pub kept: u32,
    /// Whether the value says that the same call may succeed later.
    pub retryable: bool,
}

/// Why a call failed.
#[derive(Debug)]
pub enum CallFailure {
    /// The client threw something.
    Client(Failure),
    /// The call could not be made.
    Napi(napi::Error),
}

impl From<napi::Error> for CallFailure {
    fn from(error: napi::Error) -> Self {
        Self::Napi(error)
    }
}

/// The result of a [`Request`]: one of the fields, or none where there is nothing to return.
#[napi(object, object_to_js = false)]
pub struct Answer {
    /// Zeroed memory for an upload, of `allocate`.
    pub memory: Option<Uint8Array>,
    /// Returns the bytes that were read, of `readFile`.
    #[napi(ts_type = "() => Uint8Array")]
    pub read: Option<Reader>,
    /// How many milliseconds the client took, of `makeDir` and `writeFile`.
    pub took: Option<f64>,
    /// The failure of any call.
    pub failure: Option<Failure>,
}

/// The arguments of the dispatch function.
type Arguments = FnArgs<(Request,)>;

/// The asynchronous function of `index.js`.
pub type Dispatch = ThreadsafeFunction<Arguments, Promise<Answer>, Arguments, Status, false>;

/// A client that is called through its dispatch function.
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

    async fn call(&self, request: Request) -> Result<Answer, CallFailure> {
        match self.dispatch.call_async_catch((request,).into()).await?.await? {
            Answer { failure: Some(failure), .. } => Err(CallFailure::Client(failure)),
            answer => Ok(answer),
        }
    }
}

fn request(op: &'static str, target: &str) -> Request {
    Request { op, target: target.to_owned(), ..Request::default() }
}

/// How long the client took: without the time that a busy event loop added before and after its call.
fn took(method: &str, answer: &Answer) -> Result<Duration, CallFailure> {
    let took = answer.took.and_then(|took| Duration::try_from_secs_f64(took / 1000.0).ok());
    took.ok_or_else(|| napi::Error::new(Status::GenericFailure, format!("{method} returned no time")).into())
}

fn missing(method: &str) -> CallFailure {
    napi::Error::new(Status::GenericFailure, format!("{method} returned no bytes")).into()
}

/// JavaScript memory for a part of an archive. It is released when this is dropped; until then it can be sent
/// again.
pub struct Upload {
    number: u32,
    bytes: Uint8Array,
    keeper: Arc<Dispatch>,
}

impl Drop for Upload {
    fn drop(&mut self) {
        let release = Request { upload: self.number, ..request("release", "") };
        // This fails if the environment has ended, and the memory with it.
        let _ended = self.keeper.call((release,).into(), ThreadsafeFunctionCallMode::NonBlocking);
    }
}

impl AsRef<[u8]> for Upload {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Upload {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: index.js has just allocated this memory and passes it to nobody before `write_file` does,
        // and `self` is borrowed mutably, so nothing else accesses it. For the same reason it stays attached.
        // Callers hold the attachment meanwhile, so it is not freed together with its environment.
        unsafe { self.bytes.as_mut() }
    }
}

impl SandboxClient for JsClient {
    type Failure = CallFailure;
    type Upload = Upload;
    type Download = Download;

    fn attachment(&self) -> Attachment {
        self.attachment.clone()
    }

    async fn allocate(&self, size: u64) -> Result<Upload, CallFailure> {
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        #[allow(clippy::cast_precision_loss, reason = "JavaScript refuses sizes beyond 2^53 all the same")]
        let wanted = Request { upload: number, size: size as f64, ..request("allocate", "") };
        match self.call(wanted).await? {
            Answer { memory: Some(bytes), .. } => {
                let mut upload = Upload { number, bytes, keeper: self.dispatch.clone() };
                // If the environment has ended, its memory may be gone; the next step finds that out.
                if let Ok(_held) = self.attachment.hold() {
                    prefer_large_pages(upload.as_mut());
                }
                Ok(upload)
            }
            _ => Err(missing("allocate")),
        }
    }

    async fn make_dir(&self, path: &str) -> Result<Duration, CallFailure> {
        took("makeDir", &self.call(request("makeDir", path)).await?)
    }

    async fn write_file(&self, path: &str, upload: &Upload, part: Part<'_>) -> Result<Duration, CallFailure> {
        let written =
            Request { upload: upload.number, part: Some(part.into()), ..request("writeFile", path) };
        took("writeFile", &self.call(written).await?)
    }

    async fn read_file(&self, path: &str, part: Option<Part<'_>>) -> Result<Download, CallFailure> {
        let read = Request { part: part.map(Into::into), ..request("readFile", path) };
        match self.call(read).await? {
            Answer { read: Some(reader), .. } => Ok(Download::new(reader, self.attachment.clone()).await?),
            _ => Err(missing("readFile")),
        }
    }

    async fn remove(&self, path: &str) -> Result<(), CallFailure> {
        self.call(request("remove", path)).await.map(|_| ())
    }

    async fn run(&self, command: &str) -> Result<(), CallFailure> {
        self.call(request("run", command)).await.map(|_| ())
    }

    fn goes_on(&self, Step { name, label, bytes }: Step<'_>, took: Duration) {
        let part = Part { label, size: bytes, total: bytes, ..Part::default() };
        let took = took.as_secs_f64() * 1000.0;
        let told = Request { took, part: Some(part.into()), ..request("step", name) };
        // It fails if the environment has ended, and then nobody needs the report.
        let _ended = self.dispatch.call((told,).into(), ThreadsafeFunctionCallMode::NonBlocking);
    }

    fn is_passing(&self, failure: &CallFailure) -> bool {
        matches!(failure, CallFailure::Client(Failure { retryable: true, .. }))
    }

    async fn discard(&self, path: &str) {
        // The caller gets the error that led here, not this one.
        let _not_removed = self.call(request("discard", path)).await;
    }

    async fn clear(&self, command: &str) {
        // The caller gets the error that led here, not this one.
        let _not_removed = self.call(request("clear", command)).await;
    }
}
