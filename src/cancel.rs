//! Cancellation by the caller, checked before every step that cannot be undone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// A flag shared by the caller that may cancel and the work that checks it. The default value is never
/// cancelled.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    own: Arc<AtomicBool>,
    above: Option<Arc<AtomicBool>>,
}

impl Cancel {
    /// A flag that can be set by itself, and that counts as set if this one is.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { own: Arc::default(), above: Some(self.own.clone()) }
    }

    /// Asks the work to stop at its next [`Cancel::check`].
    pub fn cancel(&self) {
        self.own.store(true, Ordering::Relaxed);
    }

    /// Fails with [`Error::Aborted`] once cancelled.
    pub fn check(&self) -> Result<()> {
        let is_set = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
        if is_set(&self.own) || self.above.as_ref().is_some_and(is_set) {
            Err(Error::Aborted)
        } else {
            Ok(())
        }
    }
}
