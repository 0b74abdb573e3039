//! Many hubs in a simulated world.

#[path = "sim/disk.rs"]
mod disk;
#[path = "sim/log.rs"]
mod log;
#[path = "sim/network.rs"]
mod network;
#[path = "sim/primitives.rs"]
mod primitives;
#[path = "sim/scheduler.rs"]
mod scheduler;
#[path = "sim/services.rs"]
mod services;
