//! What the tests share.

pub(crate) use warren_hub::run;
