//! The admin routes: where they are, and what who asks has to show.

use std::net::{Ipv4Addr, SocketAddr};

use task_core::ports::{Secret, SecretName};

use super::Conflict;
use super::sources::environment;

/// The variables of who asks, which `serve` does not take for misspelt keys.
const URL: &str = "TASK_ADMIN";
const TOKEN: &str = "TASK_ADMIN_TOKEN";

/// The variable of the user's name.
const USER: &str = if cfg!(windows) { "USERNAME" } else { "USER" };

/// The routes of who runs the service.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where they are.
    pub listen: SocketAddr,
    /// The secret that every request has to show; always set where others than this machine get there.
    pub token: Option<SecretName>,
}

impl Admin {
    /// Nothing, until every key has been applied.
    pub(super) fn unset() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            token: None,
        }
    }

    /// What breaks a rule between keys.
    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        if self.listen.ip().to_canonical().is_loopback() || self.token.is_some() {
            return Vec::new();
        }
        vec![Conflict {
            key: "admin_token_secret",
            other: Some("admin_listen"),
            problem: format!(
                "must be set, because others than this machine reach admin_listen, which is {}",
                self.listen
            ),
        }]
    }
}

/// What the environment says of the admin routes to who asks.
#[derive(Debug, Default)]
pub struct AdminVariables {
    /// Where they are.
    pub url: Option<String>,
    /// What to show them.
    pub token: Option<Secret>,
    /// The user's name, for the audit.
    pub user: Option<String>,
}

impl AdminVariables {
    /// Reads `TASK_ADMIN`, `TASK_ADMIN_TOKEN` and the user's name; what is empty or no text is as good as absent.
    #[must_use]
    pub fn read() -> Self {
        let mut found = Self::default();
        for (name, value) in environment() {
            let Ok(value) = value.into_string() else {
                continue;
            };
            match name.to_str() {
                Some(URL) if !value.is_empty() => found.url = Some(value),
                Some(TOKEN) => found.token = Secret::new(value),
                Some(USER) if !value.is_empty() => found.user = Some(value),
                Some(_) | None => {}
            }
        }
        found
    }

    /// Says whether a variable is one of these.
    pub(super) fn has(name: &str) -> bool {
        matches!(name, URL | TOKEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_this_machine_a_token_is_needed() {
        let mut admin = Admin::unset();
        for (address, needs) in [
            ("127.0.0.1:9800", false),
            ("127.9.9.9:0", false),
            ("[::1]:9800", false),
            ("[::ffff:127.0.0.1]:9800", false),
            ("0.0.0.0:9800", true),
            ("[::]:9800", true),
            ("10.0.0.7:9800", true),
        ] {
            admin.listen = address.parse().expect("an address");
            admin.token = None;
            let found = admin.conflicts();
            assert_eq!(found.len(), usize::from(needs), "{address}");
            assert!(found.iter().all(|found| found.problem.contains(address)));
            admin.token = SecretName::parse("admin/token").ok();
            assert_eq!(admin.conflicts(), []);
        }
    }
}
