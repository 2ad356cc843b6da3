//! Each port on two sides alone, with sides that are told to fail, and what watches them.

mod births;
mod bus;
mod bus_moves;
mod complete;
mod facade;
mod fakes;
mod guardian;
mod limits;
mod lost;
mod notifier;
mod reads;
mod scene;
mod shadow;
mod turns;
