//! What the allocator holds free, given back to the system.

/// Gives memory that was freed back to the system, as far as whole pages of it are free; the allocator keeps most of it
/// otherwise, for later. Blocks for about a millisecond for each few hundred megabytes. Does nothing where the C
/// library has no such call.
pub fn release_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number and locks what it looks at.
    unsafe {
        libc::malloc_trim(0);
    }
}
