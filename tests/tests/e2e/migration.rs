//! A service that moves from one backend to another, driven by the commands that its users have.

mod away;
mod backfill;
mod commands;
mod conversion;
mod fleet;
mod kills;
mod lost;
mod metrics;
mod move_to_file;
mod move_to_redis;
mod ports;
mod replicas;
mod steps;
mod storm;
