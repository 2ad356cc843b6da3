//! One look at the brokers for all who ask at the same time.

use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, WeakShared};

use super::error::Failure;

/// The look that is under way, if there is one. It lives as long as somebody waits for it.
#[derive(Debug, Default)]
pub(super) struct Looks {
    under_way: Mutex<Option<WeakShared<Look>>>,
}

type Look = BoxFuture<'static, Result<(), Failure>>;

impl Looks {
    /// Waits for the look that is under way, or begins one.
    ///
    /// # Cancel safety
    /// Cancel safe: the look goes on while anybody else waits for it.
    pub(super) async fn share<F>(&self, begin: impl FnOnce() -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let look = {
            let under_way = self.under_way.lock();
            let mut under_way = under_way.unwrap_or_else(PoisonError::into_inner);
            let begun = under_way.as_ref().and_then(WeakShared::upgrade);
            // One that has ended says how it was, not how it is.
            begun
                .filter(|look| look.peek().is_none())
                .unwrap_or_else(|| {
                    let look = begin().boxed().shared();
                    *under_way = look.downgrade();
                    look
                })
        };
        look.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_at_the_same_time_share_a_look_and_later_ones_have_their_own() {
        let (looks, begun) = (Looks::default(), AtomicU32::new(0));
        let may_end = Arc::new(Semaphore::new(0));
        let ask = || {
            looks.share(|| {
                begun.fetch_add(1, Ordering::SeqCst);
                let may_end = Arc::clone(&may_end);
                async move {
                    let _may = may_end.acquire().await;
                    Err(Failure::Closed)
                }
            })
        };
        let impatient = ask().now_or_never();
        assert!(impatient.is_none(), "a look takes a while");
        let (asked, ()) = tokio::join!(join_all((0..8).map(|_| ask())), async {
            may_end.add_permits(1);
        });
        assert!(asked.iter().all(Result::is_err), "{asked:?}");
        assert_eq!(begun.load(Ordering::SeqCst), 2, "the first one is given up");
        ask().await.expect_err("a look of its own");
        assert_eq!(begun.load(Ordering::SeqCst), 3);
    }
}
