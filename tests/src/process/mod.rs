//! Real programs as fixtures: started on ports and directories of their own, gone when dropped.

mod directory;
mod http;
mod task_server;

pub use directory::TestDirectory;
pub use http::{Connection, Response};
pub use task_server::{NotificationService, TaskServer, TaskServerOptions, program};
