//! How clients say who they are: SASL, and what a listener offers of it.

use std::str::FromStr;

use warren_amqp::value::RawTable;

use super::certificate::CertLogin;

/// A way to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616: a name and a password.
    Plain,
    /// The same in a table, as AMQP 0-8 had it.
    AmqPlain,
    /// RFC 4422 appendix A: the certificate that the client has shown to TLS.
    External,
}

impl Mechanism {
    /// As it is offered and asked for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::AmqPlain => "AMQPLAIN",
            Self::External => "EXTERNAL",
        }
    }
}

impl FromStr for Mechanism {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Plain, Self::AmqPlain, Self::External]
            .into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("'{text}' is no mechanism: use PLAIN, AMQPLAIN or EXTERNAL"))
    }
}

/// How one logs in at a listening port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginOptions {
    /// What is offered. [`Mechanism::External`] is for ports whose TLS asks for certificates.
    pub mechanisms: Vec<Mechanism>,
    /// Which name in a certificate is the user's.
    pub cert_login: CertLogin,
}

impl Default for LoginOptions {
    /// Names and passwords, as in RabbitMQ.
    fn default() -> Self {
        Self {
            mechanisms: vec![Mechanism::Plain, Mechanism::AmqPlain],
            cert_login: CertLogin::default(),
        }
    }
}

impl LoginOptions {
    /// As `connection.start` has them.
    pub(crate) fn offer(&self) -> String {
        let names: Vec<&str> = self.mechanisms.iter().map(|mechanism| mechanism.name()).collect();
        names.join(" ")
    }

    /// The mechanism that a client asks for, if it was offered.
    pub(crate) fn find(&self, name: &str) -> Option<Mechanism> {
        self.mechanisms.iter().copied().find(|mechanism| mechanism.name() == name)
    }
}

/// RFC 4616: an identity to act for, the user, the password, between zeros. Nobody acts for another here.
pub(crate) fn plain(response: &[u8]) -> Option<(String, String)> {
    let mut parts = response.split(|byte| *byte == 0);
    let (acts_for, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    if !acts_for.is_empty() || parts.next().is_some() {
        return None;
    }
    Some((String::from_utf8(user.to_vec()).ok()?, String::from_utf8(password.to_vec()).ok()?))
}

/// AMQP 0-8: the pairs of a field table, without its length.
pub(crate) fn amqplain(response: &[u8]) -> Option<(String, String)> {
    let table = RawTable::new(response).to_table().ok()?;
    let text = |key| Some(table.get(key)?.as_str()?.to_owned());
    Some((text("LOGIN")?, text("PASSWORD")?))
}

#[cfg(test)]
mod tests {
    use super::{LoginOptions, Mechanism};

    #[test]
    fn what_is_offered_is_found() {
        let options = LoginOptions {
            mechanisms: vec![Mechanism::External, Mechanism::Plain],
            ..LoginOptions::default()
        };
        assert_eq!(options.offer(), "EXTERNAL PLAIN");
        assert_eq!(options.find("PLAIN"), Some(Mechanism::Plain));
        assert_eq!(options.find("AMQPLAIN"), None);
        assert_eq!("external".parse(), Ok(Mechanism::External));
        assert!("ANONYMOUS".parse::<Mechanism>().unwrap_err().contains("is no mechanism"));
    }
}
