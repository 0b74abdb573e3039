//! Patterns that names must match: RabbitMQ's permissions.
//!
//! Patterns are searched for anywhere in a name, and are matched in linear time: of what RabbitMQ's engine knows,
//! look-around and back-references are refused.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

/// A compiled pattern may take so much memory.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// What is to be done with an exchange or a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Configure,
    Write,
    Read,
}

/// A regular expression, as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// # Errors
    /// What is wrong with the expression, in one line.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        // As in RabbitMQ, where no pattern permits nothing.
        let source = if text.is_empty() { "^$" } else { text };
        let regex =
            RegexBuilder::new(source).size_limit(PATTERN_BYTES_MAX).build().map_err(|error| {
                match error {
                    regex::Error::CompiledTooBig(bytes) => {
                        format!("it takes more than {bytes} bytes when compiled")
                    }
                    other => {
                        let text = other.to_string();
                        let last = text.lines().last().unwrap_or_default().trim();
                        last.strip_prefix("error: ").unwrap_or(last).to_owned()
                    }
                }
            })?;
        Ok(Self { text: text.into(), regex })
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// What a user may do in a virtual host.
#[derive(Clone, Debug)]
pub(crate) struct Permission {
    pub(crate) configure: Pattern,
    pub(crate) write: Pattern,
    pub(crate) read: Pattern,
}

impl Permission {
    pub(crate) fn new(configure: &str, write: &str, read: &str) -> Result<Self, (String, String)> {
        let pattern = |text: &str| Pattern::new(text).map_err(|error| (text.to_owned(), error));
        Ok(Self { configure: pattern(configure)?, write: pattern(write)?, read: pattern(read)? })
    }

    pub(crate) fn allows(&self, access: Access, name: &str) -> bool {
        // The default exchange has a name for this purpose only.
        let name = if name.is_empty() { "amq.default" } else { name };
        let pattern = match access {
            Access::Configure => &self.configure,
            Access::Write => &self.write,
            Access::Read => &self.read,
        };
        pattern.matches(name)
    }
}

/// Which routing keys of a topic exchange a user may use.
#[derive(Clone, Debug)]
pub(crate) struct TopicPermission {
    write: TopicPattern,
    read: TopicPattern,
}

/// With variables, a pattern is another one for each connection.
#[derive(Clone, Debug)]
enum TopicPattern {
    Fixed(Pattern),
    Variable(String),
}

impl TopicPermission {
    pub(crate) fn new(write: &str, read: &str) -> Result<Self, (String, String)> {
        let pattern = |text: &str| -> Result<TopicPattern, (String, String)> {
            let sample = expand(text, "u", "v", Some("c"));
            let pattern = Pattern::new(&sample).map_err(|error| (text.to_owned(), error))?;
            Ok(match sample {
                Cow::Borrowed(_) => TopicPattern::Fixed(pattern),
                Cow::Owned(_) => TopicPattern::Variable(text.into()),
            })
        };
        Ok(Self { write: pattern(write)?, read: pattern(read)? })
    }

    pub(crate) fn text(&self, access: Access) -> &str {
        match self.of(access) {
            TopicPattern::Fixed(pattern) => pattern.text(),
            TopicPattern::Variable(text) => text,
        }
    }

    fn of(&self, access: Access) -> &TopicPattern {
        if access == Access::Read { &self.read } else { &self.write }
    }

    pub(crate) fn allows(&self, access: Access, key: &str, user: &str, vhost: &str) -> bool {
        match self.of(access) {
            TopicPattern::Fixed(pattern) => pattern.matches(key),
            // Names are put in as they are, so they may not compile: then nothing is permitted.
            TopicPattern::Variable(text) => Pattern::new(&expand(text, user, vhost, None))
                .is_ok_and(|pattern| pattern.matches(key)),
        }
    }
}

/// Puts names in. A client of AMQP has no client id: its variable stays as it is.
fn expand<'a>(text: &'a str, user: &str, vhost: &str, client: Option<&str>) -> Cow<'a, str> {
    let variables = [("{username}", Some(user)), ("{vhost}", Some(vhost)), ("{client_id}", client)];
    let mut expanded = Cow::Borrowed(text);
    for (variable, value) in variables {
        if let Some(value) = value
            && expanded.contains(variable)
        {
            expanded = Cow::Owned(expanded.replace(variable, value));
        }
    }
    expanded
}

#[cfg(test)]
mod tests {
    use super::{Access, Pattern, Permission, TopicPermission};

    #[test]
    fn patterns_are_searched_for_and_no_pattern_permits_nothing() {
        let permission = Permission::new("^mine-", "queue", "").unwrap();
        for (access, name, want) in [
            (Access::Configure, "mine-1", true),
            (Access::Configure, "not-mine-1", false),
            (Access::Write, "a queue", true),
            (Access::Write, "", false),
            (Access::Read, "q", false),
        ] {
            assert_eq!(permission.allows(access, name), want, "{access:?} {name}");
        }
        let default = Permission::new("", "^amq\\.default$", "").unwrap();
        assert!(default.allows(Access::Write, ""));
    }

    #[test]
    fn topics_know_whose_they_are() {
        let permission = TopicPermission::new("^{username}\\.", "^{vhost}$").unwrap();
        assert!(permission.allows(Access::Write, "ann.x", "ann", "/"));
        assert!(!permission.allows(Access::Write, "bob.x", "ann", "/"));
        assert!(permission.allows(Access::Read, "prod", "ann", "prod"));
        assert_eq!(permission.text(Access::Write), "^{username}\\.");
        assert!(!permission.allows(Access::Write, "x", "(", "/"), "a name that is no expression");
    }

    #[test]
    fn what_is_no_expression_says_why_in_one_line() {
        for text in ["(", "a(?=b)", "(a)\\1", "(a{1000}){1000}"] {
            let error = Pattern::new(text).unwrap_err();
            assert!(!error.is_empty() && !error.contains('\n'), "{error}");
        }
    }
}
