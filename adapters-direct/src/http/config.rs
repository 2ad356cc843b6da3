//! Where notifications go, and how long that may take.

use std::fmt;
use std::time::Duration;

use url::Url;

/// The receiver's address and the limits of one call.
///
/// `Debug` shows scheme, host and port only: a path can be a secret.
///
/// ```
/// use adapters_direct::http::HttpConfig;
/// let config = HttpConfig::new("http://127.0.0.1:9000/hooks/").unwrap();
/// assert!(!format!("{config:?}").contains("hooks"));
/// assert!(HttpConfig::new("http://user:secret@127.0.0.1:9000").is_err());
/// ```
#[derive(Clone)]
pub struct HttpConfig {
    notify_url: Url,
    /// Longest time of one call, from the connection to the answer.
    pub deadline: Duration,
    /// Longest time until a connection stands, TLS included.
    pub connect_timeout: Duration,
}

/// An address that notifications cannot go to.
///
/// It never shows the address, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It is not a URL.
    #[error("the notification address is not a URL: {0}")]
    NotAUrl(#[from] url::ParseError),
    /// It begins with something else than http or https.
    #[error("the notification address must begin with http:// or https://")]
    Scheme,
    /// It holds a user name or a password.
    #[error("the notification address must not hold a user name or a password")]
    UserInfo,
    /// It goes on after the path.
    #[error("the notification address must not hold a query or a fragment")]
    QueryOrFragment,
}

impl HttpConfig {
    /// Notifications go to `{base}/notify`, within 5 s a call and 1 s for its connection.
    ///
    /// # Errors
    /// Anything but an `http` or `https` URL of a host and, if need be, a port and a path.
    pub fn new(base: &str) -> Result<Self, AddressError> {
        let mut url = Url::parse(base)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(AddressError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(AddressError::QueryOrFragment);
        }
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("notify");
        }
        Ok(Self {
            notify_url: url,
            deadline: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
        })
    }

    pub(super) fn notify_url(&self) -> &Url {
        &self.notify_url
    }

    pub(super) fn is_tls(&self) -> bool {
        self.notify_url.scheme() == "https"
    }

    /// Host, without the brackets of an IPv6 address, and port.
    pub(super) fn host_and_port(&self) -> (&str, u16) {
        let host = self.notify_url.host_str().unwrap_or_default();
        let port = self.notify_url.port_or_known_default().unwrap_or_default();
        (host.trim_matches(['[', ']']), port)
    }
}

impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfig")
            .field("origin", &self.notify_url.origin().ascii_serialization())
            .field("deadline", &self.deadline)
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_is_appended_to_the_path() {
        for (base, expected) in [
            ("http://a", "http://a/notify"),
            ("http://a:81/", "http://a:81/notify"),
            ("https://a/x", "https://a/x/notify"),
            ("https://a/x/", "https://a/x/notify"),
        ] {
            let config = HttpConfig::new(base).expect("a valid address");
            assert_eq!(config.notify_url().as_str(), expected);
        }
    }

    #[test]
    fn host_and_port_are_those_of_a_connection() {
        let of = |base: &str| {
            let config = HttpConfig::new(base).expect("a valid address");
            let (host, port) = config.host_and_port();
            (host.to_owned(), port)
        };
        assert_eq!(of("http://a"), ("a".to_owned(), 80));
        assert_eq!(of("https://a"), ("a".to_owned(), 443));
        assert_eq!(of("http://[::1]:81"), ("::1".to_owned(), 81));
    }

    #[test]
    fn an_address_is_refused_for_a_reason_and_never_shown() {
        use AddressError::{QueryOrFragment, Scheme, UserInfo};
        for (base, expected) in [
            ("ftp://hunter2", Scheme),
            ("hunter2:81/x", Scheme),
            ("http://hunter2@a", UserInfo),
            ("http://:hunter2@a", UserInfo),
            ("http://a/?token=hunter2", QueryOrFragment),
            ("http://a/#hunter2", QueryOrFragment),
        ] {
            assert_eq!(HttpConfig::new(base).err(), Some(expected), "{base}");
        }
        for base in ["hunter2", "http://", "http://hunter2:port"] {
            let error = HttpConfig::new(base).expect_err(base);
            assert!(matches!(error, AddressError::NotAUrl(_)), "{base}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{base}");
        }
    }

    #[test]
    fn the_path_is_not_shown() {
        let config = HttpConfig::new("https://a:444/hunter2").expect("a valid address");
        let shown = format!("{config:?}");
        assert!(shown.contains("https://a:444"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
