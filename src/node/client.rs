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
use napi_derive::napi;

use super::download::{self, Download};
use crate::sandbox::client::{Attachment, Part, SandboxClient};

/// What `index.js` is asked for.
#[napi(object, object_from_js = false)]
#[derive(Clone, Default)]
pub struct Request {
    /// What is to be done.
    #[napi(
        ts_type = r#""allocate" | "release" | "discard" | "makeDir" | "writeFile" | "readFile" | "remove" | "run""#
    )]
    pub op: &'static str,
    /// The remote path or the command.
    pub target: String,
    /// The number of an upload's memory, for `allocate`, `release` and `writeFile`.
    pub upload: u32,
    /// How many bytes are to be allocated.
    pub size: f64,
    /// Which part of an archive is transferred; nothing for other calls.
    pub part: Option<RequestPart>,
}

/// A part of an archive, for progress: see [`Part`]. All sizes are the archive's own, before anything is compressed.
#[napi(object, object_from_js = false)]
#[derive(Clone, Default)]
pub struct RequestPart {
    /// What travels: `workspace` or the key of an asset.
    pub label: String,
    /// Counted from 0.
    pub number: u32,
    /// How many bytes come before it.
    pub before: f64,
    /// How many it has; 0 where that is not known.
    pub size: f64,
    /// How many the archive has; 0 where that is not known.
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

/// What the client threw. The value itself stays in JavaScript and never travels through other threads as an error.
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

/// What comes back: memory for an upload, a function that gives what was read, nothing, or what was thrown.
type Answer = Option<Either3<Uint8Array, download::Answer, Failure>>;

/// What `index.js` is called with.
type Arguments = FnArgs<(Request,)>;

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

    async fn call(&self, request: Request) -> Result<Answer, CallFailure> {
        match self.dispatch.call_async_catch((request,).into()).await?.await? {
            Some(Either3::C(failure)) => Err(CallFailure::Client(failure)),
            answer => Ok(answer),
        }
    }
}

fn request(op: &'static str, target: &str) -> Request {
    Request { op, target: target.to_owned(), ..Request::default() }
}

fn missing(method: &str) -> CallFailure {
    napi::Error::new(Status::GenericFailure, format!("{method} gave no bytes")).into()
}

/// Memory of JavaScript's for a part of an archive. It is let go once it is dropped: until then it can be sent again.
pub struct Upload {
    number: u32,
    bytes: Uint8Array,
    keeper: Arc<Dispatch>,
}

impl Drop for Upload {
    fn drop(&mut self) {
        let release = Request { upload: self.number, ..request("release", "") };
        // It fails where the environment has ended, and the memory with it.
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
        // SAFETY: index.js has just made this memory and shows it to nobody before `write_file` takes it from here,
        // and `self` is borrowed mutably, so there is no other access to it. It stays attached for the same reason, and
        // callers hold the attachment meanwhile, so that it does not go with its environment.
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
            Some(Either3::A(bytes)) => Ok(Upload { number, bytes, keeper: self.dispatch.clone() }),
            _ => Err(missing("allocate")),
        }
    }

    async fn make_dir(&self, path: &str) -> Result<(), CallFailure> {
        self.call(request("makeDir", path)).await.map(|_| ())
    }

    async fn write_file(&self, path: &str, upload: &Upload, part: Part<'_>) -> Result<(), CallFailure> {
        let written =
            Request { upload: upload.number, part: Some(part.into()), ..request("writeFile", path) };
        self.call(written).await.map(|_| ())
    }

    async fn read_file(&self, path: &str, part: Option<Part<'_>>) -> Result<Download, CallFailure> {
        let read = Request { part: part.map(Into::into), ..request("readFile", path) };
        match self.call(read).await? {
            Some(Either3::B(answer)) => Ok(Download::new(answer, self.attachment.clone()).await?),
            _ => Err(missing("readFile")),
        }
    }

    async fn remove(&self, path: &str) -> Result<(), CallFailure> {
        self.call(request("remove", path)).await.map(|_| ())
    }

    async fn run(&self, command: &str) -> Result<(), CallFailure> {
        self.call(request("run", command)).await.map(|_| ())
    }

    fn is_passing(&self, failure: &CallFailure) -> bool {
        matches!(failure, CallFailure::Client(Failure { retryable: true, .. }))
    }

    async fn discard(&self, path: &str) {
        // What went wrong before is what the caller is told.
        let _not_removed = self.call(request("discard", path)).await;
    }
}
