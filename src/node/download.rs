//! The result of a client's `readFile`, as [`Bytes`].
//!
//! The memory belongs to JavaScript, which may write to it, resize it or transfer it away at any time. So it
//! is read only on the thread of its event loop, where none of that can happen meanwhile, and copied from
//! there in pieces.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use napi::Status;
use napi::bindgen_prelude::FromNapiValue;
use napi::sys;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use tokio::sync::oneshot;

use crate::archive::source::Bytes;
use crate::error::{Error, Result};
use crate::sandbox::client::Attachment;
use crate::sync::lock;

/// A function of `js/calls.js` that returns the bytes.
pub type Reader = ThreadsafeFunction<(), InPlace, (), Status, false>;

/// How long copying may block the event loop without a pause.
const BURST: Duration = Duration::from_millis(8);

/// Two copies further apart than this are in different turns of the event loop, or the loop had nothing else
/// to do.
const GAP: Duration = Duration::from_micros(200);

/// How long to wait before the next copy after the event loop was blocked for [`BURST`].
const PAUSE: Duration = Duration::from_millis(1);

/// How often to check whether the event loop still exists.
const PATIENCE: Duration = Duration::from_millis(100);

/// Bytes in JavaScript's memory. They must be used at once, on the thread of that environment.
pub struct InPlace {
    data: *const u8,
    length: usize,
}

impl FromNapiValue for InPlace {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        let (mut kind, mut length, mut data) = (0, 0, std::ptr::null_mut());
        let (mut buffer, mut offset) = (std::ptr::null_mut(), 0);
        // SAFETY: the caller passes a value of this environment, on its thread; the other arguments are out
        // parameters.
        let status = unsafe {
            sys::napi_get_typedarray_info(
                env,
                value,
                &raw mut kind,
                &raw mut length,
                &raw mut data,
                &raw mut buffer,
                &raw mut offset,
            )
        };
        if status != sys::Status::napi_ok || kind != sys::TypedarrayType::uint8_array {
            return Err(napi::Error::new(Status::InvalidArg, "no Uint8Array".to_owned()));
        }
        Ok(Self { data: data.cast_const().cast(), length })
    }
}

/// The period in which the event loop has been copying without a pause.
struct Burst {
    began: Instant,
    ended: Instant,
}

impl Burst {
    /// Whether the event loop may be blocked for one more copy.
    fn allows(&mut self, now: Instant) -> bool {
        if now.duration_since(self.ended) > GAP {
            self.began = now;
        }
        now.duration_since(self.began) < BURST
    }
}

/// The outcome of a request for a copy.
enum Reply {
    Copied(Vec<u8>),
    /// The loop was blocked long enough. The buffer is returned.
    Later(Vec<u8>),
    Gone,
}

/// A file that a client's `readFile` returned.
pub struct Download {
    answer: Reader,
    size: usize,
    attachment: Attachment,
    burst: Arc<Mutex<Burst>>,
}

impl Download {
    /// Asks for the size of the file.
    pub async fn new(answer: Reader, attachment: Attachment) -> napi::Result<Self> {
        let (sender, receiver) = oneshot::channel();
        let asked = answer.call_with_return_value((), ThreadsafeFunctionCallMode::NonBlocking, |bytes, _| {
            // If this fails, the work was given up and nobody waits for the size.
            sender.send(bytes.map(|bytes| bytes.length)).unwrap_or_default();
            Ok(())
        });
        let ended = || napi::Error::new(Status::Closing, "the event loop has ended".to_owned());
        if asked != Status::Ok {
            return Err(ended());
        }
        let size = receiver.await.map_err(|_| ended())??;
        let now = Instant::now();
        let burst = Arc::new(Mutex::new(Burst { began: now, ended: now }));
        Ok(Self { answer, size, attachment, burst })
    }

    /// Has the event loop's thread copy bytes into our memory.
    fn ask(&self, offset: usize, length: usize, mut into: Vec<u8>) -> Result<Reply> {
        let (sender, receiver) = mpsc::channel();
        let (size, burst) = (self.size, self.burst.clone());
        let copy = move |bytes: napi::Result<InPlace>, _| {
            let mut burst = lock(&burst);
            let reply = match bytes {
                _ if !burst.allows(Instant::now()) => Reply::Later(into),
                // Memory of another size was transferred away or resized.
                Ok(InPlace { data, length: now }) if now == size && offset + length <= now => {
                    into.reserve(length);
                    // SAFETY: the range is within the bytes, which exist as long as this thread does not
                    // return to JavaScript. The buffer has space for them behind its content. No reference is
                    // made to memory that others may write to.
                    unsafe {
                        std::ptr::copy_nonoverlapping(
                            data.add(offset),
                            into.as_mut_ptr().add(into.len()),
                            length,
                        );
                        into.set_len(into.len() + length);
                    }
                    Reply::Copied(into)
                }
                _ => Reply::Gone,
            };
            burst.ended = Instant::now();
            // If this fails, the environment was taken for ended and nobody waits for the reply.
            sender.send(reply).unwrap_or_default();
            Ok(())
        };
        let asked = self.answer.call_with_return_value((), ThreadsafeFunctionCallMode::NonBlocking, copy);
        if asked != Status::Ok {
            return Err(Error::Aborted);
        }
        loop {
            match receiver.recv_timeout(PATIENCE) {
                Ok(reply) => return Ok(reply),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Aborted),
                // A request that the environment had not received when it ended is never answered.
                Err(RecvTimeoutError::Timeout) => drop(self.attachment.hold()?),
            }
        }
    }
}

impl Bytes for Download {
    fn size(&self) -> u64 {
        self.size as u64
    }

    fn copy(&self, offset: u64, length: usize, into: &mut Vec<u8>) -> Result<()> {
        let offset = usize::try_from(offset).expect("it lies in memory");
        loop {
            match self.ask(offset, length, std::mem::take(into))? {
                Reply::Copied(copied) => {
                    *into = copied;
                    return Ok(());
                }
                Reply::Later(buffer) => {
                    *into = buffer;
                    thread::sleep(PAUSE);
                }
                Reply::Gone => {
                    let reason = "gave bytes that were transferred away or resized while they were read; they must stay \
                                  as they are until the restore is done";
                    return Err(Error::InvalidReturnValue { reason: reason.to_owned() });
                }
            }
        }
    }
}
