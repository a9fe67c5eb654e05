//! Takes large buffers from the system at little cost, and returns freed memory to it.
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

/// Asks for large pages below a buffer of at least some megabytes that is about to be filled.
///
/// Linux gives a process its memory when it is first written to, by default 4 KiB at a time: 8,192 times for an archive's part of 32
/// MiB. It is a wish: without large pages nothing else changes.
pub fn prefer_large_pages(buffer: &mut [u8]) {
    #[cfg(target_os = "linux")]
    {
        const LARGE: usize = 2 << 20;
        let begin = buffer.as_ptr().addr().next_multiple_of(LARGE);
        let skipped = begin - buffer.as_ptr().addr();
        let size = buffer.len().saturating_sub(skipped) / LARGE * LARGE;
        if size == 0 {
            return;
        }
        let pages = buffer[skipped..].as_mut_ptr();
        // SAFETY: the pages lie within the buffer, and the advice changes no content.
        let _is_taken = unsafe { libc::madvise(pages.cast(), size, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = buffer;
}

/// Returns to the system the memory of freed smaller buffers.
fn give_back_small_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it is passed no pointer, and any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
