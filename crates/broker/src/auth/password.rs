//! Password hashes: RabbitMQ's, which are fast to compute, and argon2id, which is not.
//!
//! ```text
//!   rabbit_password_hashing_sha256   base64(salt, 4 bytes | sha256(salt | password)); sha512 and md5 alike
//!   argon2id                         base64($argon2id$v=19$m=19456,t=2,p=1$salt$hash), a PHC string
//! ```
//! RabbitMQ cannot check the second kind, but takes it in, since it is base64, and hands it out again unharmed. Who
//! exports definitions is told which users cannot log in there.

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::Md5;
use sha2::{Digest, Sha256, Sha512};

const SALT_BYTES: usize = 4;
/// What an imported hash may ask for: one login must not take the machine's memory.
const ARGON2_KIB_MAX: u32 = 256 * 1024;
const ARGON2_PASSES_MAX: u32 = 16;

/// How the passwords of new users are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hashing {
    /// Slow on purpose: a stolen file gives no passwords away. RabbitMQ cannot read it.
    #[default]
    Argon2id,
    /// RabbitMQ's default: users go from here to RabbitMQ with their passwords.
    Sha256,
    /// RabbitMQ's other choice.
    Sha512,
    /// What RabbitMQ 3.5 and older had. For imports.
    Md5,
}

impl Hashing {
    /// As definitions name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Argon2id => "argon2id",
            Self::Sha256 => "rabbit_password_hashing_sha256",
            Self::Sha512 => "rabbit_password_hashing_sha512",
            Self::Md5 => "rabbit_password_hashing_md5",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Argon2id, Self::Sha256, Self::Sha512, Self::Md5]
            .into_iter()
            .find(|hashing| hashing.name() == name)
    }
}

impl std::str::FromStr for Hashing {
    type Err = String;

    /// As settings name it: `argon2id`, `rabbitmq` (or `sha256`), `sha512`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "argon2id" => Ok(Self::Argon2id),
            "rabbitmq" | "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(format!("'{text}' is no password hashing: use argon2id, rabbitmq or sha512")),
        }
    }
}

/// A password, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PasswordHash {
    hashing: Hashing,
    text: String,
}

impl PasswordHash {
    /// Hashes a new password.
    ///
    /// # Errors
    /// When the system gives no salt or no memory.
    pub(crate) fn new(password: &str, hashing: Hashing) -> Result<Self, String> {
        let text = if hashing == Hashing::Argon2id {
            let hash = argon2()
                .hash_password_with_salt(password.as_bytes(), &random::<16>())
                .map_err(|error| format!("the password cannot be hashed: {error}"))?;
            BASE64.encode(hash.to_string())
        } else {
            let salt = random::<SALT_BYTES>();
            let mut bytes = salt.to_vec();
            bytes.extend(salted(hashing, &salt, password));
            BASE64.encode(bytes)
        };
        Ok(Self { hashing, text })
    }

    /// Takes a hash as definitions have it. No text is no password.
    ///
    /// # Errors
    /// When it is none, or one that is too costly.
    pub(crate) fn from_definition(text: &str, hashing: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let Some(hashing) = Hashing::parse(hashing) else {
            return Err(format!("'{hashing}' is no hashing algorithm known here"));
        };
        let digest_bytes = match hashing {
            Hashing::Sha256 => 32,
            Hashing::Sha512 => 64,
            Hashing::Md5 => 16,
            Hashing::Argon2id => {
                // As it is, too: other programs write it so.
                let plain = if text.starts_with('$') { text.into() } else { phc_string(text)? };
                check_argon2(&plain)?;
                return Ok(Some(Self { hashing, text: BASE64.encode(plain) }));
            }
        };
        match BASE64.decode(text) {
            Ok(bytes) if bytes.len() == SALT_BYTES + digest_bytes => {
                Ok(Some(Self { hashing, text: text.into() }))
            }
            Ok(bytes) => Err(format!(
                "a password hash of {} has {} bytes, not {}",
                hashing.name(),
                SALT_BYTES + digest_bytes,
                bytes.len()
            )),
            Err(error) => Err(format!("the password hash is no base64: {error}")),
        }
    }

    /// What nobody's password is, as slow as the others.
    pub(super) fn decoy() -> Self {
        let text = "$argon2id$v=19$m=19456,t=2,p=1$ZGVjb3lkZWNveWRlY295$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        Self { hashing: Hashing::Argon2id, text: BASE64.encode(text) }
    }

    /// Whether this is the password. Takes the same time whatever is wrong with it.
    pub(crate) fn verify(&self, password: &str) -> bool {
        if self.hashing == Hashing::Argon2id {
            return phc_string(&self.text).is_ok_and(|text| {
                argon2().verify_password(password.as_bytes(), text.as_str()).is_ok()
            });
        }
        let Ok(bytes) = BASE64.decode(&self.text) else { return false };
        let Some((salt, digest)) = bytes.split_at_checked(SALT_BYTES) else { return false };
        equal(&salted(self.hashing, salt, password), digest)
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn hashing(&self) -> Hashing {
        self.hashing
    }

    pub(super) fn is_slow(&self) -> bool {
        self.hashing == Hashing::Argon2id
    }
}

/// The parameters that OWASP's password storage advice gives: 19 MiB, two passes, one lane.
fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

fn phc_string(base64: &str) -> Result<String, String> {
    let bytes = BASE64.decode(base64).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    bytes.ok_or_else(|| "the password hash is no PHC string".into())
}

fn check_argon2(text: &str) -> Result<(), String> {
    let hash = phc::PasswordHash::new(text)
        .map_err(|error| format!("the password hash is no PHC string: {error}"))?;
    if hash.algorithm.as_str() != "argon2id" || hash.salt.is_none() || hash.hash.is_none() {
        return Err("the password hash is no whole argon2id hash".into());
    }
    let params = Params::try_from(&hash)
        .map_err(|error| format!("the password hash has wrong parameters: {error}"))?;
    if ARGON2_KIB_MAX < params.m_cost() || ARGON2_PASSES_MAX < params.t_cost() {
        return Err(format!(
            "the password hash asks for {} KiB and {} passes; at most {ARGON2_KIB_MAX} and {ARGON2_PASSES_MAX} are allowed",
            params.m_cost(),
            params.t_cost()
        ));
    }
    Ok(())
}

fn salted(hashing: Hashing, salt: &[u8], password: &str) -> Vec<u8> {
    fn digest<D: Digest>(salt: &[u8], password: &str) -> Vec<u8> {
        D::new().chain_update(salt).chain_update(password).finalize().to_vec()
    }
    match hashing {
        Hashing::Sha512 => digest::<Sha512>(salt, password),
        Hashing::Md5 => digest::<Md5>(salt, password),
        Hashing::Sha256 | Hashing::Argon2id => digest::<Sha256>(salt, password),
    }
}

/// In a time that depends on the lengths only.
pub(super) fn equal(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

/// What a password looks like to those who know `key`. Lengths stand before what they are of.
pub(super) fn keyed_digest(key: &[u8; 32], hash: &[u8], password: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(key)
        .chain_update((hash.len() as u64).to_be_bytes())
        .chain_update(hash)
        .chain_update(password)
        .finalize()
        .into()
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    use std::hash::{BuildHasher, RandomState};
    let mut bytes = [0; N];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if !matches!(filled, Ok(count) if count == N) {
        // Up to 256 bytes are given at once by every kernel that has the call; an older one has the hasher's seed.
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = RandomState::new().hash_one(index) as u8;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Hashing, PasswordHash};

    #[test]
    fn each_kind_tells_its_password_from_others_and_goes_through_definitions() {
        for hashing in [Hashing::Argon2id, Hashing::Sha256, Hashing::Sha512, Hashing::Md5] {
            let hash = PasswordHash::new("päss", hashing).unwrap();
            let again =
                PasswordHash::from_definition(hash.text(), hashing.name()).unwrap().unwrap();
            assert_eq!(hash, again);
            assert!(again.verify("päss") && !again.verify("pass") && !again.verify(""));
            assert_ne!(hash, PasswordHash::new("päss", hashing).unwrap(), "another salt");
        }
    }

    #[test]
    fn the_example_of_rabbitmqs_documentation_is_understood() {
        // Salt 908DC60A, password "test12", from its page on passwords.
        let text = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
        let hash = PasswordHash::from_definition(text, "rabbit_password_hashing_sha256");
        assert!(hash.unwrap().unwrap().verify("test12"));
    }

    #[test]
    fn what_is_no_hash_says_why() {
        for (text, hashing, why) in [
            ("abc", "bcrypt", "'bcrypt' is no hashing algorithm"),
            ("!", "rabbit_password_hashing_sha256", "no base64"),
            ("AAAA", "rabbit_password_hashing_md5", "has 20 bytes, not 3"),
            ("x", "argon2id", "no PHC string"),
            (
                "$argon2id$v=19$m=4000000,t=2,p=1$ZGVjb3lkZWNveWRlY295$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                "argon2id",
                "asks for 4000000 KiB",
            ),
        ] {
            let error = PasswordHash::from_definition(text, hashing).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(PasswordHash::from_definition("", "argon2id"), Ok(None));
    }
}
