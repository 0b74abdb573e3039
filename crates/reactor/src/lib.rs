//! Protocols and transports on the hub. Nothing is here yet.
