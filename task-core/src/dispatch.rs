//! Hands a batch of deliveries to a handler, in order within a key and side by side across keys.
//!
//! Every event bus that delivers by itself uses it, so that order, panics and stopping mean the same
//! on all of them. It knows nothing of positions, retries or dead letters: those are the bus's own.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use futures_util::{FutureExt, StreamExt, stream};

use crate::background::Stop;
use crate::ports::{Answer, Delivery, EventHandler};

/// What became of one delivery of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispatched {
    /// The handler answered.
    Answered(Answer),
    /// The handler was not called: an earlier event of the key is to be retried, or the subscription
    /// is stopping. This is no delivery and counts for nothing.
    HeldBack,
}

/// Delivers a batch and answers once per delivery, in the batch's order.
///
/// At most `concurrency` handler calls overlap, never two of one key. Deliveries with an empty key
/// have no order. After a [`Answer::Retry`] the later deliveries of that key are held back.
pub async fn dispatch(
    handler: &dyn EventHandler,
    batch: &[Delivery],
    concurrency: usize,
    stop: &Stop,
) -> Vec<Dispatched> {
    let mut results = vec![Dispatched::HeldBack; batch.len()];
    let mut chains = stream::iter(chains(batch))
        .map(|chain| deliver_in_order(handler, batch, chain, stop))
        .buffer_unordered(concurrency.max(1));
    while let Some(answers) = chains.next().await {
        for (index, answer) in answers {
            results[index] = Dispatched::Answered(answer);
        }
    }
    results
}

/// The batch's indices, grouped by key, each group in order.
fn chains(batch: &[Delivery]) -> Vec<Vec<usize>> {
    let mut chains: Vec<Vec<usize>> = Vec::new();
    let mut chain_of_key: HashMap<&str, usize> = HashMap::new();
    for (index, delivery) in batch.iter().enumerate() {
        if delivery.key.is_empty() {
            chains.push(vec![index]);
            continue;
        }
        let chain = *chain_of_key.entry(&delivery.key).or_insert_with(|| {
            chains.push(Vec::new());
            chains.len() - 1
        });
        chains[chain].push(index);
    }
    chains
}

async fn deliver_in_order(
    handler: &dyn EventHandler,
    batch: &[Delivery],
    chain: Vec<usize>,
    stop: &Stop,
) -> Vec<(usize, Answer)> {
    let mut answers = Vec::with_capacity(chain.len());
    for index in chain {
        if stop.is_raised() {
            break;
        }
        let answer = deliver(handler, &batch[index]).await;
        answers.push((index, answer));
        if answer == Answer::Retry {
            break;
        }
    }
    answers
}

async fn deliver(handler: &dyn EventHandler, delivery: &Delivery) -> Answer {
    let call = AssertUnwindSafe(handler.handle(delivery)).catch_unwind();
    call.await.unwrap_or_else(|_| {
        tracing::error!(topic = %delivery.topic, key = %delivery.key, "event handler panicked");
        Answer::Retry
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Topic;

    fn delivery(key: &str) -> Delivery {
        Delivery {
            topic: Topic::new("t"),
            key: key.into(),
            payload: bytes::Bytes::new(),
            attempt: 1,
        }
    }

    #[test]
    fn a_chain_holds_one_key_in_order_and_no_key_is_no_chain() {
        let batch = ["a", "b", "", "a", ""].map(delivery);
        assert_eq!(chains(&batch), [vec![0, 3], vec![1], vec![2], vec![4]]);
    }
}
