//! Between which backends a service can move, and why not between the others.

use crate::config::{Backend, Config, Conflict, RedisLayout};

/// The old side, the new one, and what is in the way.
type Pair = (Backend, Backend, Result<(), &'static str>);

/// Every pair. A pair is allowed where the old side can set a mark together with a write, enforce a fence and
/// list its records, and where tests show it.
const PAIRS: [Pair; 9] = {
    use Backend::{Dapr, Direct, Embedded};
    [
        (Embedded, Embedded, Err(ONE_FILE)),
        (Embedded, Direct, Ok(())),
        (Embedded, Dapr, Err(BY_DIRECT)),
        (Direct, Embedded, Ok(())),
        // On another Redis, or in another database.
        (Direct, Direct, Ok(())),
        (Direct, Dapr, Ok(())),
        (Dapr, Embedded, Err(DAPR_CANNOT)),
        (Dapr, Direct, Err(DAPR_CANNOT)),
        (Dapr, Dapr, Err(ONE_SIDECAR)),
    ]
};

const ONE_FILE: &str = "must differ from old: there is one data directory, so there is nothing to move; \
                        to move the file, stop the service and copy the directory";

const BY_DIRECT: &str = "must not be dapr where old is embedded: no test shows this pair; \
                         move from embedded to direct first, and from there to dapr";

const DAPR_CANNOT: &str = "cannot follow dapr: a sidecar can neither mark a record in the step that writes it, \
     nor refuse a late writer, nor list its records; \
     on the Redis of its component no copy is needed: stop the sidecar's replicas one after the other and start \
     --backend direct --redis-layout dapr; a move that is not complete goes back by `task-server migration rollback`";

const ONE_SIDECAR: &str = "must differ from old: a service has one sidecar, so there is nothing to move; \
     another component of it is another move, which only its own tools can make";

/// What keeps the configured move from being one.
pub(super) fn conflicts(config: &Config) -> Vec<Conflict> {
    let parallel = &config.parallel;
    let (Backend::Parallel, Some(old), Some(new)) = (config.backend, parallel.old, parallel.new)
    else {
        return Vec::new();
    };
    let refused = |key, problem: &str| Conflict {
        key,
        other: Some("old"),
        problem: problem.to_owned(),
    };
    if let Err(reason) = allowed(old, new) {
        return vec![refused("new", reason)];
    }
    if let Some(key) = layout_without_versions(config, old, new) {
        let problem = "must be dapr where the new side is direct: a string has no version of its own, \
                       so a late copy could not be told from a fresh one";
        return vec![refused(key, problem)];
    }
    if config.direct.kafka.start_group.is_some() {
        let problem = "must not be set with the backend parallel; start replicas with --backend direct once, \
                       whose group then goes on from there on both sides";
        return vec![Conflict {
            key: "kafka_start_group",
            other: Some("backend"),
            problem: problem.to_owned(),
        }];
    }
    let is_between_redises = (old, new) == (Backend::Direct, Backend::Direct);
    let url = &*parallel.redis.url;
    let problem = match (is_between_redises, url.is_empty()) {
        (true, true) => "must be set to move from direct to direct: redis_url is the old side",
        (false, false) => {
            "must not be set unless both sides are direct: redis_url is the direct side"
        }
        (true, false) if database(url) == database(&config.direct.redis.url) => {
            "must be another database than redis_url; \
             `task-server migration convert` changes the layout in the same one"
        }
        (true, false) | (false, true) => return Vec::new(),
    };
    vec![refused("new_redis_url", problem)]
}

/// The key of the new side's layout, if that gives a value the same version again.
fn layout_without_versions(config: &Config, old: Backend, new: Backend) -> Option<&'static str> {
    let key = match old == new {
        true => "new_redis_layout",
        false => "redis_layout",
    };
    let is_legacy = config.redis_of_new().layout == RedisLayout::Legacy;
    (new == Backend::Direct && is_legacy).then_some(key)
}

fn allowed(old: Backend, new: Backend) -> Result<(), &'static str> {
    let known = PAIRS
        .into_iter()
        .find(|pair| (pair.0, pair.1) == (old, new));
    known.map_or(Err("cannot be a side of a move"), |(.., allowed)| allowed)
}

/// Server and database of an address, as far as its text tells.
fn database(url: &str) -> (&str, &str) {
    let (_, rest) = url.split_once("://").unwrap_or_default();
    let (_, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    let (server, database) = place.split_once('/').unwrap_or((place, ""));
    let database = match database {
        "" => "0",
        number => number,
    };
    (server.strip_suffix(":6379").unwrap_or(server), database)
}

/// Says whether two addresses name a database of the same number.
#[cfg(all(feature = "redis", feature = "http"))]
pub(super) fn have_one_number(first: &str, second: &str) -> bool {
    database(first).1 == database(second).1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(old: Backend, new: Backend) -> Config {
        let mut config = Config::defaults();
        config.direct.redis.layout = RedisLayout::Dapr;
        config.parallel.redis.layout = RedisLayout::Dapr;
        config.backend = Backend::Parallel;
        config.parallel.old = Some(old);
        config.parallel.new = Some(new);
        config
    }

    #[test]
    fn every_pair_is_in_the_table_once_and_a_refusal_says_what_to_do() {
        for old in Backend::SIDES {
            for new in Backend::SIDES {
                let rows = PAIRS.iter().filter(|pair| (pair.0, pair.1) == (old, new));
                assert_eq!(rows.count(), 1, "{old} {new}");
                let found = conflicts(&config(old, new));
                if let Err(reason) = allowed(old, new) {
                    assert_eq!((found[0].key, &*found[0].problem), ("new", reason));
                    assert!(reason.contains(';'), "{reason}");
                }
            }
        }
        assert_eq!(conflicts(&Config::defaults()), []);
        assert_eq!(conflicts(&config(Backend::Embedded, Backend::Direct)), []);
    }

    #[test]
    fn the_new_side_has_versions() {
        let mut config = config(Backend::Embedded, Backend::Direct);
        config.direct.redis.layout = RedisLayout::Legacy;
        assert_eq!(conflicts(&config)[0].key, "redis_layout");
        config.parallel.old = Some(Backend::Direct);
        config.parallel.redis.url = "redis://127.0.0.1:6380".to_owned();
        assert_eq!(conflicts(&config), []);
        config.parallel.redis.layout = RedisLayout::Legacy;
        assert_eq!(conflicts(&config)[0].key, "new_redis_layout");
    }

    #[test]
    fn another_group_is_continued_before_the_move() {
        let mut config = config(Backend::Embedded, Backend::Direct);
        config.direct.kafka.start_group = Some("python".to_owned());
        assert_eq!(conflicts(&config)[0].key, "kafka_start_group");
    }

    #[test]
    fn from_direct_to_direct_needs_another_database() {
        let mut config = config(Backend::Direct, Backend::Direct);
        config.direct.redis.url = "redis://127.0.0.1:6379".to_owned();
        for (url, refused) in [
            ("", true),
            ("redis://127.0.0.1", true),
            ("redis://me@127.0.0.1:6379/0", true),
            ("redis://127.0.0.1:6380", false),
            ("redis://127.0.0.1/1", false),
        ] {
            config.parallel.redis.url = url.to_owned();
            let found = conflicts(&config);
            assert_eq!(!found.is_empty(), refused, "{url}");
        }
        config.parallel.old = Some(Backend::Embedded);
        assert_eq!(conflicts(&config)[0].key, "new_redis_url");
    }
}
