//! Waiting for a condition instead of for time.

use std::time::Duration;

/// Longest wait.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until there is something to see, and answers it.
///
/// # Panics
/// If there is nothing to see within a minute; the message says what was waited for.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let seen = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    match seen.await {
        Ok(seen) => seen,
        Err(_) => panic!("not within {} s: {what}", DEADLINE.as_secs()),
    }
}
