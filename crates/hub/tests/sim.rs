//! Many hubs in a simulated world.

#[path = "sim/network.rs"]
mod network;
#[path = "sim/scheduler.rs"]
mod scheduler;
