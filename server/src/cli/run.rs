//! Runs a service from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use super::{Failure, print};
use crate::admin::Admin;
use crate::app::App;
use crate::config::Config;
use crate::http::listener;
use crate::shutdown::{self, Signals, Stopping};
use crate::{notification_service as notifications, telemetry};

/// Longest wait at the end for threads that nobody waits for any more.
const LEFT_BEHIND: Duration = Duration::from_millis(500);

/// Serves the Task API.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the service owns its configuration"
)]
pub(super) fn task_api(config: Config) -> Result<(), Failure> {
    telemetry::init(&config);
    let runtime = runtime(&config)?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::listen().map_err(Failure::Runtime)?;
        // The address first: it is the quickest to refuse, and nothing has been opened yet.
        let socket = listener::bind(config.listen, "--listen").await?;
        let app = tokio::select! {
            app = App::build(&config) => app?,
            () = signals.next() => {
                tracing::info!("stopped before it was ready");
                return Ok(());
            }
        };
        print(&banner(&app, &config, &socket))?;
        until_signal(signals, |stopping| app.serve(socket, stopping)).await
    });
    // All that must end has been waited for; a call that waits for an absent server has not.
    runtime.shutdown_timeout(LEFT_BEHIND);
    ended
}

/// Serves the receiver of notifications.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the service owns its configuration"
)]
pub(super) fn notification_service(config: Config) -> Result<(), Failure> {
    telemetry::init(&config);
    runtime(&config)?.block_on(async {
        let signals = Signals::listen().map_err(Failure::Runtime)?;
        let gate = notifications::gate(&config)?;
        let socket = listener::bind(config.listen, "--listen").await?;
        let address = address(&socket, &config);
        let mut banner =
            format!("notification-service on {address}, received at {address}/notifications\n");
        if config.sidecar_variables.has_app_token() {
            banner.push_str("POST /notify asks for the app token of its sidecar (APP_API_TOKEN)\n");
        }
        print(&banner)?;
        let gate = Arc::new(gate);
        until_signal(signals, |stopping| listener::serve(socket, gate, stopping)).await
    })
}

/// Runs a service until it ends; the first signal asks it to, the second one does not wait.
async fn until_signal<F: Future<Output = ()>>(
    mut signals: Signals,
    serve: impl FnOnce(Stopping) -> F,
) -> Result<(), Failure> {
    let (shutdown, stopping) = shutdown::channel();
    let mut serving = std::pin::pin!(serve(stopping));
    tokio::select! {
        () = &mut serving => return Ok(()),
        () = signals.next() => {}
    }
    shutdown.raise();
    tokio::select! {
        () = &mut serving => {
            tracing::info!("stopped");
            Ok(())
        }
        () = signals.next() => Err(Failure::Interrupted),
    }
}

fn runtime(config: &Config) -> Result<Runtime, Failure> {
    let mut builder = Builder::new_multi_thread();
    if config.worker_threads > 0 {
        builder.worker_threads(config.worker_threads);
    }
    builder.enable_all().build().map_err(Failure::Runtime)
}

fn banner(app: &App, config: &Config, socket: &TcpListener) -> String {
    let api = address(socket, config);
    let notifications = match app.receiver() {
        Some(receiver) => receiver.to_owned(),
        None => format!("{api}/notifications"),
    };
    let mut text = format!(
        "Task API       {api}\n\
         description    {api}/openapi.json\n\
         data           {}\n\
         notifications  {notifications}\n",
        app.place()
    );
    if let Some(admin) = app.admin() {
        text.push_str(&admin_lines(admin));
    }
    text.push_str("Stop with Ctrl-C.\n");
    text
}

fn admin_lines(admin: &Admin) -> String {
    let address = admin.address();
    let mut text = format!("admin          http://{address}\n");
    if admin.waits_for_init() {
        text.push_str(&format!(
            "The move has not begun, and every read and write is refused. Begin it with:\n    \
             task-server migration init --admin http://{address}\n"
        ));
    }
    text
}

/// The address that was really taken: port 0 takes a free one.
fn address(socket: &TcpListener, config: &Config) -> String {
    let address = socket.local_addr().unwrap_or(config.listen);
    format!("http://{address}")
}
