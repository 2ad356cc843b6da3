//! The commands, one after the other.

use std::time::Duration;

use clap::ArgMatches;
use serde::Serialize;
use serde::de::DeserializeOwned;
use task_core::migration::{
    Advance, AuditEntry, Cause, Control, Differences, Drained, Fix, JobKind, JobStatus, Marks,
    Moved, Pacing, Plan, Port, Report, Rollback, Run, Scope, Share, Status,
};
use task_core::ports::Secret;
use tokio::time::sleep;

use super::client::{AskError, Client, DEFAULT_ADDRESS};
use super::follow::{self, Ended};
use super::{Failure, command, print};
use crate::admin::{BackfillOrder, Order, Plainly, VerifyOrder};
use crate::cli;
use crate::config::AdminVariables;
use crate::shutdown::Signals;

/// Pause between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// One run of the command line.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    as_json: bool,
    who: String,
}

impl Session {
    pub(super) fn new(matches: &ArgMatches) -> Result<Self, Failure> {
        let last = innermost(matches);
        let given = |name| last.get_one::<String>(name).cloned();
        let variables = AdminVariables::read();
        let address = given("admin").or(variables.url);
        let address = address.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let token = given("admin-token")
            .and_then(Secret::new)
            .or(variables.token);
        Ok(Self {
            client: Client::new(&address, token)?,
            as_json: last.get_flag("json"),
            who: variables.user.unwrap_or_else(|| Cause::default().who),
        })
    }

    /// Runs the command that was given.
    pub(super) async fn run(&self, matches: &ArgMatches) -> Result<(), cli::Failure> {
        let done = self.dispatch(matches).await;
        // A program reads one document from stdout, whatever comes of the command.
        if let Err(cli::Failure::Migration(Failure::Ask(AskError::Refused(problem)))) = &done
            && self.as_json
        {
            self.show(problem, |_| String::new())?;
        }
        done
    }

    async fn dispatch(&self, matches: &ArgMatches) -> Result<(), cli::Failure> {
        let Some((name, own)) = matches.subcommand() else {
            return Ok(());
        };
        match (name, own.subcommand()) {
            ("status", _) if own.get_flag("watch") => self.watch().await,
            ("status", _) => self.look::<Status>("/migration", print::status).await,
            ("init", _) => {
                let body = self.plainly(own);
                let begun = self
                    .client
                    .post::<Control>("/migration/init", &body)
                    .await?;
                self.show(&begun, print::begun)
            }
            ("plan", _) => {
                let (port, to) = (word(own, "port"), word(own, "to"));
                let route = format!("/migration/plan?port={port}&to={to}");
                self.look::<Plan>(&route, print::plan).await
            }
            ("advance", _) => self.advance(own).await,
            ("rollback", _) => self.rollback(own).await,
            ("backfill", Some((order, own))) => self.backfill(order, own).await,
            ("verify", None) => self.verify(own).await,
            ("verify", Some(("status", own))) => self.job(JobKind::Verify, own).await,
            ("verify", Some(_)) => {
                let order = VerifyOrder {
                    order: Order::Abort,
                    ..self.verify_order(own)
                };
                let job = self
                    .client
                    .post::<JobStatus>("/migration/verify", &order)
                    .await?;
                self.show(&job, print::job)
            }
            ("repair", Some(("drain", own))) => self.drain(own).await,
            ("repair", _) => self.look::<Marks>("/migration/repair", marks).await,
            ("diffs", _) => self.differences(own).await,
            ("audit", _) => {
                let route = format!("/migration/audit?limit={}", number(own, "limit"));
                let print = |entries: &Vec<AuditEntry>| print::audit(entries);
                self.look(&route, print).await
            }
            ("report", _) => {
                self.look("/migration/report", |report: &Report| report.to_string())
                    .await
            }
            (other, _) => unreachable!("clap knows no command {other}"),
        }
    }

    /// Prints an answer, as JSON or for people.
    fn show<T: Serialize>(
        &self,
        answer: &T,
        print: impl Fn(&T) -> String,
    ) -> Result<(), cli::Failure> {
        let text = match self.as_json {
            true => pretty(answer),
            false => print(answer),
        };
        cli::print(&text)
    }

    async fn look<T: Serialize + DeserializeOwned>(
        &self,
        route: &str,
        print: impl Fn(&T) -> String,
    ) -> Result<(), cli::Failure> {
        let answer = self.client.get::<T>(route).await?;
        self.show(&answer, print)
    }

    /// Says the status again and again; in JSON one line each.
    async fn watch(&self) -> Result<(), cli::Failure> {
        let mut signals = Signals::listen().map_err(cli::Failure::Runtime)?;
        let watching = async {
            loop {
                let status = self.client.get::<Status>("/migration").await?;
                match self.as_json {
                    true => cli::print(&in_a_line(&status))?,
                    false => cli::print(&follow::redrawn(&print::status(&status)))?,
                }
                sleep(WATCH_EVERY).await;
            }
        };
        tokio::select! {
            ended = watching => ended,
            () = signals.next() => Err(Failure::Watched.into()),
        }
    }

    async fn advance(&self, own: &ArgMatches) -> Result<(), cli::Failure> {
        let step = Advance {
            port: port(own),
            to: word(own, "to").to_owned(),
            share: own
                .get_one::<Share>("percent")
                .copied()
                .unwrap_or(Share::ALL),
            cause: self.cause(own),
            confirmed: command::confirmed(own),
            run: match own.get_flag("dry-run") {
                true => Run::Dry,
                false => Run::Real,
            },
        };
        let moved = self
            .client
            .post::<Moved>("/migration/advance", &step)
            .await?;
        self.show(&moved, print::moved)
    }

    async fn rollback(&self, own: &ArgMatches) -> Result<(), cli::Failure> {
        let back = Rollback {
            port: port(own),
            to: own.get_one::<String>("to").cloned(),
            cause: self.cause(own),
            lost: command::lost(own),
        };
        let moved = self
            .client
            .post::<Moved>("/migration/rollback", &back)
            .await?;
        self.show(&moved, print::moved)
    }

    async fn backfill(&self, order: &str, own: &ArgMatches) -> Result<(), cli::Failure> {
        let (order, is_followed) = match order {
            "start" => (Order::Start, !own.get_flag("detach")),
            "resume" => (Order::Resume, !own.get_flag("detach")),
            "pause" => (Order::Pause, false),
            "abort" => (Order::Abort, false),
            _ => return self.job(JobKind::Backfill, own).await,
        };
        let body = BackfillOrder {
            order,
            pacing: rate(own),
            cause: self.cause(own),
        };
        let job = self
            .client
            .post::<JobStatus>("/migration/backfill", &body)
            .await?;
        match is_followed {
            true => self.follow(JobKind::Backfill, &job).await,
            false => self.show(&job, print::job),
        }
    }

    async fn verify(&self, own: &ArgMatches) -> Result<(), cli::Failure> {
        let mut order = self.verify_order(own);
        if let Some(share) = own.get_one::<Share>("sample") {
            order.scope = Scope::Sample(*share);
        }
        if own.get_flag("fix") {
            order.fix = Fix::Mismatches;
        }
        order.pacing = rate(own).unwrap_or_default();
        let job = self
            .client
            .post::<JobStatus>("/migration/verify", &order)
            .await?;
        match own.get_flag("detach") {
            true => self.show(&job, print::job),
            false => self.follow(JobKind::Verify, &job).await,
        }
    }

    fn verify_order(&self, own: &ArgMatches) -> VerifyOrder {
        VerifyOrder {
            order: Order::Start,
            scope: Scope::Full,
            fix: Fix::Nothing,
            pacing: Pacing::default(),
            cause: self.cause(own),
        }
    }

    /// Says how far the last job of a kind is.
    async fn job(&self, kind: JobKind, own: &ArgMatches) -> Result<(), cli::Failure> {
        let route = follow::route(kind);
        let job = self.client.get::<Option<JobStatus>>(route).await?;
        match job {
            Some(job) if own.get_flag("follow") => self.follow(kind, &job).await,
            Some(job) => {
                self.show(&job, print::job)?;
                follow::verdict(&job).map_err(Into::into)
            }
            None => self.show(&job, |_| format!("There was no {} yet.\n", kind.as_str())),
        }
    }

    async fn follow(&self, kind: JobKind, job: &JobStatus) -> Result<(), cli::Failure> {
        let mut signals = Signals::listen().map_err(cli::Failure::Runtime)?;
        let ended = tokio::select! {
            ended = follow::to_the_end(&self.client, kind, job) => ended?,
            () = signals.next() => {
                follow::new_line();
                return Err(Failure::Left(kind.as_str()).into());
            }
        };
        let Ended { job } = ended;
        self.show(&job, print::job)?;
        follow::verdict(&job).map_err(Into::into)
    }

    async fn drain(&self, own: &ArgMatches) -> Result<(), cli::Failure> {
        let body = self.plainly(own);
        let drained = self
            .client
            .post::<Drained>("/migration/repair", &body)
            .await?;
        self.show(&drained, print::drained)?;
        match drained.drained {
            true => Ok(()),
            false => {
                let left = format!("{} marks are left", drained.left);
                Err(Failure::Unfinished(left).into())
            }
        }
    }

    async fn differences(&self, own: &ArgMatches) -> Result<(), cli::Failure> {
        let mut route = format!("/migration/diffs?limit={}", number(own, "limit"));
        if let Some(field) = own.get_one::<String>("field") {
            let field: String = form_urlencoded::byte_serialize(field.as_bytes()).collect();
            route.push_str("&field=");
            route.push_str(&field);
        }
        let found = self.client.get::<Differences>(&route).await?;
        self.show(&found, print::differences)?;
        let left = found.differences.iter().filter(|one| !one.repaired);
        match left.count() {
            0 => Ok(()),
            count => Err(Failure::Diverged(follow::records(count)).into()),
        }
    }

    fn plainly(&self, own: &ArgMatches) -> Plainly {
        Plainly {
            cause: self.cause(own),
        }
    }

    fn cause(&self, own: &ArgMatches) -> Cause {
        let why = own.try_get_one::<String>("why").ok().flatten();
        Cause::new(&self.who, why.map_or("", String::as_str))
    }
}

/// JSON that people read as well.
pub(super) fn pretty(answer: &impl Serialize) -> String {
    let json = serde_json::to_string_pretty(answer);
    json.expect("an answer is text and numbers") + "\n"
}

fn in_a_line(answer: &impl Serialize) -> String {
    let json = serde_json::to_string(answer);
    json.expect("an answer is text and numbers") + "\n"
}

fn marks(marks: &Marks) -> String {
    format!("marks     {}\n", print::marks(marks))
}

/// The matches of the last word, which have the global ones too.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    let mut last = matches;
    while let Some((_, own)) = last.subcommand() {
        last = own;
    }
    last
}

fn word<'a>(own: &'a ArgMatches, name: &str) -> &'a str {
    own.get_one::<String>(name).map_or("", String::as_str)
}

fn number(own: &ArgMatches, name: &str) -> u32 {
    own.get_one::<u32>(name).copied().unwrap_or_default()
}

fn port(own: &ArgMatches) -> Port {
    Port::parse(word(own, "port")).unwrap_or(Port::State)
}

fn rate(own: &ArgMatches) -> Option<Pacing> {
    let rate = own.try_get_one::<u32>("rate").ok().flatten();
    rate.map(|rate| Pacing {
        keys_per_s: Some(*rate),
        ..Pacing::default()
    })
}
