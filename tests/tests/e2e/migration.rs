//! A service that moves from one backend to another, driven by the commands that its users have.

mod away;
mod backfill;
mod commands;
mod conversion;
mod lost;
mod metrics;
mod move_to_file;
mod move_to_redis;
mod ports;
mod replicas;
mod storm;
