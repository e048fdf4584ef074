//! What can go wrong with a far place, by what to do about it.

use crate::config::address::redacted;
use crate::error::Error;
use std::path::Path;

/// Longer messages of servers are cut.
const MOST_CHARS: usize = 300;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no such object.
    Missing(String),
    /// It may not be read with the credentials there are.
    Forbidden(String),
    /// It may go well another time.
    Broken(String),
    /// It is another object than at first.
    Changed(String),
    /// It will not go well.
    Refused(String),
}

impl Trouble {
    /// Of an HTTP status.
    pub fn of_status(status: u16, what: String) -> Self {
        match status {
            404 | 410 => Trouble::Missing(what),
            401 | 403 | 407 => Trouble::Forbidden(what),
            412 => Trouble::Changed(what),
            408 | 425 | 429 | 500.. => Trouble::Broken(what),
            _ => Trouble::Refused(what),
        }
    }

    /// The error at `place`; `sign_in` says how to get in.
    pub fn at(self, place: &str, sign_in: &str) -> Error {
        let (what, mend) = match self {
            Trouble::Missing(what) => {
                (format!("there is no such object ({})", shown(&what)), "check the address".into())
            }
            Trouble::Forbidden(what) => (format!("it may not be read ({})", shown(&what)), sign_in.to_owned()),
            Trouble::Broken(what) => {
                let mend = "start again when the network is better: what has come is kept";
                (format!("it does not come: {}", shown(&what)), mend.into())
            }
            Trouble::Changed(what) => {
                (format!("it changed while it was fetched: {}", shown(&what)), "start again".into())
            }
            Trouble::Refused(what) => (format!("it cannot be fetched: {}", shown(&what)), "check the address".into()),
        };
        Error::io(Path::new(&redacted(place)), what, mend)
    }
}

impl Trouble {
    /// The error of what was to be written at `place`.
    pub fn in_writing(self, place: &str, sign_in: &str) -> Error {
        let again = "start again when the network is better";
        let (what, mend) = match self {
            Trouble::Missing(what) => (
                format!("there is no such place ({})", shown(&what)),
                "make the bucket or container, or check the address",
            ),
            Trouble::Forbidden(what) => (format!("it may not be written ({})", shown(&what)), sign_in),
            Trouble::Broken(what) => (format!("it cannot be written now: {}", shown(&what)), again),
            Trouble::Changed(what) => {
                (format!("somebody else writes there: {}", shown(&what)), "choose another address")
            }
            Trouble::Refused(what) => (format!("it cannot be written: {}", shown(&what)), "check the address"),
        };
        Error::io(Path::new(&redacted(place)), what, mend)
    }
}

/// The words of a server or library as they may be shown: without queries, users and values of secret variables, and short.
fn shown(text: &str) -> String {
    let secrets = std::env::vars()
        .filter(|(name, value)| {
            let known = ["AWS_", "AZURE_", "HADOOP_"].iter().any(|start| name.starts_with(start));
            known
                && ["KEY", "TOKEN", "SECRET", "PASS", "CONNECTION"].iter().any(|part| name.contains(part))
                && value.len() > 3
        })
        .map(|(_, value)| value);
    let mut text = secrets.fold(text.to_owned(), |text, secret| text.replace(&secret, "***"));
    text = text.split(' ').map(without_query).collect::<Vec<_>>().join(" ");
    text = text.replace(|c: char| c.is_control(), " ");
    match text.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A word without what a URL in it would tell.
fn without_query(word: &str) -> String {
    match word.find("://") {
        None => word.to_owned(),
        Some(at) => {
            let start = word[..at].rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |i| i + 1);
            format!("{}{}", &word[..start], redacted(&word[start..]))
        }
    }
}

/// An error and what caused it, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let place = "https://me:secret@host/a?sig=secret";
        for trouble in [Trouble::Missing, Trouble::Forbidden, Trouble::Broken, Trouble::Changed, Trouble::Refused] {
            let what = "GET (https://me:secret@host/a?sig=secret) gave\n<Key>x</Key>".to_owned();
            let error = trouble(what).at(place, "sign in");
            let text = error.to_string();
            assert!(error.exit_code() == 74 && !text.contains("secret") && !text.contains('\n'), "{text}");
            assert!(text.starts_with("https://***@host/a?***: "), "{text}");
        }
        assert!(shown(&"ä".repeat(400)).chars().count() < 310);
    }
}
