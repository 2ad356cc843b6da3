//! The address of the notification receiver.

use std::fmt;

use hyper::Uri;

/// An `http` or `https` address to which `/notify` is appended.
///
/// A user name or a password in it is refused: secrets do not belong into addresses.
#[derive(Clone, PartialEq, Eq)]
pub struct NotificationUrl(String);

impl NotificationUrl {
    /// Reads an address; a trailing slash makes no difference.
    ///
    /// # Errors
    /// Says what such an address must look like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = || {
            "must be an http or https address without user name, query and fragment, for example http://127.0.0.1:8001".to_owned()
        };
        if text.contains(['?', '#']) {
            return Err(refused());
        }
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let known_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let has_user = authority.contains('@');
        // A port that is no number up to 65535 is part of the authority and no port.
        let after_host = authority.rsplit(']').next().unwrap_or_default();
        let has_good_port = !after_host.contains(':') || uri.port_u16().is_some();
        if known_scheme && has_host && !has_user && has_good_port {
            Ok(Self(text.trim_end_matches('/').to_owned()))
        } else {
            Err(refused())
        }
    }

    /// The address to which `/notify` is appended.
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

/// Replaces what may be a password: what stands before an `@`, and what follows a `?` or a `#`.
///
/// It does so for valid addresses and for others, and for each one of a list with commas.
pub(super) fn mask(text: &str) -> String {
    let masked: Vec<String> = text.split(',').map(mask_one).collect();
    masked.join(",")
}

fn mask_one(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    match rest.rfind('@') {
        Some(at) if !scheme.is_empty() || rest[..at].contains(':') => {
            format!("{scheme}***{}", cut(&rest[at..]))
        }
        _ if scheme.is_empty() => text.to_owned(),
        _ => format!("{scheme}{}", cut(rest)),
    }
}

/// An address without its query and its fragment.
fn cut(address: &str) -> String {
    match address.find(['?', '#']) {
        Some(end) => format!("{}***", &address[..=end]),
        None => address.to_owned(),
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
            "http://me:pass@a",
            "http://a:99999",
            "http://a:x",
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
    fn a_password_in_a_refused_address_is_masked() {
        assert_eq!(mask("http://u:secret@/bad"), "http://***@/bad");
        assert_eq!(mask("http://me:p@ss@a:80/x"), "http://***@a:80/x");
        assert_eq!(mask("redis://u:secret#x@a"), "redis://***@a");
        assert_eq!(mask("redis://u:secret/x@a"), "redis://***@a");
        assert_eq!(mask("redis://a:1?password=secret"), "redis://a:1?***");
        assert_eq!(mask("a:1,u:secret@b:2"), "a:1,***@b:2");
        for harmless in ["redis://a:6379/2", "a:1,b:2", "/data/a@b", "x?y#z"] {
            assert_eq!(mask(harmless), harmless);
        }
        assert_eq!(mask("redis://a:6379/2"), "redis://a:6379/2");
        assert_eq!(mask("/data/a@b?"), "/data/a@b?");
    }
}
