//! Random operations against a backend and against a model of the contract that fits on a page.
//!
//! The model was written from the promises and not from an adapter. After every operation the kind
//! of the answer and the whole visible state have to agree: values, versions, pending events, scans.

mod driver;
mod operation;
mod reference;

use std::sync::Arc;

use proptest::collection::vec;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use task_core::ports::{Entropy, SystemEntropy};

use crate::config;
use crate::conformance::state_store::StateStoreBackend;
use crate::conformance::{Failure, Verdict};

/// How hard to try.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Random sequences, each on a fresh backend.
    pub sequences: u32,
    /// Most operations of a sequence.
    pub operations: usize,
    /// Where the randomness starts.
    pub seed: u64,
}

impl Effort {
    /// The same sequences each time, enough to find a fault that is not a race.
    pub const FIXED: Self = Self {
        sequences: 256,
        operations: 60,
        seed: 7,
    };

    /// 64 sequences of up to 60 operations from a random seed, unless the environment says more.
    #[must_use]
    pub fn from_env() -> Self {
        let sequences = config::number(config::SEQUENCES).and_then(|n| u32::try_from(n).ok());
        let mut random = [0; 8];
        SystemEntropy.fill(&mut random);
        Self {
            sequences: sequences.unwrap_or(64),
            operations: 60,
            seed: config::number(config::SEED).unwrap_or(u64::from_le_bytes(random)),
        }
    }
}

/// Runs random sequences on fresh backends and compares each step with the model.
///
/// # Errors
/// The shortest sequence found on which they differ, the difference, and the seed.
pub fn check(fresh: impl Fn() -> Arc<dyn StateStoreBackend>, effort: Effort) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let config = Config {
        cases: effort.sequences,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&effort.seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, random);
    let sequences = vec(operation::any(), 1..=effort.operations);
    let result = runner.run(&sequences, |operations| {
        let backend = fresh();
        let verdict = runtime.block_on(async {
            let verdict = driver::drive(Arc::clone(&backend), &operations).await;
            backend.close().await;
            verdict
        });
        verdict.map_err(|failure| TestCaseError::fail(failure.to_string()))
    });
    match result {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, shortest)) => Err(Failure::new(format!(
            "{reason}\nafter {shortest:#?}\nrepeat with {}={}",
            config::SEED,
            effort.seed
        ))),
        Err(TestError::Abort(reason)) => Err(Failure::new(format!("gave up: {reason}"))),
    }
}
