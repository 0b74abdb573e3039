//! Endpoints as strings: what is written in a configuration file.
//!
//! ```text
//!   tcp : 8007 : interface=127.0.0.1
//!   kind  positional   named: the first `=` ends the name
//! ```
//! A backslash takes the sign after it as it is: `\:` and `\=` are part of a value, `\\` is a backslash.

use std::fmt;
use std::io;

use thiserror::Error;

/// The longest description that is read.
const DESCRIPTION_BYTES_MAX: usize = 4096;

/// Why a string is no endpoint, or not one of ours.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// It begins with another word.
    #[error("{kind:?} is no kind of {side} endpoint: there are {possible}")]
    UnknownKind {
        /// What it begins with.
        kind: String,
        /// `server` or `client`.
        side: &'static str,
        /// The kinds there are.
        possible: &'static str,
    },
    /// Something must be said and is not.
    #[error("{kind}: {argument} is missing, as in {example:?}")]
    Missing {
        /// The kind of endpoint.
        kind: String,
        /// What is missing.
        argument: &'static str,
        /// A whole description.
        example: &'static str,
    },
    /// A name that this kind does not know.
    #[error("{kind}: there is no argument {argument:?}, but {possible}")]
    UnknownArgument {
        /// The kind of endpoint.
        kind: String,
        /// The name.
        argument: String,
        /// The names there are.
        possible: String,
    },
    /// More values without a name than there are places.
    #[error("{kind}: nobody knows what {value:?} is for; give it a name, as in {example:?}")]
    TooMany {
        /// The kind of endpoint.
        kind: String,
        /// The first one too many.
        value: String,
        /// A whole description.
        example: &'static str,
    },
    /// An argument is given twice.
    #[error("{kind}: {argument} is given twice; a colon within a value is written \\:")]
    Twice {
        /// The kind of endpoint.
        kind: String,
        /// Its name.
        argument: String,
    },
    /// A value that cannot be.
    #[error("{kind}: {argument}={value:?} cannot be: {wanted}")]
    BadValue {
        /// The kind of endpoint.
        kind: String,
        /// The name of the argument.
        argument: &'static str,
        /// What was given.
        value: String,
        /// What could be.
        wanted: String,
    },
    /// A backslash at the end.
    #[error(
        "the backslash at the end has no sign to take as it is; a backslash itself is written as two"
    )]
    Unfinished,
    /// A description of more than 4096 bytes.
    #[error("a description of {bytes} bytes; at most {DESCRIPTION_BYTES_MAX} are read")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
}

impl From<EndpointError> for io::Error {
    fn from(error: EndpointError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// A string that describes an endpoint, in its parts. For kinds of endpoints of one's own; those there are read by
/// [`server_from_string`](super::server_from_string) and [`client_from_string`](super::client_from_string).
///
/// ```
/// use warren_reactor::endpoints::Description;
///
/// let description: Description = r"tcp:8007:interface=\:\:1".parse()?;
/// assert_eq!((description.kind(), &description.positional()[..]), ("tcp", &["8007".to_owned()][..]));
/// assert_eq!(description.named("interface"), Some("::1"));
/// assert_eq!(description.to_string(), r"tcp:8007:interface=\:\:1");
/// # Ok::<(), warren_reactor::endpoints::EndpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    kind: String,
    positional: Vec<String>,
    named: Vec<(String, String)>,
}

impl std::str::FromStr for Description {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if DESCRIPTION_BYTES_MAX < text.len() {
            return Err(EndpointError::TooLong { bytes: text.len() });
        }
        let mut parts: Vec<(Option<String>, String)> = vec![(None, String::new())];
        let mut signs = text.chars();
        while let Some(sign) = signs.next() {
            let Some((name, value)) = parts.last_mut() else { break };
            match sign {
                '\\' => value.push(signs.next().ok_or(EndpointError::Unfinished)?),
                ':' => parts.push((None, String::new())),
                // In a value, it is a sign like any other.
                '=' if name.is_none() => *name = Some(std::mem::take(value)),
                _ => value.push(sign),
            }
        }
        let mut parts = parts.into_iter();
        // A description that begins with a name has no kind: it is refused as an unknown one.
        let kind = match parts.next() {
            Some((None, kind)) => kind,
            Some((Some(name), value)) => format!("{name}={value}"),
            None => String::new(),
        };
        let (mut positional, mut named) = (Vec::new(), Vec::<(String, String)>::new());
        for (name, value) in parts {
            match name {
                None => positional.push(value),
                Some(name) if named.iter().any(|(other, _)| *other == name) => {
                    return Err(EndpointError::Twice { kind, argument: name });
                }
                Some(name) => named.push((name, value)),
            }
        }
        Ok(Self { kind, positional, named })
    }
}

impl Description {
    /// What it begins with.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The values without a name, in their order.
    pub fn positional(&self) -> &[String] {
        &self.positional
    }

    /// The value of this name.
    pub fn named(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Takes it apart by what its kind knows.
    pub(super) fn arguments(self, shape: &'static Shape) -> Result<Arguments, EndpointError> {
        let Self { kind, positional, mut named } = self;
        if let Some((argument, _)) =
            named.iter().find(|(name, _)| !shape.names.contains(&name.as_str()))
        {
            let (argument, possible) = (argument.clone(), shape.names.join(", "));
            return Err(EndpointError::UnknownArgument { kind, argument, possible });
        }
        for (place, value) in positional.into_iter().enumerate() {
            let Some(&name) = shape.names[..shape.places].get(place) else {
                return Err(EndpointError::TooMany { kind, value, example: shape.example });
            };
            if named.iter().any(|(other, _)| other == name) {
                return Err(EndpointError::Twice { kind, argument: name.to_owned() });
            }
            named.push((name.to_owned(), value));
        }
        Ok(Arguments { kind, named, example: shape.example })
    }
}

/// As it would be written.
impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote_string_argument(&self.kind))?;
        for value in &self.positional {
            write!(f, ":{}", quote_string_argument(value))?;
        }
        for (name, value) in &self.named {
            write!(f, ":{}={}", quote_string_argument(name), quote_string_argument(value))?;
        }
        Ok(())
    }
}

/// `argument` as it must be written within a description (Twisted's `quoteStringArgument`), such as a path that may have
/// a colon in it.
pub fn quote_string_argument(argument: &str) -> String {
    let mut quoted = String::with_capacity(argument.len());
    for sign in argument.chars() {
        if matches!(sign, '\\' | ':' | '=') {
            quoted.push('\\');
        }
        quoted.push(sign);
    }
    quoted
}

/// What a kind of endpoint knows.
pub(super) struct Shape {
    /// The names of its arguments.
    pub(super) names: &'static [&'static str],
    /// How many of them, from the first, may be given without their names.
    pub(super) places: usize,
    pub(super) example: &'static str,
}

/// The arguments of a description, all of them known to its kind.
pub(super) struct Arguments {
    pub(super) kind: String,
    named: Vec<(String, String)>,
    example: &'static str,
}

impl Arguments {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The first of several names for the same.
    #[cfg(feature = "tls")]
    pub(super) fn any(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    pub(super) fn needed(&self, argument: &'static str) -> Result<&str, EndpointError> {
        let missing =
            || EndpointError::Missing { kind: self.kind.clone(), argument, example: self.example };
        self.get(argument).filter(|value| !value.is_empty()).ok_or_else(missing)
    }

    pub(super) fn bad(
        &self,
        argument: &'static str,
        value: &str,
        wanted: impl Into<String>,
    ) -> EndpointError {
        let (kind, value) = (self.kind.clone(), value.to_owned());
        EndpointError::BadValue { kind, argument, value, wanted: wanted.into() }
    }

    /// The value of `argument` as read by `read`; `wanted` says what that takes.
    pub(super) fn read<T>(
        &self,
        argument: &'static str,
        wanted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, EndpointError> {
        let Some(value) = self.get(argument) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.bad(argument, value, wanted))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Description, EndpointError, quote_string_argument};

    fn parts(text: &str) -> (String, Vec<String>, Vec<(String, String)>) {
        let Description { kind, positional, named } = text.parse().unwrap();
        (kind, positional, named)
    }

    #[track_caller]
    fn check(text: &str, kind: &str, positional: &[&str], named: &[(&str, &str)]) {
        let named = named.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let positional = positional.iter().map(|&value| value.to_owned());
        assert_eq!(parts(text), (kind.to_owned(), positional.collect(), named.collect()));
    }

    #[test]
    fn colons_part_and_the_first_equals_sign_names() {
        check("tcp:80", "tcp", &["80"], &[]);
        check("tcp", "tcp", &[], &[]);
        check("", "", &[], &[]);
        check("tcp::a", "tcp", &["", "a"], &[]);
        check("tcp:a=b=c:d=", "tcp", &[], &[("a", "b=c"), ("d", "")]);
        check(r"unix:\=x\:\\:a\=b", "unix", &[r"=x:\", "a=b"], &[]);
        check(r"tcp:a=\e", "tcp", &[], &[("a", "e")]);
        check("a=b:c", "a=b", &["c"], &[]);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert!(matches!(r"tcp:\".parse::<Description>(), Err(EndpointError::Unfinished)));
        let twice = "tcp:a=1:a=2".parse::<Description>();
        assert!(matches!(twice, Err(EndpointError::Twice { argument, .. }) if argument == "a"));
        let long = "a".repeat(4097).parse::<Description>();
        assert!(matches!(long, Err(EndpointError::TooLong { bytes: 4097 })));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_means_the_same_when_written_again(text in ".{0,80}") {
            if let Ok(description) = text.parse::<Description>() {
                prop_assert_eq!(description.to_string().parse::<Description>().unwrap(), description);
            }
        }

        #[test]
        fn text_of_the_signs_that_matter(text in "[a-c:=\\\\]{0,40}") {
            if let Ok(description) = text.parse::<Description>() {
                prop_assert_eq!(description.to_string().parse::<Description>().unwrap(), description);
            }
        }

        #[test]
        fn a_quoted_argument_is_itself(argument in ".{0,40}", name in "[a-z:=\\\\]{1,9}") {
            let quoted = quote_string_argument(&argument);
            let text = format!("kind:{quoted}:{}={quoted}", quote_string_argument(&name));
            let description: Description = text.parse().unwrap();
            prop_assert_eq!(&description.positional()[0], &argument);
            prop_assert_eq!(description.named(&name), Some(argument.as_str()));
        }
    }
}
