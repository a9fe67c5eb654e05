//! Runs work on the driver thread and returns a promise that settles, whatever happens to the work.

use std::future::Future;

use napi::bindgen_prelude::{PromiseRaw, ToNapiValue};
use napi::{Env, JsDeferred, JsValue as _};

use super::error::to_napi;
use crate::error::Error;
use crate::threads;

/// A JavaScript promise of `T`.
pub type Promised<'env, T> = napi::Result<PromiseRaw<'env, T>>;

type Resolver<T> = Box<dyn FnOnce(Env) -> napi::Result<T> + Send>;

/// Starts the work. If there is no thread for it, the promise rejects.
pub fn promise<T: ToNapiValue + Send + 'static>(
    env: &Env,
    work: impl Future<Output = napi::Result<T>> + Send + 'static,
) -> Promised<'_, T> {
    let (deferred, object) = env.create_deferred::<T, Resolver<T>>()?;
    let unsettled = Unsettled(Some(deferred));
    match threads::driver() {
        Ok(driver) => {
            let working = driver.spawn(work);
            // This task ends without settling only if the driver ends, and then dropping `unsettled` settles
            // the promise.
            drop(driver.spawn(async move {
                let outcome = working.await;
                unsettled.settle(outcome.unwrap_or_else(|panicked| Err(defect(&panicked))));
            }));
        }
        Err(error) => unsettled.settle(Err(to_napi(&error))),
    }
    Ok(PromiseRaw::new(env.raw(), object.raw()))
}

fn defect(what: &dyn std::fmt::Display) -> napi::Error {
    to_napi(&Error::Internal(what.to_string()))
}

/// The right to settle a promise once. If it is dropped unused, the promise rejects.
struct Unsettled<T: ToNapiValue + Send + 'static>(Option<JsDeferred<T, Resolver<T>>>);

impl<T: ToNapiValue + Send + 'static> Unsettled<T> {
    fn settle(mut self, outcome: napi::Result<T>) {
        let Some(deferred) = self.0.take() else { return };
        match outcome {
            Ok(value) => deferred.resolve(Box::new(move |_| Ok(value))),
            Err(error) => deferred.reject(error),
        }
    }
}

impl<T: ToNapiValue + Send + 'static> Drop for Unsettled<T> {
    fn drop(&mut self) {
        if let Some(deferred) = self.0.take() {
            deferred.reject(defect(&"the work ended without an outcome"));
        }
    }
}
