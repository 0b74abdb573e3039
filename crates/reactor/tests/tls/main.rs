//! TLS: in memory with bytes cut and spoilt at every place, over sockets, and with openssl's programs where they are
//! installed. Certificates are made when a test begins.

mod frames;
mod memory;
mod openssl;
mod settings;
mod sockets;
mod spoilt;
mod support;
