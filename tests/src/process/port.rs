//! Ports that stay a server's own while it is down.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where ports are taken from, with the first port that is not.
///
/// Port 0 would answer one of those that connections get, too: while the server is down, a client that
/// tries to reconnect could be given the very port, and even be connected to itself.
const RANGE: (u16, u16) = (12_000, 32_768);

/// A port of loopback that nobody listens on, and that this process has not answered before.
///
/// # Panics
/// If every port is taken.
pub fn free_port() -> u16 {
    static START: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Test processes that run at the same time begin at different places.
    let start = *START.get_or_init(|| RandomState::new().hash_one(std::process::id()));
    let count = u64::from(RANGE.1 - RANGE.0);
    for _ in 0..count {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = start.wrapping_add(turn) % count;
        let port = RANGE.0 + u16::try_from(offset).expect("below the range's length");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free between {} and {}", RANGE.0, RANGE.1);
}
