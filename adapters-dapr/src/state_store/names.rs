//! What keys are called in the component, as the direct adapter's layout for Dapr calls them.

use task_core::ports::Key;

/// The name of a key: `{kind}-{id}`, to which the sidecar adds the app id.
///
/// Dapr refuses `||`, so `|` is `%7C`, and `%` is `%25`.
pub(super) fn name_of(key: &Key) -> String {
    let (kind, id) = (key.kind.as_str(), &*key.id);
    let mut name = String::with_capacity(kind.len() + 1 + id.len());
    name.extend([kind, "-"]);
    for character in id.chars() {
        match character {
            '|' => name.push_str("%7C"),
            '%' => name.push_str("%25"),
            other => name.push(other),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use task_core::ports::Kind;

    use super::*;

    #[test]
    fn a_task_has_the_name_that_the_python_service_knows() {
        for (kind, id, name) in [
            (Kind::TASK, "7", "task-7"),
            (Kind::TASK, "a||b%", "task-a%7C%7Cb%25"),
            (Kind::SEEN, "g/7", "seen-g/7"),
        ] {
            assert_eq!(name_of(&Key::new(kind, id)), name);
        }
    }
}
