//! The conformance suite as a library.
