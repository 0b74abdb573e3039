//! One library for the back end of a concurrent service: the layers under one name.
//!
//! The README, whose examples are run as tests of this crate:
//!
#![doc = include_str!("../../../README.md")]

pub mod perf;

pub use warren_amqp as amqp;
pub use warren_broker as broker;
pub use warren_fiber as fiber;
pub use warren_hub as hub;
pub use warren_reactor as reactor;
