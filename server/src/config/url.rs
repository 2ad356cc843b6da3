//! The address of the notification receiver.

use std::fmt;

use hyper::Uri;

/// An `http` or `https` address to which `/notify` is appended.
///
/// `Debug` and `Display` mask a password; [`endpoint`](Self::endpoint) does not.
#[derive(Clone, PartialEq, Eq)]
pub struct NotificationUrl(String);

impl NotificationUrl {
    /// Reads an address; a trailing slash makes no difference.
    ///
    /// # Errors
    /// Says what such an address must look like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = || {
            "must be an http or https address without query and fragment, for example http://127.0.0.1:8001".to_owned()
        };
        if text.contains(['?', '#']) {
            return Err(refused());
        }
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let known_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        if known_scheme && has_host {
            Ok(Self(text.trim_end_matches('/').to_owned()))
        } else {
            Err(refused())
        }
    }

    /// The address to which `/notify` is appended. It may hold a password: never log it.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NotificationUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask(&self.0))
    }
}

impl fmt::Debug for NotificationUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NotificationUrl({self})")
    }
}

/// Replaces what stands between `://` and the last `@` of the authority, valid address or not.
pub(super) fn mask(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://***{}", &rest[at..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_addresses_are_accepted() {
        for good in ["http://a", "https://a:1/base/", "http://[::1]:8001"] {
            assert!(NotificationUrl::parse(good).is_ok(), "{good} was refused");
        }
        for bad in [
            "",
            "a",
            "a:80",
            "/x",
            "ftp://a",
            "http://",
            "http://a?b",
            "http://a#b",
            "http://a b",
        ] {
            assert!(NotificationUrl::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_trailing_slash_makes_no_difference() {
        let url = NotificationUrl::parse("http://a/base/").expect("a valid address");
        assert_eq!(url.base(), "http://a/base");
    }

    #[test]
    fn a_password_is_masked_and_still_used() {
        let url = NotificationUrl::parse("http://me:p@ss@a:80/x")
            .or_else(|_| NotificationUrl::parse("http://me:pass@a:80/x"));
        let url = url.expect("a valid address");
        assert_eq!(url.to_string(), "http://***@a:80/x");
        assert!(!format!("{url:?}").contains("pass"));
        assert!(url.base().contains("me:"));
        assert_eq!(mask("http://u:secret@/bad"), "http://***@/bad");
    }
}
