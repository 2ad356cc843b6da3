//! Where a key lies in Redis, and what is read there.

mod dapr;
mod legacy;

use bytes::Bytes;
use redis::{Cmd, Value};
use task_core::domain::Timestamp;
use task_core::ports::{CapabilitySet, ETag, Key, Kind, StateCapability, Stored};

pub(super) use dapr::{Form, Record};

use super::config::{KeyPrefix, RedisConfig, RedisLayout};
use super::error::{Effect, Failure};
use super::script::{Script, Scripts, digest};

/// The names of everything of ours in one database.
#[derive(Debug, Clone)]
pub(super) struct Names {
    layout: RedisLayout,
    prefix: KeyPrefix,
    when_full: WhenFull,
}

/// What becomes of a write while the server has no memory left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    Refused,
    /// It is done: what it needs is little, and without it nobody would make room.
    Done,
}

impl Names {
    pub(super) fn new(config: &RedisConfig) -> Self {
        Self {
            layout: config.layout,
            prefix: config.key_prefix.clone(),
            when_full: WhenFull::Refused,
        }
    }

    /// The same names with another layout.
    pub(super) fn in_layout(&self, layout: RedisLayout) -> Self {
        Self {
            layout,
            ..self.clone()
        }
    }

    /// The names of leases, which are the same in each layout: what a lease is for, the outbox, is the same as well.
    pub(super) fn of_leases(&self) -> Self {
        Self {
            when_full: WhenFull::Done,
            ..self.in_layout(RedisLayout::Legacy)
        }
    }

    /// What the layout can keep of the port's promises, given an append-only file.
    pub(super) fn capabilities(&self) -> CapabilitySet<StateCapability> {
        match self.layout {
            RedisLayout::Legacy => legacy::CAPABILITIES,
            RedisLayout::Dapr => dapr::CAPABILITIES,
        }
    }

    pub(super) fn commit<'a>(&self, scripts: &'a Scripts) -> &'a Script {
        match (self.layout, self.when_full) {
            (RedisLayout::Legacy, WhenFull::Refused) => &scripts.legacy_commit,
            (RedisLayout::Legacy, WhenFull::Done) => &scripts.lease_commit,
            (RedisLayout::Dapr, _) => &scripts.dapr_commit,
        }
    }

    /// What everything begins with that has no name in Dapr's layout.
    fn namespace(&self) -> &str {
        self.prefix.namespace()
    }

    /// The stream of pending events.
    pub(super) fn outbox(&self) -> String {
        format!("{}:outbox", self.namespace())
    }

    /// The sorted set of the names of a kind's values, if the kind is listed.
    pub(super) fn list(&self, kind: Kind) -> Option<String> {
        let layout = match self.layout {
            RedisLayout::Legacy => "legacy",
            RedisLayout::Dapr => "dapr",
        };
        let name = || format!("{}:list:{layout}:{}", self.namespace(), kind.as_str());
        kind.is_listed().then(name)
    }

    /// Adds a key's names to a script's call, and answers how many they are.
    pub(super) fn add_keys(&self, key: &Key, call: &mut Cmd) {
        call.arg(self.value(key));
        if self.layout == RedisLayout::Legacy {
            call.arg(legacy::tombstone(self.namespace(), key));
        }
    }

    /// How many names a key has.
    pub(super) fn width(&self) -> usize {
        match self.layout {
            RedisLayout::Legacy => 2,
            RedisLayout::Dapr => 1,
        }
    }

    /// Where a key's value lies.
    pub(super) fn value(&self, key: &Key) -> String {
        let mut name = String::with_capacity(self.longest_beginning() + key.id.len());
        self.begin(key.kind, &mut name);
        match self.layout {
            RedisLayout::Legacy => name.push_str(&key.id),
            RedisLayout::Dapr => dapr::escape(&key.id, &mut name),
        }
        name
    }

    /// What the name of every value of a kind begins with.
    pub(super) fn beginning(&self, kind: Kind) -> String {
        let mut name = String::new();
        self.begin(kind, &mut name);
        name
    }

    /// What the name of every tombstone of a kind begins with, where they have names of their own.
    pub(super) fn beginning_of_tombstones(&self, kind: Kind) -> Option<String> {
        let beginning = || legacy::tombstone(self.namespace(), &Key::new(kind, ""));
        (self.layout == RedisLayout::Legacy).then(beginning)
    }

    fn begin(&self, kind: Kind, name: &mut String) {
        match self.layout {
            RedisLayout::Legacy => legacy::begin(self.namespace(), kind, name),
            RedisLayout::Dapr => dapr::begin(&self.prefix, kind, name),
        }
    }

    /// About how many bytes stand before an id, so that a name need not grow.
    fn longest_beginning(&self) -> usize {
        const KIND: usize = 32;
        match (self.layout, &self.prefix) {
            (RedisLayout::Dapr, KeyPrefix::Text(prefix)) => prefix.len() + KIND,
            (RedisLayout::Dapr, KeyPrefix::None) => KIND,
            (RedisLayout::Legacy, _) => self.namespace().len() + KIND,
        }
    }

    /// The id in the rest of a name; `None` for a name that no key of ours has.
    pub(super) fn id(&self, rest: &[u8]) -> Option<String> {
        let rest = std::str::from_utf8(rest).ok()?;
        match self.layout {
            RedisLayout::Legacy => Some(rest.to_owned()),
            RedisLayout::Dapr => dapr::unescape(rest),
        }
    }

    /// What `TYPE` says of a value that is written here.
    pub(super) fn type_of_value(&self) -> &'static str {
        match self.layout {
            RedisLayout::Legacy => "string",
            RedisLayout::Dapr => "hash",
        }
    }

    /// Whether a string is a value that has no version yet, as it is to Dapr.
    pub(super) fn reads_strings(&self) -> bool {
        self.layout == RedisLayout::Dapr
    }

    /// Says whether a value of a caller would be taken for something else when it is read.
    pub(super) fn is_taken(&self, value: &[u8]) -> bool {
        self.layout == RedisLayout::Dapr && dapr::is_taken(value)
    }

    /// The command that reads a value.
    pub(super) fn read(&self, key: &Key) -> Cmd {
        match self.layout {
            RedisLayout::Legacy => legacy::read(&self.value(key)),
            RedisLayout::Dapr => dapr::read(&self.value(key)),
        }
    }

    /// What a key holds, from the answer to [`read`](Self::read).
    pub(super) fn stored(
        &self,
        key: &Key,
        answer: Value,
        now: Timestamp,
    ) -> Result<Option<Stored>, Failure> {
        if let Value::ServerError(error) = answer {
            let effect = Effect::Read;
            return Err(Failure::Refused { error, effect });
        }
        match self.layout {
            RedisLayout::Legacy => legacy::stored(answer),
            RedisLayout::Dapr => dapr::stored(key, answer, now),
        }
    }

    /// The version of a value that was just written, from what the script says of it.
    pub(super) fn written(&self, value: &Bytes, answered: &str) -> ETag {
        if answered.is_empty() {
            return ETag::new(digest(value));
        }
        ETag::new(answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(layout: RedisLayout, prefix: KeyPrefix) -> Names {
        let mut config = RedisConfig::new("redis://a", layout);
        config.key_prefix = prefix;
        Names::new(&config)
    }

    #[test]
    fn a_key_has_the_names_that_other_programs_know() {
        let task = Key::new(Kind::TASK, "7");
        let seen = Key::new(Kind::SEEN, "g/7");
        let legacy = names(RedisLayout::Legacy, KeyPrefix::default());
        assert_eq!(legacy.value(&task), "task:7");
        assert_eq!(legacy.value(&seen), "task-api:state:seen:g/7");
        for (prefix, expected) in [
            (KeyPrefix::default(), "task-api||task-7"),
            (
                KeyPrefix::Text("default.task-api".into()),
                "default.task-api||task-7",
            ),
            (KeyPrefix::Text("statestore".into()), "statestore||task-7"),
            (KeyPrefix::None, "task-7"),
        ] {
            assert_eq!(names(RedisLayout::Dapr, prefix).value(&task), expected);
        }
    }

    #[test]
    fn an_outbox_has_one_lease_whatever_the_layout_and_each_prefix_has_its_own() {
        let lease = Key::new(Kind::LEASE, "relay");
        for (prefix, outbox, expected) in [
            (
                KeyPrefix::default(),
                "task-api:outbox",
                "task-api:state:lease:relay",
            ),
            (
                KeyPrefix::Text("shop-a".into()),
                "shop-a:outbox",
                "shop-a:state:lease:relay",
            ),
            (KeyPrefix::None, "none:outbox", "none:state:lease:relay"),
        ] {
            for layout in [RedisLayout::Legacy, RedisLayout::Dapr] {
                let names = names(layout, prefix.clone());
                assert_eq!(names.outbox(), outbox);
                assert_eq!(names.of_leases().value(&lease), expected);
            }
        }
    }

    #[test]
    fn an_id_comes_back_from_its_name() {
        for layout in [RedisLayout::Legacy, RedisLayout::Dapr] {
            let names = names(layout, KeyPrefix::default());
            for id in ["7", "a||b", "a|", "%", "%7C", "%25", "a b", "\u{e4}*?[x]"] {
                let key = Key::new(Kind::TASK, id);
                let name = names.value(&key);
                let rest = name.strip_prefix(&names.beginning(Kind::TASK));
                let rest = rest.expect("it begins like its kind");
                assert!(
                    !rest.contains("||") || layout == RedisLayout::Legacy,
                    "{name}"
                );
                assert_eq!(names.id(rest.as_bytes()).as_deref(), Some(id), "{name}");
            }
        }
    }

    #[test]
    fn a_name_that_no_id_has_is_nobodys() {
        let names = names(RedisLayout::Dapr, KeyPrefix::default());
        for rest in ["50%", "%7c", "%2", "a|b", "%41"] {
            assert_eq!(names.id(rest.as_bytes()), None, "{rest}");
        }
        assert_eq!(names.id(b"\xff"), None);
    }
}
