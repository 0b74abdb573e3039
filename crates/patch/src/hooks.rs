//! The functions of the C library that are stood in for, by what they are about.

pub(crate) mod dns;
pub(crate) mod files;
pub(crate) mod process;
pub(crate) mod select;
pub(crate) mod sockets;
pub(crate) mod time;
pub(crate) mod transfer;

/// Looks all real functions up.
pub(crate) fn look_up() {
    dns::real::look_up();
    files::real::look_up();
    files::real_close::look_up();
    process::real::look_up();
    select::real::look_up();
    sockets::real::look_up();
    time::real::look_up();
    transfer::real::look_up();
}
