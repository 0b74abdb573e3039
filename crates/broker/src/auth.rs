//! Who may do what: users and their passwords, permissions per virtual host.
//!
//! ```text
//!   password     hashes as RabbitMQ keeps them, and argon2id
//!   permission   patterns for names and for topics
//! ```
//! An [`Account`] holds all that belongs to one user, so that it goes with the user.

pub(crate) mod password;
pub(crate) mod permission;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

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

    /// Whether `password` is the user's. The error is for the log, in RabbitMQ's words.
    pub(crate) fn check(
        &self,
        name: &str,
        account: Option<&Account>,
        password: &str,
    ) -> Result<(), String> {
        let invalid = || format!("user '{name}' - invalid credentials");
        if password.is_empty() {
            return Err(format!(
                "user '{name}' attempted to log in with a blank password, which is prohibited by the internal authN backend. \
                 To use TLS/x509 certificate-based authentication, see the rabbitmq_auth_mechanism_ssl plugin and configure the \
                 client to use the EXTERNAL authentication mechanism. Alternatively change the password for the user to be non-blank."
            ));
        }
        let Some((account, hash)) =
            account.and_then(|account| Some((account, account.password.as_ref()?)))
        else {
            self.decoy.verify(password);
            return Err(invalid());
        };
        if !hash.is_slow() {
            return if hash.verify(password) { Ok(()) } else { Err(invalid()) };
        }
        // Bound to the hash too: a changed password is not remembered.
        let digest = password::keyed_digest(&self.key, hash.text().as_bytes(), password.as_bytes());
        let remembered = account.remembered.get();
        if remembered.is_some_and(|right| password::equal(&right, &digest)) {
            return Ok(());
        }
        if !hash.verify(password) {
            return Err(invalid());
        }
        account.remembered.set(Some(digest));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::password::{Hashing, PasswordHash};
    use super::{Account, Authenticator, UserLimits};

    fn account(password: &str, hashing: Hashing) -> Account {
        let hash = PasswordHash::new(password, hashing).unwrap();
        Account::new(Some(Rc::new(hash)), vec!["monitoring".into()], UserLimits::default())
    }

    #[test]
    fn the_password_decides_and_nothing_else() {
        let authenticator = Authenticator::new();
        for hashing in [Hashing::Sha256, Hashing::Argon2id] {
            let account = account("secret", hashing);
            // Twice: what is remembered gives the same answers.
            for _ in 0..2 {
                assert_eq!(authenticator.check("u", Some(&account), "secret"), Ok(()));
                let wrong = authenticator.check("u", Some(&account), "Secret");
                assert_eq!(wrong, Err("user 'u' - invalid credentials".into()));
            }
        }
        let unknown = authenticator.check("u", None, "secret");
        assert_eq!(unknown, Err("user 'u' - invalid credentials".into()));
    }

    #[test]
    fn nobody_logs_in_without_a_password() {
        let authenticator = Authenticator::new();
        let empty = Account::new(None, vec![], UserLimits::default());
        assert!(authenticator.check("u", Some(&empty), "x").is_err());
        let blank = authenticator.check("u", Some(&empty), "").unwrap_err();
        assert!(blank.contains("blank password"), "{blank}");
    }
}
