//! Randomness, injected, so that a failing run can be repeated from its seed.

use std::fmt::Debug;
use std::time::Duration;

/// The only source of randomness in the core.
pub trait Entropy: Debug + Send + Sync + 'static {
    /// Fills a buffer with random bytes.
    fn fill(&self, buffer: &mut [u8]);
}

impl dyn Entropy {
    /// A random share of a pause, between half of it and all of it.
    #[must_use]
    pub fn jitter(&self, pause: Duration) -> Duration {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        let share = f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX);
        pause.mul_f64(0.5 + share / 2.0)
    }
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the operating system has a random number generator");
    }
}
