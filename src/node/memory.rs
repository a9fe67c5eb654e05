//! Memory that was freed goes back to the system.
//!
//! glibc keeps what large buffers had for later ones: once such a buffer was freed, others of up to 32 MiB come from its heaps,
//! which have holes then and hardly ever shrink. A transfer of many parts left more behind than all else that the process had.

/// Buffers of that size and more are the system's own pages from now on, and go back with the buffer. Nothing is changed where
/// the process was started with a choice of its own. Other C libraries than glibc do it by themselves.
pub fn give_back_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGE: libc::c_int = 4 << 20;
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

/// Gives the system back what smaller buffers left free.
pub fn give_back_small_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it is passed no pointer, and any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
