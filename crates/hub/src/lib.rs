//! Warren's hub.
