//! What files can look like; the promises themselves are in the conformance suite.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use task_core::ports::{ErrorKind, PortError, Secret, SecretName, SecretStore};

use super::*;

/// A directory of its own, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("task-secrets-{}-{unique}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("the temporary directory can be written");
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        let parent = path.parent().expect("a file has a directory");
        fs::create_dir_all(parent).expect("the directory can be written");
        fs::write(&path, content).expect("the directory can be written");
        set_mode(&path, 0o600);
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(unix)]
fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a file of ours");
}

#[cfg(not(unix))]
fn set_mode(_: &std::path::Path, _: u32) {}

async fn get(store: &dyn SecretStore, name: &str) -> Result<Secret, PortError> {
    let name = SecretName::parse(name).expect("a valid name");
    store.get(&name).await
}

/// The kind of refusal, after a look that nothing of it holds the word that values have here.
async fn refusal(store: &dyn SecretStore, name: &str) -> ErrorKind {
    let error = get(store, name).await.expect_err(name);
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(error.to_string().contains(name), "{error}");
    error.kind()
}

#[tokio::test]
async fn nested_names_have_both_spellings() {
    let directory = Directory::new();
    let json = r#"{
        "redisPassword": "hunter1",
        "connectionStrings": { "sql": "hunter2", "deep": { "er": "hunter3" } },
        "flat:key": "hunter4", "flat": { "other": "hunter5" }
    }"#;
    let store = FileSecretStore::new(directory.write("secrets.json", json));
    for (name, value) in [
        ("redisPassword", "hunter1"),
        ("connectionStrings/sql", "hunter2"),
        ("connectionStrings:sql", "hunter2"),
        ("connectionStrings/deep:er", "hunter3"),
        ("connectionStrings:deep/er", "hunter3"),
        ("flat/key", "hunter4"),
        ("flat:other", "hunter5"),
    ] {
        let secret = get(&store, name).await.expect(name);
        assert_eq!(secret.expose(), value, "{name}");
    }
    for missing in ["connectionStrings", "redisPassword/sql", "flat", "flat/k"] {
        assert_eq!(refusal(&store, missing).await, ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_file_that_dapr_would_read_otherwise_is_refused() {
    let directory = Directory::new();
    for (json, name) in [
        (r#"{"a": 1}"#, "a"),
        (r#"{"a": null}"#, "a"),
        (r#"{"a": ["hunter2"]}"#, "a"),
        (r#"{"a:b": "hunter2", "a": {"b": "hunter3"}}"#, "a/b"),
        (r#""hunter2""#, "a"),
        (r#"{"a": "hunter2""#, "a"),
        (r#"{"a": hunter2}"#, "a"),
        ("", "a"),
    ] {
        let store = FileSecretStore::new(directory.write("secrets.json", json));
        assert_eq!(refusal(&store, name).await, ErrorKind::Corrupt, "{json}");
    }
}

#[tokio::test]
async fn what_is_no_text_or_too_large_is_refused() {
    let directory = Directory::new();
    let file = FileSecretStore::new(directory.0.join("large"));
    let all = DirectorySecretStore::new(&directory.0);
    directory.write("large", vec![b' '; MAX_FILE_BYTES + 1]);
    directory.write("binary", b"hunter2\xff");
    for name in ["large", "binary"] {
        assert_eq!(refusal(&all, name).await, ErrorKind::Corrupt);
    }
    assert_eq!(refusal(&file, "a").await, ErrorKind::Corrupt);
    directory.write("large", vec![b'x'; MAX_FILE_BYTES]);
    let secret = get(&all, "large").await.expect("at the limit");
    assert_eq!(secret.expose().len(), MAX_FILE_BYTES);
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_others_may_read_or_write_is_refused() {
    let directory = Directory::new();
    let path = directory.write("secrets.json", r#"{"a": "hunter2"}"#);
    let store = FileSecretStore::new(&path);
    for mode in [0o604, 0o602, 0o644, 0o666] {
        set_mode(&path, mode);
        assert_eq!(refusal(&store, "a").await, ErrorKind::Denied, "{mode:o}");
    }
    set_mode(&path, 0o644);
    let error = get(&store, "a").await.expect_err("exposed").to_string();
    assert!(error.ends_with("others may read or write it, its mode is 0644; run chmod o-rw on it"));
    for mode in [0o600, 0o640, 0o400] {
        set_mode(&path, mode);
        assert!(get(&store, "a").await.is_ok(), "{mode:o}");
    }
}

#[tokio::test]
async fn a_changed_file_is_seen_at_once_and_a_file_may_come_later() {
    let directory = Directory::new();
    let store = FileSecretStore::new(directory.0.join("secrets.json"));
    assert_eq!(refusal(&store, "a").await, ErrorKind::Unavailable);
    for value in ["hunter2", "hunter3"] {
        directory.write("secrets.json", format!(r#"{{"a": "{value}"}}"#));
        let secret = get(&store, "a").await.expect("there by now");
        assert!(secret.matches(value));
    }
}

#[tokio::test]
async fn one_line_end_belongs_to_the_file_and_a_directory_is_no_secret() {
    let directory = Directory::new();
    let store = DirectorySecretStore::new(&directory.0);
    for (content, value) in [("x", "x"), ("x\n", "x"), ("x\n\n", "x\n"), ("\nx ", "\nx ")] {
        directory.write("redis/password", content);
        let secret = get(&store, "redis/password").await.expect(value);
        assert_eq!(secret.expose(), value);
    }
    directory.write("blank", "\n");
    for name in [
        "redis",
        "redis/user",
        "redis/password:x",
        "blank",
        "nothing/x",
    ] {
        assert_eq!(refusal(&store, name).await, ErrorKind::NotFound, "{name}");
    }
}

/// Kubernetes swaps a whole directory behind symbolic links.
#[cfg(unix)]
#[tokio::test]
async fn a_mounted_secret_is_followed_through_its_links() {
    use std::os::unix::fs::symlink;
    let directory = Directory::new();
    let store = DirectorySecretStore::new(&directory.0);
    let file = directory.write("..2026_11_21/password", "hunter2");
    set_mode(&file, 0o644);
    symlink("..2026_11_21", directory.0.join("..data")).expect("a link");
    symlink("..data/password", directory.0.join("password")).expect("a link");
    let secret = get(&store, "password").await.expect("mounted");
    assert!(secret.matches("hunter2"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_variable_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let value = std::ffi::OsString::from_vec(b"hunter2\xff".to_vec());
    let variables = [("TASK_SECRET_A".to_owned(), value)];
    let store = EnvironmentSecretStore::new(variables.into_iter().collect());
    assert_eq!(refusal(&store, "a").await, ErrorKind::Corrupt);
}
