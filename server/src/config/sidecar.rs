//! What a Dapr sidecar says of itself in the environment.

use std::fmt;

/// The token that the sidecar shows.
const APP_TOKEN: &str = "APP_API_TOKEN";

/// The variables `DAPR_…` and `APP_API_TOKEN`, as they are. Tokens are among them: nothing prints them.
///
/// They are no keys of ours: a sidecar sets them, and all infrastructure behind it is the business of its
/// components.
#[derive(Clone, Default)]
pub struct SidecarVariables(Vec<(String, String)>);

impl SidecarVariables {
    /// Says whether a variable is the sidecar's.
    pub(super) fn has(name: &str) -> bool {
        name.starts_with("DAPR_") || name == APP_TOKEN
    }

    /// Says whether the sidecar shows a token; an empty one is none.
    #[must_use]
    pub fn has_app_token(&self) -> bool {
        self.app_token()
            .0
            .iter()
            .any(|(_, value)| !value.is_empty())
    }

    /// The app token alone, for who is called by a sidecar and calls none.
    #[must_use]
    pub fn app_token(&self) -> Self {
        let is_token = |(name, _): &&(String, String)| name == APP_TOKEN;
        Self(self.0.iter().filter(is_token).cloned().collect())
    }

    /// Names and values.
    #[must_use]
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

impl Extend<(String, String)> for SidecarVariables {
    fn extend<T: IntoIterator<Item = (String, String)>>(&mut self, pairs: T) {
        self.0.extend(pairs);
    }
}

impl fmt::Debug for SidecarVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}
