//! What `task-server migration` looks like.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};
use task_core::migration::{Confirmation, Port, Share, ShareError, Side};

use super::client::DEFAULT_ADDRESS;
use crate::cli::command::with_redis;

const EXIT_CODES: &str = "\
Exit codes:
    0  done, and nothing is wrong
    1  the sides differ
    2  refused by a guard, which is named, or by the service
    3  the service, or a side that it needs, cannot be reached
   64  command line not understood
  130  stopped watching; what was begun goes on in the service

The way: init, advance --to dualwrite, backfill start, verify --full, advance --to shadow, --to live,
--to rampdown, --to complete. Until complete, rollback goes back. status says what is next.";

/// Stages by which people name where a port is to go; the service knows which port has which.
const STAGES: [&str; 9] = [
    "off",
    "dualwrite",
    "shadow",
    "live",
    "rampdown",
    "complete",
    "old",
    "new",
    "handoff",
];

/// The command and all of its own.
pub(in crate::cli) fn command() -> Command {
    Command::new("migration")
        .about("Move a running service from one backend to another")
        .after_help(EXIT_CODES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .args(of_all())
        .subcommands([
            Command::new("status")
                .about("Say where every port is, and what is in the way of its next step")
                .arg(flag("watch", "Say it again each second, until Ctrl-C")),
            Command::new("init")
                .about("Begin a move, with everything off")
                .arg(why()),
            Command::new("plan")
                .about("List the steps to a stage, and what each depends on")
                .args([port(), to().required(true)]),
            advance(),
            rollback(),
            backfill(),
            verify(),
            job(
                "repair",
                "Look at what one side may lack",
                [
                    Command::new("status")
                        .about("Say how many marks there are, and how old they are"),
                    Command::new("drain").about("Copy until there is no mark"),
                ],
            ),
            Command::new("diffs")
                .about("Show what the last verify found, field by field")
                .args([
                    Arg::new("field")
                        .long("field")
                        .value_name("POINTER")
                        .help("Only records that differ here, for example /status"),
                    limit("50"),
                ]),
            Command::new("report").about("Tell the whole move: stages, times, counts, mismatches"),
            Command::new("audit")
                .about("List who changed what, latest first")
                .arg(limit("50")),
        ])
        .subcommands(conversions())
}

fn of_all() -> [Arg; 3] {
    [
        Arg::new("admin")
            .long("admin")
            .value_name("URL")
            .global(true)
            .help(format!(
                "Where the service has its admin routes [default: {DEFAULT_ADDRESS}] [variable: TASK_ADMIN]"
            )),
        Arg::new("admin-token")
            .long("admin-token")
            .value_name("TOKEN")
            .global(true)
            .help("Token that the service demands; others on this machine see it, the variable is better [variable: TASK_ADMIN_TOKEN]"),
        flag("json", "Print what the service answered, as JSON").global(true),
    ]
}

/// The change of a layout, for which no service is asked.
fn conversions() -> [Command; 2] {
    [
        Command::new("convert").about(
            "Turn legacy strings in a Redis into Dapr's hashes, in place, while no service runs on them",
        ),
        Command::new("convert-back").about(
            "Turn Dapr's hashes in a Redis into legacy strings, in place, while no service runs on them",
        ),
    ]
    .map(with_redis)
}

fn advance() -> Command {
    Command::new("advance")
        .about("Let records reach a stage")
        .args([
            port(),
            to().required(true),
            Arg::new("percent")
                .long("percent")
                .value_name("N")
                .value_parser(share)
                .help("How many percent shall have reached the stage then, in steps of 0.01 [default: 100]"),
            flag("dry-run", "Say what is in the way, and move nothing"),
            Arg::new("confirm")
                .long("confirm")
                .value_name("WHAT")
                .action(ArgAction::Append)
                .value_parser(PossibleValuesParser::new(CONFIRMATIONS.map(|(word, _)| word)))
                .help("What only you can know; may be given again"),
            why(),
        ])
}

fn backfill() -> Command {
    job(
        "backfill",
        "Copy what the new side lacks",
        [
            Command::new("start")
                .about("Begin, and show how far it is")
                .args([rate(), detach(), why()]),
            Command::new("pause").about("Stop for now"),
            Command::new("resume")
                .about("Go on where it stopped, and show how far it is")
                .args([rate(), detach()]),
            Command::new("abort").about("Stop for good").arg(why()),
            Command::new("status")
                .about("Say how far it is")
                .arg(follow()),
        ],
    )
}

fn rollback() -> Command {
    Command::new("rollback")
        .about("Go back, a stage or all the way")
        .args([
            port(),
            to().help("Stage at which everything shall be again; one stage back without it"),
            flag(
                "new-lost",
                "The new side is gone for good, or restored: the old one has all that was answered",
            ),
            flag(
                "old-lost",
                "The old side is gone for good, and an empty one in its place: the new one has all",
            ),
            why(),
        ])
        .group(ArgGroup::new("end").args(["to", "new-lost", "old-lost"]))
}

/// The side that is said to be gone.
pub(super) fn lost(matches: &ArgMatches) -> Option<Side> {
    let sides = [("new-lost", Side::New), ("old-lost", Side::Old)];
    let lost = sides.into_iter().find(|(flag, _)| matches.get_flag(flag));
    lost.map(|(_, side)| side)
}

fn verify() -> Command {
    Command::new("verify")
        .about("Compare the sides, and show how far it is")
        .args([
            flag("full", "Compare everything (the default)"),
            Arg::new("sample")
                .long("sample")
                .value_name("PCT")
                .value_parser(share)
                .help("Compare a random part, in percent"),
            flag("fix", "Copy from the side that accepts writes what differs"),
            rate(),
            detach(),
        ])
        .group(ArgGroup::new("scope").args(["full", "sample"]))
        .subcommands([
            Command::new("status")
                .about("Say how far the last one is")
                .arg(follow()),
            Command::new("abort").about("Stop it for good"),
        ])
        .args_conflicts_with_subcommands(true)
}

fn job<const N: usize>(name: &'static str, about: &'static str, own: [Command; N]) -> Command {
    Command::new(name)
        .about(about)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommands(own)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn port() -> Arg {
    Arg::new("port")
        .long("port")
        .value_name("PORT")
        .required(true)
        .value_parser(PossibleValuesParser::new(Port::ALL.map(Port::as_str)))
        .help("What moves")
}

fn to() -> Arg {
    Arg::new("to")
        .long("to")
        .value_name("STAGE")
        .value_parser(PossibleValuesParser::new(STAGES))
        .help("Stage to reach")
}

fn why() -> Arg {
    Arg::new("why")
        .long("why")
        .value_name("TEXT")
        .help("Reason, for the audit")
}

fn rate() -> Arg {
    Arg::new("rate")
        .long("rate")
        .value_name("KEYS_PER_S")
        .value_parser(value_parser!(u32).range(1..=10_000_000))
        .help("Most records a second; without it as fast as the sides can")
}

fn detach() -> Arg {
    flag("detach", "Do not wait for the end")
}

fn follow() -> Arg {
    flag("follow", "Go on saying it until the end")
}

fn limit(default: &'static str) -> Arg {
    Arg::new("limit")
        .long("limit")
        .value_name("N")
        .default_value(default)
        .value_parser(value_parser!(u32).range(1..=10_000))
        .help("Most to list")
}

fn share(text: &str) -> Result<Share, ShareError> {
    Share::parse(text)
}

/// What can be confirmed, as the command line writes it.
pub(super) const CONFIRMATIONS: [(&str, Confirmation); 2] = [
    ("no-foreign-writers", Confirmation::NoForeignWriters),
    ("no-way-back", Confirmation::NoWayBack),
];

/// The confirmations that were given.
pub(super) fn confirmed(matches: &ArgMatches) -> Vec<Confirmation> {
    let words = matches.get_many::<String>("confirm").unwrap_or_default();
    let known = words.filter_map(|word| CONFIRMATIONS.iter().find(|(known, _)| known == word));
    known.map(|(_, confirmation)| *confirmation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parses(line: &str) -> bool {
        let words = line.split(' ');
        command().try_get_matches_from(words).is_ok()
    }

    #[test]
    fn every_command_of_the_protocol_is_understood() {
        for line in [
            "migration status",
            "migration status --json --watch",
            "migration --admin http://127.0.0.1:9800 status",
            "migration status --admin http://127.0.0.1:9800 --admin-token t",
            "migration plan --port state --to live",
            "migration advance --port state --to live --percent 12.5 --dry-run",
            "migration advance --port state --to live --confirm no-foreign-writers",
            "migration rollback --port state",
            "migration rollback --port state --to off",
            "migration rollback --port state --new-lost --why gone",
            "migration rollback --port state --old-lost",
            "migration backfill start --rate 500",
            "migration backfill pause",
            "migration backfill resume",
            "migration backfill abort",
            "migration backfill status",
            "migration init",
            "migration verify",
            "migration verify --full --fix",
            "migration verify --sample 1.5",
            "migration repair status",
            "migration repair drain",
            "migration diffs --field /status --limit 3",
            "migration report --json",
            "migration audit",
            "migration convert --redis-url redis://127.0.0.1:6379 --redis-key-prefix none",
            "migration convert-back",
        ] {
            assert!(parses(line), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_not_understood() {
        for line in [
            "migration",
            "migration stat",
            "migration advance --port state",
            "migration advance --to live",
            "migration advance --port disk --to live",
            "migration advance --port state --to nowhere",
            "migration advance --port state --to live --percent 101",
            "migration advance --port state --to live --percent 0.001",
            "migration rollback --port state --new-lost --old-lost",
            "migration rollback --port state --to off --new-lost",
            "migration backfill",
            "migration backfill start --rate 0",
            "migration verify --full --sample 3",
            "migration verify --sample 200",
        ] {
            assert!(!parses(line), "{line}");
        }
    }
}
