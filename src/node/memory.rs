//! Returns freed memory to the system.
//!
//! glibc keeps the memory of a freed large buffer for later use: after that, other buffers of up to 32 MiB
//! are taken from its heaps, which become fragmented and hardly ever shrink. Without this module, a transfer
//! of many parts left more memory behind than the rest of the process used.

use crate::threads;

/// Does work with large buffers, and then returns the free memory to the system.
pub async fn giving_back<T>(work: impl Future<Output = T>) -> T {
    give_back_large_buffers();
    let outcome = work.await;
    threads::in_background(give_back_small_buffers);
    outcome
}

/// Makes every large buffer separate pages of the system, which are returned when the buffer is freed.
///
/// Does nothing if the process was started with a setting of its own. C libraries other than glibc do this by themselves.
fn give_back_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGE: libc::c_int = 3 << 19;
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            let is_set = std::env::var_os("MALLOC_MMAP_THRESHOLD_").is_some();
            // A value that is not UTF-8 may contain anything.
            let says = |tunables: std::ffi::OsString| {
                tunables.to_str().is_none_or(|tunables| tunables.contains("mmap_threshold"))
            };
            if is_set || std::env::var_os("GLIBC_TUNABLES").is_some_and(says) {
                return;
            }
            // SAFETY: it is passed no pointer, and any thread may call it at any time.
            let _is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
        });
    }
}

/// Returns to the system the memory of freed smaller buffers.
fn give_back_small_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it is passed no pointer, and any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
