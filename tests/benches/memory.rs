//! P17: what the server holds in memory after many requests, and whether that grows.

use serde_json::json;
use task_tests::process::TestDirectory;

use crate::BenchResult;
use crate::durable::must_hold_tasks;
use crate::figures::grouped;
use crate::load::{Amount, Load, Script};
use crate::options::Options;
use crate::proc::Memory;
use crate::report::{Row, Verdict};
use crate::server::Server;

/// Clients at once.
const CLIENTS: u32 = 64;

/// What was seen of both servers, at the start, half-way and at the end.
struct Seen {
    requests: u32,
    begin: Memory,
    middle: Memory,
    end: Memory,
    bare_middle: Memory,
    bare_end: Memory,
    rate: f64,
    rate_at_end: f64,
    bare_rate: f64,
}

/// P17: resident memory after creates, gets and status changes, against a server that does nothing.
pub(crate) fn resident_memory(options: &Options) -> BenchResult<Row> {
    let requests: u32 = options.either(100_000, 1_000_000);
    let place = TestDirectory::new("bench-memory");
    let data = place.path().join("data");
    let server = Server::task_server(&data, options.workers)?;
    let bare = Server::bare(options.workers)?;
    let half = |server: &Server| {
        let load = Load {
            address: server.address(),
            clients: CLIENTS,
            script: Script::Mix,
            amount: Amount::Requests(u64::from(requests / 2)),
        };
        let answered = load.run()?;
        server.settle()?;
        Ok::<_, Box<dyn std::error::Error>>((server.memory()?, answered.rate()))
    };
    let begin = server.memory()?;
    let (middle, rate) = half(&server)?;
    let (bare_middle, bare_rate) = half(&bare)?;
    let (end, rate_at_end) = half(&server)?;
    let (bare_end, _) = half(&bare)?;
    must_hold_tasks(&data)?;
    Ok(row(&Seen {
        requests,
        begin,
        middle,
        end,
        bare_middle,
        bare_end,
        rate,
        rate_at_end,
        bare_rate,
    }))
}

fn row(seen: &Seen) -> Row {
    const TARGET_MB: f64 = 25.0;
    const STRETCH_MB: f64 = 15.0;
    const FLAT: f64 = 0.10;
    let growth = seen.end.resident_mb / seen.middle.resident_mb - 1.0;
    let is_flat = growth <= FLAT;
    let (resident, bare) = (seen.end.resident_mb, seen.bare_end.resident_mb);
    let requests = grouped(f64::from(seen.requests));
    Row {
        number: "P17",
        what: format!("memory after {requests} requests, embedded"),
        target: "≤ 25 MB and ≤ 10 % growth in the second half (15 MB)".to_owned(),
        measured: format!("{resident:.1} MB, {:+.1} %", growth * 100.0),
        ratio: format!(
            "{:.2} of the limit: {:.1} × bare axum",
            resident / TARGET_MB,
            resident / bare
        ),
        verdict: Verdict::of(
            resident <= TARGET_MB && is_flat,
            resident <= STRETCH_MB && is_flat,
        ),
        notes: notes(seen),
        values: json!({
            "requests": seen.requests,
            "start_mb": seen.begin.resident_mb,
            "half_mb": seen.middle.resident_mb,
            "end_mb": resident,
            "end_anonymous_mb": seen.end.anonymous_mb,
            "peak_mb": seen.end.peak_mb,
            "growth": growth,
            "bare_half_mb": seen.bare_middle.resident_mb,
            "bare_end_mb": bare,
            "per_s": [seen.rate, seen.rate_at_end],
            "bare_per_s": seen.bare_rate,
        }),
    }
}

fn notes(seen: &Seen) -> Vec<String> {
    vec![
        format!(
            "at the start {:.1} MB, half-way {:.1} MB, at the end {:.1} MB \
             (its own {:.1} MB, peak {:.1} MB); bare axum {:.1} MB, then {:.1} MB",
            seen.begin.resident_mb,
            seen.middle.resident_mb,
            seen.end.resident_mb,
            seen.end.anonymous_mb,
            seen.end.peak_mb,
            seen.bare_middle.resident_mb,
            seen.bare_end.resident_mb,
        ),
        format!(
            "of 8 requests 1 create, 5 gets, 2 status changes; {CLIENTS} clients; {}/s, then {}/s \
             (bare axum {}/s)",
            grouped(seen.rate),
            grouped(seen.rate_at_end),
            grouped(seen.bare_rate)
        ),
    ]
}
