//! What a move between two backends goes from and to.

use super::{Backend, Conflict, Redis, RedisKeys};

/// The two sides of a move.
#[derive(Debug, Clone)]
pub struct Parallel {
    /// The backend that is left; always set with the backend `parallel`.
    pub old: Option<Backend>,
    /// The backend that is moved to; always set with the backend `parallel`.
    pub new: Option<Backend>,
    /// Where tasks go, if both sides are direct. Its address is empty otherwise.
    pub redis: Redis,
}

impl Parallel {
    /// Nothing, until every key has been applied.
    pub(super) fn unset() -> Self {
        Self {
            old: None,
            new: None,
            redis: Redis::unset(&RedisKeys::NEW),
        }
    }

    /// Says whether a side is this backend.
    pub(super) fn names(&self, backend: Backend) -> bool {
        [self.old, self.new].contains(&Some(backend))
    }

    /// What breaks a rule between keys; which pairs there are is the business of who opens them.
    pub(super) fn conflicts(&self, backend: Backend) -> Vec<Conflict> {
        if backend != Backend::Parallel {
            return Vec::new();
        }
        let missing = [("old", self.old), ("new", self.new)].into_iter();
        let missing = missing.filter(|(_, side)| side.is_none());
        let missing = missing.map(|(key, _)| Conflict {
            key,
            other: Some("backend"),
            problem: "must be set with the backend parallel: embedded, direct or dapr".to_owned(),
        });
        let mut conflicts: Vec<_> = missing.collect();
        conflicts.extend(self.redis.conflicts());
        conflicts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_needs_both_its_sides() {
        let mut parallel = Parallel::unset();
        assert_eq!(parallel.conflicts(Backend::Embedded), []);
        let keys = |parallel: &Parallel| {
            let found = parallel.conflicts(Backend::Parallel);
            found.iter().map(|found| found.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(&parallel), ["old", "new"]);
        parallel.old = Some(Backend::Embedded);
        parallel.new = Some(Backend::Direct);
        parallel.redis.ca_file = Some("ca.pem".into());
        assert_eq!(keys(&parallel), ["new_redis_ca_file"]);
        assert!(parallel.names(Backend::Direct) && !parallel.names(Backend::Dapr));
    }
}
