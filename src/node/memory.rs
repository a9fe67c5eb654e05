//! Returns freed memory to the system.
//!
//! glibc keeps the memory of freed large buffers for later ones: once such a buffer was freed, others of up to 32 MiB come
//! from its heaps, which are fragmented then and hardly ever shrink. A transfer of many parts left more memory behind than
//! everything else in the process.

/// Makes every large buffer separate pages of the system, which are returned when the buffer is freed.
///
/// Does nothing if the process was started with a setting of its own. C libraries other than glibc do this by themselves.
pub fn give_back_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGE: libc::c_int = 3 << 19;
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            let says =
                |name, what| std::env::var_os(name).is_some_and(|said| said.to_string_lossy().contains(what));
            if says("MALLOC_MMAP_THRESHOLD_", "") || says("GLIBC_TUNABLES", "mmap_threshold") {
                return;
            }
            // SAFETY: it is passed no pointer, and any thread may call it at any time.
            let _is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
        });
    }
}

/// Returns to the system what freed smaller buffers have left.
pub fn give_back_small_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it is passed no pointer, and any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
