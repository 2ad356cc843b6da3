//! What the journal keeps, whoever reads it and whoever dies.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{join, join_all};
use serde_json::json;
use task_core::ports::{StateStore, WriteMode};

use super::{Stack, event, pending, put, settle_all};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_events_of_a_replica_stay_while_it_reads_the_journals_of_others() {
    const REPLICAS: usize = 60;
    const WRITES: usize = 8;
    let stack = Stack::start().await;
    for replica in 0..REPLICAS {
        let store = stack.open().await;
        let is_over = AtomicBool::new(false);
        let writing = async {
            let writes = (0..WRITES).map(async |write| {
                let name = format!("{replica}-{write}");
                let create = put(&name, &json!({}), WriteMode::Create);
                store.commit(create.event(event(&name))).await.unwrap();
                name
            });
            let names = join_all(writes).await;
            is_over.store(true, Ordering::Relaxed);
            names
        };
        let looking = async {
            while !is_over.load(Ordering::Relaxed) {
                store.pending(None, 1).await.unwrap();
            }
        };
        let (mut written, ()) = join(writing, looking).await;
        let mut found = pending(&store).await;
        written.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, written);
        settle_all(&store).await;
        store.flush().await.unwrap();
    }
}
