//! Where data are when they are no local file: a URL, and how it may be shown.

/// What stands for a secret in what is shown.
const HIDDEN: &str = "***";

/// The scheme of a URL such as `s3://bucket/key`, in lower case; None for a local path.
pub fn scheme(path: &str) -> Option<String> {
    let (scheme, _) = path.split_once("://")?;
    let mut letters = scheme.chars();
    let first = letters.next().is_some_and(|c| c.is_ascii_alphabetic());
    let rest = letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    (first && rest).then(|| scheme.to_ascii_lowercase())
}

/// A path as it may be told, logged and kept: of a URL without what signs in (user, password, query, fragment). A local path
/// stays as it is.
pub fn redacted(path: &str) -> String {
    let Some(scheme) = scheme(path) else { return path.to_owned() };
    let rest = &path[scheme.len() + 3..];
    let (place, hidden) = match rest.find(['?', '#']) {
        Some(end) => (&rest[..end], format!("{}{HIDDEN}", &rest[end..=end])),
        None => (rest, String::new()),
    };
    let (host, tail) = place.split_at(place.find('/').unwrap_or(place.len()));
    // In abfss://container@account the container stands where others have a user.
    let (user, host) = match host.rsplit_once('@') {
        Some((container, account)) if scheme.starts_with("abfs") && !container.contains(':') => {
            (format!("{container}@"), account)
        }
        Some((_, host)) => (format!("{HIDDEN}@"), host),
        None => (String::new(), host),
    };
    format!("{scheme}://{user}{host}{tail}{hidden}")
}

/// Whether a URL comes from a file in which its secrets were left out.
pub fn is_redacted(path: &str) -> bool {
    scheme(path).is_some() && (path.ends_with("?***") || path.ends_with("#***") || path.contains("://***@"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_known_and_shown_without_its_secrets() {
        for (path, shown) in [
            ("https://user:secret@host:8080/a/b.gz?sig=secret&x=1#secret", "https://***@host:8080/a/b.gz?***"),
            ("HTTPS://secret@host", "https://***@host"),
            ("http://host/a@b/c", "http://host/a@b/c"),
            ("http://host?secret", "http://host?***"),
            ("s3://bucket/a b/c", "s3://bucket/a b/c"),
            ("abfss://container@account.dfs.core.windows.net/a", "abfss://container@account.dfs.core.windows.net/a"),
            ("abfss://container:secret@account/a", "abfss://***@account/a"),
            ("az://container/a?sv=secret", "az://container/a?***"),
        ] {
            assert!(scheme(path).is_some());
            assert_eq!(redacted(path), shown);
            assert_eq!(redacted(&redacted(path)), shown);
            assert_eq!(is_redacted(&redacted(path)), shown.contains("***"), "{shown}");
        }
        for path in ["data/mnist", "/a://b", "", "C:\\x", "a b://c", "://x", "1a://x"] {
            assert_eq!(scheme(path), None, "{path}");
            assert_eq!(redacted(path), path);
        }
    }

    /// A path goes from TOML over a `PathBuf` to a text again.
    #[test]
    fn a_url_survives_the_job_file() {
        for url in ["https://h/a//b/../c%20d?x=/y&z=ü", "s3://b/", "abfss://c@a.dfs.core.windows.net/x/./y/"] {
            let text = format!("path = {:?}", url);
            let table: std::collections::HashMap<String, std::path::PathBuf> = toml::from_str(&text).unwrap();
            assert_eq!(table["path"].to_str(), Some(url));
        }
    }
}
