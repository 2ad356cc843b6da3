//! `convert` and `convert-back`, which work on a Redis themselves: no service may run on it meanwhile.

use clap::ArgMatches;

use crate::cli::Failure as CliFailure;

/// Runs one of both.
#[cfg(all(feature = "redis", feature = "http"))]
pub(super) async fn run(name: &str, own: &ArgMatches) -> Result<(), CliFailure> {
    use tokio::time::Instant;

    use super::Failure;
    use super::progress::Progress;
    use super::session::pretty;
    use super::words::{count, plural, seconds};
    use crate::backend::convert::{ConvertError, convert};
    use crate::cli::command::configuration;
    use crate::config::RedisLayout;

    let config = configuration(own)?.config;
    let to = match name {
        "convert" => RedisLayout::Dapr,
        _ => RedisLayout::Legacy,
    };
    let (began, mut progress) = (Instant::now(), Progress::new());
    let converted = convert(&config, to, |done, total| {
        if done % 100 == 0 || done == total {
            let rate = done as f64 / began.elapsed().as_secs_f64().max(0.001);
            let left = seconds((total.saturating_sub(done) as f64 / rate).ceil() as u64);
            let percent = done as f64 / total as f64 * 100.0;
            let (done, total) = (count(done), count(total));
            let rate = count(rate as u64);
            progress.say(&format!(
                "{name:<8}  {done}/{total}  {percent:.1} %  {rate}/s  {left} left"
            ));
        }
    });
    let converted = converted.await;
    progress.end();
    let report = converted.map_err(|error| match error {
        ConvertError::Start(error) => CliFailure::Start(error),
        ConvertError::InUse { .. } | ConvertError::Moving => {
            Failure::InTheWay(error.to_string()).into()
        }
        ConvertError::Port(error) => Failure::Unfinished(error.to_string()).into(),
    })?;
    let text = match own.get_flag("json") {
        true => pretty(&report),
        false => {
            let keys = plural(report.converted, "key", "keys");
            let left: String = report
                .left
                .iter()
                .map(|line| format!("left      {line}\n"))
                .collect();
            let next = report.to.as_str();
            format!(
                "converted {keys}\n{left}next      task-server serve --backend direct --redis-layout {next}\n"
            )
        }
    };
    crate::cli::print(&text)?;
    match report.conflicts + report.failed {
        0 => Ok(()),
        left => Err(Failure::Kept(plural(left, "key", "keys")).into()),
    }
}

/// Says which build has them.
#[cfg(not(all(feature = "redis", feature = "http")))]
#[expect(clippy::unused_async, reason = "the other build waits for a server")]
pub(super) async fn run(_: &str, _: &ArgMatches) -> Result<(), CliFailure> {
    Err(CliFailure::Start(crate::app::StartError::NotCompiledIn {
        what: "the backend direct",
        feature: "direct",
    }))
}
