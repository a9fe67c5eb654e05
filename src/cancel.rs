//! A caller's wish to stop, asked for at every step that can still be undone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Shared by whoever may cancel and the work that looks at it. The default one is never cancelled.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    own: Arc<AtomicBool>,
    above: Option<Arc<AtomicBool>>,
}

impl Cancel {
    /// One that can be cancelled by itself, and is cancelled with this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { own: Arc::default(), above: Some(self.own.clone()) }
    }

    /// Asks the work to stop at its next [`Cancel::check`].
    pub fn cancel(&self) {
        self.own.store(true, Ordering::Relaxed);
    }

    /// [`Error::Aborted`] once cancelled.
    pub fn check(&self) -> Result<()> {
        let is_set = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
        if is_set(&self.own) || self.above.as_ref().is_some_and(is_set) {
            Err(Error::Aborted)
        } else {
            Ok(())
        }
    }
}
