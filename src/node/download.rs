//! An answer of `readFile` as [`Bytes`].
//!
//! It is memory of JavaScript's, which its owner may write to, resize or transfer away at any time. So it is looked at on
//! the thread of its event loop alone, where none of that happens meanwhile, and copied from there in pieces.

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

/// A function of `js/calls.js` that gives the answer's bytes.
pub type Answer = ThreadsafeFunction<(), InPlace, (), Status, false>;

/// How long the event loop may be kept at copying.
const BURST: Duration = Duration::from_millis(8);

/// What is this far apart is of two turns of the event loop, or it had nothing else to do.
const GAP: Duration = Duration::from_micros(200);

/// How long a copy is put off where the event loop has been kept long enough.
const PAUSE: Duration = Duration::from_millis(1);

/// How often it is looked whether the event loop is still there.
const PATIENCE: Duration = Duration::from_millis(100);

/// Bytes of JavaScript's in place: to be used at once, on its own thread.
pub struct InPlace {
    data: *const u8,
    length: usize,
}

impl FromNapiValue for InPlace {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        let (mut kind, mut length, mut data) = (0, 0, std::ptr::null_mut());
        let (mut buffer, mut offset) = (std::ptr::null_mut(), 0);
        // SAFETY: the caller gives a value of this environment, on its thread; the rest is filled in.
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

/// Since when the event loop has been copying without a pause.
struct Burst {
    began: Instant,
    ended: Instant,
}

impl Burst {
    /// Whether the event loop may be kept for one more copy.
    fn allows(&mut self, now: Instant) -> bool {
        if now.duration_since(self.ended) > GAP {
            self.began = now;
        }
        now.duration_since(self.began) < BURST
    }
}

/// What became of the wish for a copy.
enum Reply {
    Copied(Vec<u8>),
    /// The loop was kept long enough; the buffer comes back.
    Later(Vec<u8>),
    Gone,
}

/// A file that a client's `readFile` answered with.
pub struct Download {
    answer: Answer,
    size: usize,
    attachment: Attachment,
    burst: Arc<Mutex<Burst>>,
}

impl Download {
    /// Asks for its size.
    pub async fn new(answer: Answer, attachment: Attachment) -> napi::Result<Self> {
        let (sender, receiver) = oneshot::channel();
        let asked = answer.call_with_return_value((), ThreadsafeFunctionCallMode::NonBlocking, |bytes, _| {
            // Nobody waits any longer where the work was given up.
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

    /// Has the event loop's thread make a copy, into memory of ours.
    fn ask(&self, offset: usize, length: usize, mut into: Vec<u8>) -> Result<Reply> {
        let (sender, receiver) = mpsc::channel();
        let (size, burst) = (self.size, self.burst.clone());
        let copy = move |bytes: napi::Result<InPlace>, _| {
            let mut burst = lock(&burst);
            let reply = match bytes {
                _ if !burst.allows(Instant::now()) => Reply::Later(into),
                // A shorter one was transferred away, or resized.
                Ok(InPlace { data, length: now }) if now == size && offset + length <= now => {
                    into.clear();
                    into.reserve(length);
                    // SAFETY: the range lies within the bytes, which are there as long as this thread does not return to
                    // JavaScript. The buffer has room for them. No reference is made of memory that others may write to.
                    unsafe {
                        std::ptr::copy_nonoverlapping(data.add(offset), into.as_mut_ptr(), length);
                        into.set_len(length);
                    }
                    Reply::Copied(into)
                }
                _ => Reply::Gone,
            };
            burst.ended = Instant::now();
            // Nobody waits any longer where the environment was taken for ended.
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
                // A wish that was not heard before the environment ended is never answered.
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
