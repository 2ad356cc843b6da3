//! The variables that hold secrets, and the limits of files.

use std::collections::BTreeMap;
use std::ffi::OsString;

use task_core::ports::{Secret, SecretName};

/// How the variable of every secret begins.
pub const VARIABLE_PREFIX: &str = "TASK_SECRET_";

/// Largest file that is read, in bytes; a Secret of Kubernetes is not larger.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// The variables that hold secrets, as they were when the process began.
///
/// ```
/// use adapters_direct::secrets::Variables;
/// let all = [("PATH", "/bin"), ("TASK_SECRET_API_KEY", "hunter2")];
/// let variables: Variables = all.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect();
/// let shown = format!("{variables:?}");
/// assert!(shown.contains("TASK_SECRET_API_KEY") && !shown.contains("hunter2"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Variables(BTreeMap<String, Value>);

/// What a variable holds that is not empty.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Secret(Secret),
    NotText,
}

impl Variables {
    /// The variable of a secret: in upper case, with `__` for `/` and `:`, and `_` for `-` and `.`.
    #[must_use]
    pub fn name_of(name: &SecretName) -> String {
        let mut variable = VARIABLE_PREFIX.to_owned();
        for c in name.to_string().chars() {
            match c {
                '/' | ':' => variable.push_str("__"),
                '-' | '.' => variable.push('_'),
                c => variable.push(c.to_ascii_uppercase()),
            }
        }
        variable
    }

    pub(super) fn get(&self, variable: &str) -> Option<&Value> {
        self.0.get(variable)
    }
}

impl Extend<(String, OsString)> for Variables {
    /// Takes those variables that hold secrets; the others are left.
    fn extend<I: IntoIterator<Item = (String, OsString)>>(&mut self, variables: I) {
        for (name, value) in variables {
            if !name.starts_with(VARIABLE_PREFIX) {
                continue;
            }
            let value = match value.into_string() {
                Ok(text) => Secret::new(text).map(Value::Secret),
                Err(_) => Some(Value::NotText),
            };
            if let Some(value) = value {
                self.0.insert(name, value);
            }
        }
    }
}

impl FromIterator<(String, OsString)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, OsString)>>(variables: I) -> Self {
        let mut taken = Self::default();
        taken.extend(variables);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_spells_its_variable() {
        for (name, variable) in [
            ("api-key", "TASK_SECRET_API_KEY"),
            ("redisPassword", "TASK_SECRET_REDISPASSWORD"),
            ("redis/tls.crt", "TASK_SECRET_REDIS__TLS_CRT"),
            ("a:b/c_1", "TASK_SECRET_A__B__C_1"),
        ] {
            let name = SecretName::parse(name).expect("a valid name");
            assert_eq!(Variables::name_of(&name), variable);
        }
    }
}
