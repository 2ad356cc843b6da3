//! The conformance suite as a library, and what tests need around it.

pub mod process;
pub mod wait;
