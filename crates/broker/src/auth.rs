//! Who may do what: users and their passwords, permissions per virtual host.
//!
//! ```text
//!   mechanism    how clients say who they are
//!   certificate  the name in a client's certificate
//!   password     hashes as RabbitMQ keeps them, and argon2id
//!   permission   patterns for names and for topics
//! ```
//! An [`Account`] holds all that belongs to one user, so that it goes with the user.

pub(crate) mod certificate;
pub(crate) mod mechanism;
pub(crate) mod password;
pub(crate) mod permission;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::engine::login::invalid;
pub use certificate::{CertLogin, SanType};
pub use mechanism::{LoginOptions, Mechanism};
pub use password::Hashing;
use password::PasswordHash;
pub(crate) use permission::{Access, Permission, TopicPermission};

/// Limits of one user; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UserLimits {
    pub(crate) max_connections: Option<u64>,
    pub(crate) max_channels: Option<u64>,
}

/// A user, with all that is granted to it.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// `None`: cannot log in with a password.
    pub(crate) password: Option<Rc<PasswordHash>>,
    pub(crate) tags: Vec<String>,
    pub(crate) limits: UserLimits,
    /// By virtual host.
    pub(crate) permissions: BTreeMap<String, Rc<Permission>>,
    /// By virtual host, and by exchange.
    pub(crate) topics: BTreeMap<String, BTreeMap<String, Rc<TopicPermission>>>,
    /// What a password that was right looks like under the [`Authenticator`]'s key: the slow hash is computed once per
    /// user and not once per connection.
    remembered: Cell<Option<[u8; 32]>>,
}

impl Account {
    pub(crate) fn new(
        password: Option<Rc<PasswordHash>>,
        tags: Vec<String>,
        limits: UserLimits,
    ) -> Self {
        Self {
            password,
            tags,
            limits,
            permissions: BTreeMap::new(),
            topics: BTreeMap::new(),
            remembered: Cell::new(None),
        }
    }

    pub(crate) fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|other| other == tag)
    }
}

/// Tells passwords, and remembers which were right.
#[derive(Clone, Debug)]
pub(crate) struct Authenticator {
    /// Of this process: what is remembered means nothing elsewhere.
    key: [u8; 32],
    /// Compared with where there is no user, so that the time taken does not tell.
    decoy: Rc<PasswordHash>,
}

impl Authenticator {
    pub(crate) fn new() -> Self {
        Self { key: password::random(), decoy: Rc::new(PasswordHash::decoy()) }
    }

    /// Whether `password` is the user's, as far as that can be told at once. Errors are for the log, in RabbitMQ's
    /// words.
    pub(crate) fn begin(&self, name: &str, account: Option<&Account>, password: &str) -> Checked {
        if password.is_empty() {
            return Checked::Done(Err(format!(
                "user '{name}' attempted to log in with a blank password, which is prohibited by the internal authN backend. \
                 To use TLS/x509 certificate-based authentication, see the rabbitmq_auth_mechanism_ssl plugin and configure the \
                 client to use the EXTERNAL authentication mechanism. Alternatively change the password for the user to be non-blank."
            )));
        }
        let hash = account.and_then(|account| account.password.as_ref());
        if let Some(hash) = hash.filter(|hash| !hash.is_slow()) {
            let right = hash.verify(password);
            return Checked::Done(if right { Ok(()) } else { Err(invalid(name)) });
        }
        let hash = hash.unwrap_or(&self.decoy);
        // Bound to the hash too: a changed password is not remembered.
        let digest = password::keyed_digest(&self.key, hash.text().as_bytes(), password.as_bytes());
        let remembered = account.and_then(|account| account.remembered.get());
        if remembered.is_some_and(|right| password::equal(&right, &digest)) {
            return Checked::Done(Ok(()));
        }
        let hash = PasswordHash::clone(hash);
        Checked::Slow(SlowCheck { name: name.into(), hash, password: password.into(), digest })
    }

    /// What a slow check means for the user as it is now, who may have another password, or have gone.
    pub(crate) fn end(
        &self,
        account: Option<&Account>,
        check: &SlowCheck,
        right: bool,
    ) -> Result<(), String> {
        let account = account
            .filter(|account| account.password.as_deref().is_some_and(|hash| *hash == check.hash));
        match account {
            Some(account) if right => {
                account.remembered.set(Some(check.digest));
                Ok(())
            }
            _ => Err(invalid(&check.name)),
        }
    }
}

/// What comes of looking at a password.
pub(crate) enum Checked {
    /// It is known at once.
    Done(Result<(), String>),
    /// A hash has to be computed that takes long.
    Slow(SlowCheck),
}

/// A password, and the slow hash it is to be compared with. It can be sent to another thread.
pub(crate) struct SlowCheck {
    name: String,
    /// Nobody's where there is no user, so that the time taken does not tell.
    hash: PasswordHash,
    password: String,
    digest: [u8; 32],
}

impl SlowCheck {
    /// Whether it is the password. Takes long.
    pub(crate) fn run(&self) -> bool {
        self.hash.verify(&self.password)
    }

    /// Of the user that was named.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::password::{Hashing, PasswordHash};
    use super::{Account, Authenticator, Checked, UserLimits};

    fn account(password: &str, hashing: Hashing) -> Account {
        let hash = PasswordHash::new(password, hashing).unwrap();
        Account::new(Some(Rc::new(hash)), vec!["monitoring".into()], UserLimits::default())
    }

    fn check(
        authenticator: &Authenticator,
        account: Option<&Account>,
        password: &str,
    ) -> Result<(), String> {
        match authenticator.begin("u", account, password) {
            Checked::Done(outcome) => outcome,
            Checked::Slow(check) => authenticator.end(account, &check, check.run()),
        }
    }

    #[test]
    fn the_password_decides_and_nothing_else() {
        let authenticator = Authenticator::new();
        for hashing in [Hashing::Sha256, Hashing::Argon2id] {
            let account = account("secret", hashing);
            // Twice: what is remembered gives the same answers.
            for _ in 0..2 {
                assert_eq!(check(&authenticator, Some(&account), "secret"), Ok(()));
                let wrong = check(&authenticator, Some(&account), "Secret");
                assert_eq!(wrong, Err("user 'u' - invalid credentials".into()));
            }
        }
        let unknown = check(&authenticator, None, "secret");
        assert_eq!(unknown, Err("user 'u' - invalid credentials".into()));
    }

    #[test]
    fn nobody_logs_in_without_a_password() {
        let authenticator = Authenticator::new();
        let empty = Account::new(None, vec![], UserLimits::default());
        assert!(check(&authenticator, Some(&empty), "x").is_err());
        let blank = check(&authenticator, Some(&empty), "").unwrap_err();
        assert!(blank.contains("blank password"), "{blank}");
    }

    #[test]
    fn a_password_that_was_right_is_so_no_more_once_it_has_been_changed() {
        let authenticator = Authenticator::new();
        let (old, new) = (account("old", Hashing::Argon2id), account("new", Hashing::Argon2id));
        let Checked::Slow(slow) = authenticator.begin("u", Some(&old), "old") else { panic!() };
        assert!(slow.run());
        assert!(authenticator.end(Some(&new), &slow, true).is_err());
        assert!(authenticator.end(None, &slow, true).is_err());
        assert!(authenticator.end(Some(&old), &slow, false).is_err());
        assert!(authenticator.end(Some(&old), &slow, true).is_ok());
        assert!(matches!(authenticator.begin("u", Some(&old), "old"), Checked::Done(Ok(()))));
    }
}
