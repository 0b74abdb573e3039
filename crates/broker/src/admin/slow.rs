//! What takes long in a request: hashes of passwords. They are computed before the engine does the rest, and elsewhere
//! if that can be.

use super::{AdminError, Request};
use crate::auth::password::PasswordHash;
use crate::auth::{Checked, Hashing, SlowCheck};
use crate::engine::Engine;

/// The slow part of a request. It can be sent to another thread.
pub(crate) enum SlowPart {
    None,
    /// A new password.
    Hash {
        password: String,
        hashing: Hashing,
    },
    /// A password to be checked.
    Check(SlowCheck),
    /// One that has been.
    Told(Result<(), String>),
}

/// What has come of it.
pub(crate) enum SlowDone {
    None,
    Hash(Result<PasswordHash, String>),
    Check(SlowCheck, bool),
    Told(Result<(), String>),
}

impl SlowPart {
    /// Whether another thread had better do it.
    pub(crate) fn is_slow(&self) -> bool {
        match self {
            Self::Hash { hashing, .. } => *hashing == Hashing::Argon2id,
            Self::Check(_) => true,
            Self::None | Self::Told(_) => false,
        }
    }

    pub(crate) fn run(self) -> SlowDone {
        match self {
            Self::None => SlowDone::None,
            Self::Hash { password, hashing } => {
                SlowDone::Hash(PasswordHash::new(&password, hashing))
            }
            Self::Check(check) => {
                let right = check.run();
                SlowDone::Check(check, right)
            }
            Self::Told(outcome) => SlowDone::Told(outcome),
        }
    }
}

impl SlowDone {
    /// The new password.
    pub(super) fn hash(self) -> Result<PasswordHash, AdminError> {
        match self {
            Self::Hash(hash) => hash.map_err(AdminError::Failed),
            _ => Err(AdminError::Failed("the password has not been hashed".into())),
        }
    }
}

impl Engine {
    /// What takes long in a request, if it can be done at all.
    pub(crate) fn slow_part(&self, request: &Request) -> Result<SlowPart, AdminError> {
        match request {
            Request::AddUser { password, .. } | Request::ChangePassword { password, .. } => {
                if password.is_empty() {
                    let text = "a password cannot be empty: clear it instead";
                    return Err(AdminError::Invalid(text.into()));
                }
                let hashing = self.tenancy.hashing;
                Ok(SlowPart::Hash { password: password.clone(), hashing })
            }
            Request::AuthenticateUser { name, password } => {
                Ok(match self.tenancy.begin_login(name, password) {
                    Checked::Done(outcome) => SlowPart::Told(outcome),
                    Checked::Slow(check) => SlowPart::Check(check),
                })
            }
            _ => Ok(SlowPart::None),
        }
    }

    /// Whether the password of a request was right.
    pub(super) fn authenticated(&self, name: &str, done: SlowDone) -> Result<(), AdminError> {
        let outcome = match done {
            SlowDone::Told(outcome) => outcome,
            SlowDone::Check(check, right) => self.tenancy.end_login(&check, right),
            SlowDone::None | SlowDone::Hash(_) => Err("nothing was checked".into()),
        };
        outcome.map_err(|why| {
            AdminError::Invalid(format!("failed to authenticate user \"{name}\"\n{why}"))
        })
    }
}
