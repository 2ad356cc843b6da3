//! Moves under random faults, judged by the clients' own log; and each part of them alone.

mod audit;
mod backfill;
mod contention;
mod facade;
mod faulty;
mod held;
mod history;
mod looks;
mod moves;
mod pauses;
mod ports;
mod repair;
mod scene;
mod verify;
