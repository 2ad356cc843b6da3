//! What is not the same on both sides: field by field, with secrets masked.
//!
//! Records are compared by their meaning: the order of an object's fields and the way in which a number or a
//! text is written do not count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Side;
use super::sync::is_ahead;
use crate::application::TaskRecord;
use crate::ports::Key;

/// Most fields of one record that are named.
const MOST_FIELDS: usize = 16;

/// Longest part of a value that is shown, in bytes of JSON.
const MOST_SHOWN: usize = 200;

/// Longest part of a pointer that is shown, in bytes.
const MOST_POINTER: usize = 300;

/// Values are looked into so deep; what is deeper is compared as text.
const MOST_DEPTH: usize = 32;

/// In place of a value that is nobody's business.
const MASK: &str = "***";

/// Parts of names whose values are not shown, in lower case and without `_` and `-`.
const SECRETS: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "token",
    "apikey",
    "authorization",
    "credential",
    "privatekey",
    "cookie",
    "session",
];

/// How two sides of a record disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disagreement {
    /// The following side lacks it.
    Missing,
    /// The side that accepts writes has none.
    Extra,
    /// One version, two contents.
    Different,
    /// The following side has an earlier version, and no mark says so.
    Stale,
    /// The following side has a later version.
    Ahead,
}

impl Disagreement {
    /// The word of reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Different => "different",
            Self::Stale => "stale",
            Self::Ahead => "ahead",
        }
    }

    /// How the follower of a record disagrees with what it should follow; `None` if they mean the same.
    pub(super) fn of(leader: Option<&[u8]>, follower: Option<&[u8]>) -> Option<Self> {
        match (leader, follower) {
            (None, None) => None,
            (Some(_), None) => Some(Self::Missing),
            (None, Some(_)) => Some(Self::Extra),
            (Some(leader), Some(follower)) if means_the_same(leader, follower) => None,
            (Some(leader), Some(follower)) if is_ahead(follower, leader) => Some(Self::Ahead),
            (Some(leader), Some(follower)) if is_ahead(leader, follower) => Some(Self::Stale),
            (Some(_), Some(_)) => Some(Self::Different),
        }
    }
}

/// One field of which the sides disagree. A value that is `None` is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldDifference {
    /// Where it is, as a JSON pointer: `/status`. Empty for the record as a whole.
    pub field: String,
    /// What the old side has, as JSON; cut when it is long, `***` for a secret.
    pub old: Option<String>,
    /// What the new side has, likewise.
    pub new: Option<String>,
}

/// A record of which the sides disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Its kind and id.
    pub key: String,
    /// How they disagree.
    pub disagreement: Disagreement,
    /// The fields, at most 16.
    pub fields: Vec<FieldDifference>,
    /// How many fields there are beyond these.
    pub more_fields: u64,
    /// The sides on which somebody else than this service has written the record last.
    pub foreign: Vec<Side>,
    /// Whether it was repaired.
    pub repaired: bool,
}

impl Difference {
    /// What is told of a record of which the sides disagree.
    pub(super) fn of(
        key: &Key,
        disagreement: Disagreement,
        old: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Self {
        let mut fields = Fields::default();
        if let (Some(old), Some(new)) = (old, new) {
            match (parsed(old), parsed(new)) {
                (Some(old), Some(new)) => fields.compare("", Some(old), Some(new), 0),
                // What is no JSON may hold anything.
                _ => fields.note("", Some(size(old)), Some(size(new))),
            }
        }
        let foreign = [(Side::Old, old), (Side::New, new)];
        let foreign = foreign
            .into_iter()
            .filter(|(_, value)| value.is_some_and(is_of_a_foreign_writer));
        Self {
            key: key.to_string(),
            disagreement,
            foreign: foreign.map(|(side, _)| side).collect(),
            fields: fields.named,
            more_fields: fields.more,
            repaired: false,
        }
    }

    /// Whether a field, or one within it, is among those that disagree.
    #[must_use]
    pub fn touches(&self, field: &str) -> bool {
        let wanted = field.trim_end_matches('/');
        self.fields.iter().any(|one| {
            one.field == wanted
                || one
                    .field
                    .strip_prefix(wanted)
                    .is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

/// Whether two values are the same bytes, or JSON of the same meaning.
pub(super) fn means_the_same(one: &[u8], other: &[u8]) -> bool {
    if one == other {
        return true;
    }
    let (Some(one), Some(other)) = (parsed(one), parsed(other)) else {
        return false;
    };
    let mut fields = Fields::default();
    fields.compare("", Some(one), Some(other), 0);
    fields.named.is_empty()
}

/// A task whose revision is not of its content.
fn is_of_a_foreign_writer(value: &[u8]) -> bool {
    TaskRecord::decode(value).is_ok_and(|record| record.revision.is_none())
}

fn parsed(value: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(value).ok()
}

fn size(value: &[u8]) -> String {
    format!("{} bytes that are no JSON", value.len())
}

#[derive(Debug, Default)]
struct Fields {
    named: Vec<FieldDifference>,
    more: u64,
}

impl Fields {
    fn compare(
        &mut self,
        pointer: &str,
        old: Option<&RawValue>,
        new: Option<&RawValue>,
        depth: usize,
    ) {
        if let (Some(old), Some(new)) = (old, new) {
            if old.get() == new.get() || is_same_scalar(old.get(), new.get()) {
                return;
            }
            if depth < MOST_DEPTH
                && let Some(parts) = parts(old, new)
            {
                for (name, old, new) in parts {
                    let pointer = format!("{pointer}/{}", escaped(&name));
                    self.compare(&pointer, old, new, depth + 1);
                }
                return;
            }
        }
        let shown = |value: Option<&RawValue>| value.map(|value| shown(pointer, value.get()));
        self.note(pointer, shown(old), shown(new));
    }

    fn note(&mut self, pointer: &str, old: Option<String>, new: Option<String>) {
        if self.named.len() == MOST_FIELDS {
            self.more += 1;
            return;
        }
        self.named.push(FieldDifference {
            field: cut(pointer, MOST_POINTER),
            old,
            new,
        });
    }
}

type Part<'a> = (String, Option<&'a RawValue>, Option<&'a RawValue>);

/// The fields of two objects or the items of two lists, each with what both have there.
fn parts<'a>(old: &'a RawValue, new: &'a RawValue) -> Option<Vec<Part<'a>>> {
    if let (Some(old), Some(mut new)) = (object(old), object(new)) {
        let old = old.into_iter().map(|(name, old)| {
            let new = new.remove(&name);
            (name, Some(old), new)
        });
        let mut parts: Vec<Part<'a>> = old.collect();
        parts.extend(new.into_iter().map(|(name, new)| (name, None, Some(new))));
        return Some(parts);
    }
    let (old, new) = (list(old)?, list(new)?);
    let items = 0..old.len().max(new.len());
    let items = items.map(|n| (n.to_string(), old.get(n).copied(), new.get(n).copied()));
    Some(items.collect())
}

fn object(value: &RawValue) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(value.get()).ok()
}

fn list(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// Texts with other escapes, and numbers with other digits, that mean the same.
fn is_same_scalar(one: &str, other: &str) -> bool {
    /// Whole numbers below this are exact in every JSON reader.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if one.starts_with('"') && other.starts_with('"') {
        let text = |json| serde_json::from_str::<String>(json).ok();
        return text(one).is_some_and(|text_of_one| Some(text_of_one) == text(other));
    }
    let number = |json| serde_json::from_str::<f64>(json).ok();
    match (number(one), number(other)) {
        (Some(one), Some(other)) => one == other && one.abs() < EXACT,
        _ => false,
    }
}

fn shown(pointer: &str, json: &str) -> String {
    if is_secret(pointer) {
        return MASK.to_owned();
    }
    match masked(json) {
        Some(masked) => cut(&masked, MOST_SHOWN),
        None => cut(json, MOST_SHOWN),
    }
}

/// The same with secrets inside it masked; `None` for what has no fields.
fn masked(json: &str) -> Option<String> {
    fn mask(value: &mut serde_json::Value) {
        if let Some(fields) = value.as_object_mut() {
            for (name, value) in fields.iter_mut() {
                match is_secret_name(name) {
                    true => *value = MASK.into(),
                    false => mask(value),
                }
            }
        } else if let Some(items) = value.as_array_mut() {
            items.iter_mut().for_each(mask);
        }
    }
    let mut value: serde_json::Value = serde_json::from_str(json).ok()?;
    if !value.is_object() && !value.is_array() {
        return None;
    }
    mask(&mut value);
    Some(value.to_string())
}

fn is_secret(pointer: &str) -> bool {
    pointer.split('/').any(is_secret_name)
}

fn is_secret_name(name: &str) -> bool {
    let plain = name.chars().filter(|c| !matches!(c, '_' | '-'));
    let plain = plain.collect::<String>().to_lowercase();
    SECRETS.iter().any(|secret| plain.contains(secret))
}

/// A name as a JSON pointer has it.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The beginning of a text, at a character, with a sign that there is more.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end));
    format!("{}…", &text[..end.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Kind;

    fn fields(old: &str, new: &str) -> Vec<(String, Option<String>, Option<String>)> {
        let key = Key::new(Kind::TASK, "t-1");
        let (old, new) = (Some(old.as_bytes()), Some(new.as_bytes()));
        let difference = Difference::of(&key, Disagreement::Different, old, new);
        let fields = difference.fields.into_iter();
        fields.map(|one| (one.field, one.old, one.new)).collect()
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn values_of_one_meaning_are_the_same() {
        for (one, other) in [
            (
                r#"{"a":1,"b":[true,null]}"#,
                r#"{ "b": [true, null], "a": 1 }"#,
            ),
            (r#"{"a":"A\/é"}"#, r#"{"a":"A/é"}"#),
            (r#"{"a":1.0,"b":1e2}"#, r#"{"a":1,"b":100}"#),
            ("plain", "plain"),
        ] {
            assert!(means_the_same(one.as_bytes(), other.as_bytes()), "{one}");
        }
        for (one, other) in [
            (r#"{"a":9007199254740993}"#, r#"{"a":9007199254740992}"#),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#),
            (r#"{"a":null}"#, "{}"),
            (r#"{"a":"1"}"#, r#"{"a":1}"#),
            ("plain", "other"),
        ] {
            assert!(!means_the_same(one.as_bytes(), other.as_bytes()), "{one}");
        }
    }

    #[test]
    fn each_field_is_named_by_its_pointer() {
        let old = r#"{"status":"pending","list":[1,{"x/y":2}],"gone":0}"#;
        let new = r#"{"status":"done","list":[1,{"x/y":3},4]}"#;
        let mut found = fields(old, new);
        found.sort();
        let expected = [
            ("/gone", some("0"), None),
            ("/list/1/x~1y", some("2"), some("3")),
            ("/list/2", None, some("4")),
            ("/status", some("\"pending\""), some("\"done\"")),
        ];
        let expected = expected.map(|(field, old, new)| (field.to_owned(), old, new));
        assert_eq!(found, expected);
    }

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        let old = r#"{"api_key":"k-1","auth":{"Password":"p-1"},"n":[{"token":"t-1","x":1}]}"#;
        let new = r#"{"api_key":"k-2","auth":{"Password":"p-2"},"n":1}"#;
        let found = format!("{:?}", fields(old, new));
        for secret in ["k-1", "k-2", "p-1", "p-2", "t-1"] {
            assert!(!found.contains(secret), "{secret} is shown in {found}");
        }
        assert!(found.contains("/auth/Password"), "{found}");
    }

    #[test]
    fn what_is_shown_is_bounded() {
        let many = |value: u32| {
            let fields = (0..100).map(|n| format!("\"f{n}\":{value}"));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        };
        let key = Key::new(Kind::TASK, "t-1");
        let (old, new) = (many(1), many(2));
        let (old, new) = (Some(old.as_bytes()), Some(new.as_bytes()));
        let difference = Difference::of(&key, Disagreement::Different, old, new);
        assert_eq!((difference.fields.len(), difference.more_fields), (16, 84));
        let long = |text: &str| format!("{{\"a\":\"{}\"}}", text.repeat(1_000));
        let found = fields(&long("é"), &long("ü"));
        assert!(found[0].1.as_ref().expect("a value").len() < 220);
    }

    #[test]
    fn a_filter_finds_a_field_and_what_is_in_it() {
        let key = Key::new(Kind::TASK, "t-1");
        let (old, new) = (
            Some(&br#"{"a":{"b":1}}"#[..]),
            Some(&br#"{"a":{"b":2}}"#[..]),
        );
        let difference = Difference::of(&key, Disagreement::Different, old, new);
        assert!(difference.touches("/a") && difference.touches("/a/b"));
        assert!(!difference.touches("/b") && !difference.touches("/a/b/c"));
    }
}
