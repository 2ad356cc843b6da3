//! Real programs as fixtures: started on ports and directories of their own, gone when dropped.

mod authority;
pub mod cluster;
pub mod dapr;
mod directory;
mod http;
mod installed;
pub mod kafka;
mod memory;
pub mod migration;
mod port;
pub mod postgres;
mod proxy;
mod python;
pub mod redis;
mod sockets;
mod supervised;
mod task_server;
pub mod trap;

pub use dapr::{Sidecar, SidecarOptions};
pub use directory::TestDirectory;
pub use http::{Connection, Response};
pub use kafka::KafkaBroker;
pub use memory::resident_kib;
pub use port::free_port;
pub use postgres::PostgresServer;
pub use proxy::{Proxy, Way};
pub use python::Python;
pub use redis::RedisServer;
pub use sockets::{Sockets, Watch};
pub use task_server::{
    NotificationService, StartingServer, TaskServer, TaskServerOptions, program,
};
